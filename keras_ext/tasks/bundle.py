"""A trained task as a folder: model, tokenizer and a description of both. No pickle."""

import contextlib
import hashlib
import json
import os
import platform
import time
from functools import partial
from pathlib import Path

import keras

import keras_ext
from keras_ext.checkpoints.keras_file import load_keras_file
from keras_ext.data import Tokenizer
from keras_ext.files.hidden_folder import WRITTEN
from keras_ext.files.json_fields import check_fields
from keras_ext.files.replaced_files import COMPLETE, current_file, replaced_files
from keras_ext.files.text_file import load_json, read_text
from keras_ext.tasks.quantized import load_model, quantized_layers

FORMAT = "keras_ext bundle"
FORMAT_VERSION = 1
MODEL, TOKENIZER, CONFIG = "model.keras", "tokenizer.json", "config.json"
FILES = (MODEL, TOKENIZER, CONFIG)
FIELDS = {
    "format_version": "an integer",
    "task": "a string",
    "settings": "an object",
    "sha256": "an object",
}
OPTIONAL = {"versions": "an object of strings", "quantized": "an object of strings"}
ATTEMPTS = 20  # to read a bundle that others replace meanwhile


def save_bundle(folder, task, **description):
    """Writes `model.keras`, `tokenizer.json` and `config.json` into a folder.

    The files appear when all are complete; a bundle that was there before is replaced then, in one
    step for `load_bundle`. After an error all is as it was. Only the network is kept, without
    optimizer and loss.

    Args:
        folder: path of the folder. One that exists must be empty or hold a bundle. A link is
            followed, a leading `~` is the home folder, folders above it are made.
        task: the task, an object with `model` (a `keras.Model`), `tokenizer` (with `save(path)`)
            and `settings` (a dict of plain values).
        **description: what else `config.json` is to hold, plain values.

    Raises:
        ValueError: if the folder holds anything else.
        OSError: naming the folder, if it cannot be written.
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
                "keras_ext": keras_ext.__version__,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "python": platform.python_version(),
            },
            "sha256": {name: _sha256(new / name) for name in (MODEL, TOKENIZER)},
        }
        config["sha256"][CONFIG] = _config_sha256(config)
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (new / CONFIG).write_text(text, encoding="utf-8")


def load_bundle(folder, task, settings=None, optional_settings=None, **description):
    """Reads a bundle; anew, where another process replaces it meanwhile.

    Args:
        folder: path of the folder.
        task: name of the task class that the bundle must be of.
        settings: dict from the names of the settings to what they should be, keys of
            `json_fields.KINDS`. None: any.
        optional_settings: the same, of settings that older bundles do not have.
        **description: likewise, what else `config.json` is to hold.

    Returns:
        The dict of `config.json`, the `keras.Model`, not compiled, and the `data.Tokenizer`.

    Raises:
        ValueError: if the folder is not a bundle, is of another task or a newer format; if
            `config.json` lacks a key or holds something else there, naming it; if a file is missing
            or differs from the one that was saved; if it was replaced at each attempt to read it.
    """
    folder = Path(os.path.expanduser(folder))
    for _ in range(ATTEMPTS):
        files, fault = _files(folder), None
        paths = {name: path for name, (path, _) in files.items()}
        try:
            config = _check(paths, task, (settings, optional_settings), description)
            tokenizer = Tokenizer.from_file(paths[TOKENIZER])
            load = partial(load_model, quantized=config.get("quantized"))
            model = load_keras_file(paths[MODEL], load)
        except Exception as error:
            fault = error
        if _files(folder) != files:
            time.sleep(0.1)
        elif fault is not None:
            raise fault
        else:
            return config, model, tokenizer
    raise ValueError(
        f"The bundle was replaced while it was read, {ATTEMPTS} times in a row. "
        f"Received: folder={str(folder)!r}"
    )


def _files(folder):
    """The path of each file, and what differs after it was replaced."""
    found = {}
    for name in FILES:
        path = current_file(folder, name)
        try:
            file = os.stat(path)
        except OSError:
            found[name] = path, None
        else:
            found[name] = path, (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)
    return found


def _check(paths, task, settings, description):
    """The dict of `config.json`, if all is as `load_bundle` says."""
    path = paths[CONFIG]
    where = f"Received: path={str(path)!r}"
    try:
        config = load_json(read_text(path), CONFIG)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"A bundle is a folder with {MODEL}, {TOKENIZER} and {CONFIG}, and its {CONFIG} cannot "
            f"be read ({error}). {where}"
        ) from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f'The "format" in {CONFIG} is not {FORMAT!r}: it is no bundle. {where}')
    check_fields(config, path, {"format_version": FIELDS["format_version"]})
    if config["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"This version of keras_ext reads bundles of format {FORMAT_VERSION}. Received: "
            f"format_version={config['format_version']} in {str(path)!r}"
        )
    check_fields(config, path, FIELDS, OPTIONAL)
    if config["task"] != task:
        raise ValueError(
            f"The bundle holds a {config['task']}, not a {task}. "
            f"Received: task={config['task']!r} in {str(path)!r}"
        )
    check_fields(config, path, description)
    check_fields(config["sha256"], path, dict.fromkeys(FILES, "a string"), within="sha256")
    if settings[0] is not None:
        check_fields(config["settings"], path, *settings, within="settings", others=False)
    if config["sha256"][CONFIG] != _config_sha256(config):
        raise ValueError(f"The bundle is damaged: {CONFIG} was changed after saving. {where}")
    for name in (MODEL, TOKENIZER):
        if not paths[name].is_file():
            raise ValueError(f"The bundle lacks its file {name}. {where}")
        if _sha256(paths[name]) != config["sha256"][name]:
            raise ValueError(
                f"The bundle is damaged: {name} is not the file that was saved. {where}"
            )
    return config


def _can_be_replaced(folder):
    """Whether a folder is empty or holds a bundle and nothing else, or what is left of a save."""
    names = set(os.listdir(folder))
    left = {name for name in names if name == COMPLETE or name.startswith(WRITTEN)}
    if not names - left <= set(FILES):
        return False
    if left or not names:
        return True
    try:
        config = load_json(read_text(folder / CONFIG), CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT


@contextlib.contextmanager
def values_of(folder):
    """A context in which values of a bundle are used; an error about one names the file.

    Args:
        folder: path of the bundle.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"In {CONFIG} of the bundle {str(folder)!r}: {error}") from None


def _config_sha256(config):
    """The digest of the description, without itself."""
    content = {**config, "sha256": {n: d for n, d in config["sha256"].items() if n != CONFIG}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
