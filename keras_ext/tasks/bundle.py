"""A trained task as a folder: model, tokenizer and a description of both. No pickle."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

import keras

FORMAT = "keras_ext bundle"
FORMAT_VERSION = 1
MODEL, TOKENIZER, CONFIG = "model.keras", "tokenizer.json", "config.json"


def save_bundle(folder, task, version, **description):
    """Writes `model.keras`, `tokenizer.json` and `config.json` into a folder.

    The folder appears when all files are complete; a bundle that it held before is replaced then.

    Args:
        folder: path of the folder. One that exists must be empty or hold a bundle.
        task: the task, an object with `model` (a `keras.Model`), `tokenizer` (with `save(path)`)
            and `settings` (a dict of plain values).
        version: version of keras_ext.
        **description: what else `config.json` is to hold, plain values.

    Raises:
        ValueError: if the folder holds anything else.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and _can_be_replaced(folder)):
        raise ValueError(
            "A bundle replaces only an empty folder or another bundle, and this path holds "
            f"something else. Received: folder={str(folder)!r}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        task.model.save(new / MODEL, include_optimizer=False)
        task.tokenizer.save(new / TOKENIZER)
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "task": type(task).__name__,
            **description,
            "settings": task.settings,
            "versions": {
                "keras_ext": version,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "python": platform.python_version(),
            },
            "sha256": {name: _sha256(new / name) for name in (MODEL, TOKENIZER)},
        }
        config["sha256"][CONFIG] = _config_sha256(config)
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (new / CONFIG).write_text(text, encoding="utf-8")
        new.chmod(0o755)
        if folder.exists():
            old = new.with_name(f"{new.name}-replaced")
            folder.rename(old)
            new.rename(folder)
            shutil.rmtree(old)
        else:
            new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def load_bundle(folder, task, *description):
    """Reads and checks a bundle's description.

    Args:
        folder: path of the folder.
        task: name of the task class that the bundle must be of.
        *description: names that `config.json` must hold beside the settings.

    Returns:
        The dict of `config.json`, and the paths of the model and of the tokenizer.

    Raises:
        ValueError: if the folder is not a bundle, is of another task or a newer format, or if a
            file is missing or differs from the one that was saved.
    """
    folder = Path(folder)
    where = f"Received: folder={str(folder)!r}"
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"A bundle is a folder with {MODEL}, {TOKENIZER} and {CONFIG}, and its {CONFIG} cannot "
            f"be read ({error}). {where}"
        ) from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"The {CONFIG} is not one of a {FORMAT}. {where}")
    if config.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"This version of keras_ext reads bundles of format {FORMAT_VERSION}, this one has "
            f"format {config.get('format_version')}. {where}"
        )
    if config.get("task") != task:
        raise ValueError(f"The bundle holds a {config.get('task')}, not a {task}. {where}")
    missing = {*description, "settings", "sha256"} - set(config)
    if missing:
        raise ValueError(f"The {CONFIG} of the bundle lacks {sorted(missing)}. {where}")
    if config["sha256"].get(CONFIG) != _config_sha256(config):
        raise ValueError(f"The bundle is damaged: {CONFIG} was changed after saving. {where}")
    for name in (MODEL, TOKENIZER):
        if not (folder / name).is_file():
            raise ValueError(f"The bundle lacks its file {name}. {where}")
        if _sha256(folder / name) != config["sha256"].get(name):
            raise ValueError(
                f"The bundle is damaged: {name} is not the file that was saved. {where}"
            )
    return config, folder / MODEL, folder / TOKENIZER


def _can_be_replaced(folder):
    """Whether a folder is empty or holds a bundle and nothing else."""
    names = set(os.listdir(folder))
    if not names <= {MODEL, TOKENIZER, CONFIG}:
        return False
    if not names:
        return True
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT


def _config_sha256(config):
    """The digest of the description, without itself."""
    content = {**config, "sha256": {n: d for n, d in config["sha256"].items() if n != CONFIG}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
