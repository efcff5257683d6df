"""A trained task as a folder: model, tokenizer and a description of both. No pickle."""

import hashlib
import json
import os
import platform
import time
from pathlib import Path

import keras

from keras_ext.data import Tokenizer
from keras_ext.tasks.quantized import load_model, quantized_layers
from keras_ext.tasks.replaced_files import REPLACED, WRITTEN, leftovers, replaced_files

FORMAT = "keras_ext bundle"
FORMAT_VERSION = 1
MODEL, TOKENIZER, CONFIG = "model.keras", "tokenizer.json", "config.json"
FILES = (MODEL, TOKENIZER, CONFIG)


def save_bundle(folder, task, version, **description):
    """Writes `model.keras`, `tokenizer.json` and `config.json` into a folder.

    The files appear when all are complete; a bundle that was there before is replaced then. After
    an error all is as it was. Only the network is kept, without optimizer and loss.

    Args:
        folder: path of the folder. One that exists must be empty or hold a bundle. A link is
            followed, a leading `~` is the home folder, folders above it are made.
        task: the task, an object with `model` (a `keras.Model`), `tokenizer` (with `save(path)`)
            and `settings` (a dict of plain values).
        version: version of keras_ext.
        **description: what else `config.json` is to hold, plain values.

    Raises:
        ValueError: if the folder holds anything else.
        OSError: naming the folder, if it cannot be written, or if another process saves into it.
    """
    folder = Path(os.path.realpath(os.path.expanduser(folder)))
    if folder.exists() and not (folder.is_dir() and _can_be_replaced(folder)):
        raise ValueError(
            "A bundle replaces only an empty folder or another bundle, and this path holds "
            f"something else. Received: folder={str(folder)!r}"
        )
    # Of a compiled model Keras writes the optimizer, too; `include_optimizer` is for HDF5 only.
    model = keras.Model(task.model.input, task.model.output, name=task.model.name)
    with replaced_files(folder, FILES) as new:
        model.save(new / MODEL)
        task.tokenizer.save(new / TOKENIZER)
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "task": type(task).__name__,
            **description,
            "settings": task.settings,
            "quantized": quantized_layers(model),
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


def load_bundle(folder, task, *description):
    """Reads a bundle; anew, where another process replaces it meanwhile.

    Args:
        folder: path of the folder.
        task: name of the task class that the bundle must be of.
        *description: names that `config.json` must hold beside the settings.

    Returns:
        The dict of `config.json`, the `keras.Model`, not compiled, and the `data.Tokenizer`.

    Raises:
        ValueError: if the folder is not a bundle, is of another task or a newer format, or if a
            file is missing or differs from the one that was saved. Where a save was cut short, the
            message names the whole bundles that are left.
    """
    folder = Path(os.path.expanduser(folder))
    fault = ValueError(f"The bundle changes all the time. Received: folder={str(folder)!r}")
    for _ in range(10):
        found = _identities(folder)
        try:
            config = _check(folder, task, description)
            tokenizer = Tokenizer.from_file(folder / TOKENIZER)
            model = load_model(folder / MODEL, config.get("quantized"))
        except Exception as error:
            fault = error
            if _identities(folder) == found and not (folder / REPLACED).exists():
                break
            time.sleep(0.1)  # its files are being replaced
        else:
            if _identities(folder) == found:
                return config, model, tokenizer
    left = leftovers(folder)
    if not left:
        raise fault
    whole = [str(path) for path in left if _is_whole(path, task, description)]
    raise ValueError(
        f"{fault} A save into it goes on or was cut short, and left "
        f"{[str(path) for path in left]}. Whole bundles among them, to be loaded from there or "
        f"moved: {whole}"
    ) from fault


def _check(folder, task, description):
    """The dict of `config.json`, if all is as `load_bundle` says."""
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
    return config


def _is_whole(folder, task, description):
    try:
        _check(folder, task, description)
    except ValueError:
        return False
    return True


def _identities(folder):
    """What differs after a file was replaced."""
    found = []
    for name in FILES:
        try:
            file = os.stat(folder / name)
        except OSError:
            found.append(None)
        else:
            found.append((file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns))
    return found


def _can_be_replaced(folder):
    """Whether a folder is empty or holds a bundle and nothing else, or what is left of a save."""
    names = set(os.listdir(folder))
    left = {name for name in names if name == REPLACED or name.startswith(WRITTEN)}
    if not names - left <= set(FILES):
        return False
    if left or not names:
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
