"""Whatever the package writes: after an error the files are as they were."""

import ast
import contextlib
import json
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

import keras_ext
from keras_ext.bert4keras import convert, save_bert4keras_weights
from keras_ext.bert4keras.legacy_hdf5 import write_legacy_hdf5
from keras_ext.checkpoints import (
    encoder_from_huggingface,
    load_huggingface_weights,
    save_google_weights,
    save_huggingface,
)
from keras_ext.data import Tokenizer, write_jsonl
from keras_ext.files.replaced_files import COMPLETE
from keras_ext.models import BertEncoder
from keras_ext.tasks import SentenceEncoder

PACKAGE = Path(keras_ext.__file__).parent
NODES = {"x": [], "dense": [[["x", 0, 0, {}]]]}


def encoder(number):
    """An encoder whose weights and settings, and so all files of it, depend on a number."""
    model = BertEncoder(9, 1, 2, 8, 16, max_sequence_length=8, layer_norm_epsilon=number / 10)
    model.set_weights([np.full(w.shape, number, "float32") for w in model.weights])
    return model


def tokenizer(number):
    return Tokenizer.from_characters("abcd"[: number + 1], min_count=1)


def sentences(number):
    return SentenceEncoder(encoder(number), tokenizer(number), max_length=8)


def old_model(path, number):
    """A file that `convert` reads."""
    configs = {
        "x": ("InputLayer", {"batch_input_shape": [None, 4]}),
        "dense": ("Dense", {"units": 3, "activation": "linear"}),
    }
    layers = [
        {"class_name": kind, "name": name, "config": {"name": name, **config}}
        | {"inbound_nodes": NODES[name]}
        for name, (kind, config) in configs.items()
    ]
    config = {"name": "old", "layers": layers}
    config |= {"input_layers": [["x", 0, 0]], "output_layers": [["dense", 0, 0]]}
    weights = {"kernel": np.full((4, 3), number), "bias": np.zeros(3)}
    write_legacy_hdf5(path, {"dense": weights})
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
    return path


# What makes an object to write from a place and a number, and what writes it into a folder.
WRITERS = {
    "Tokenizer.save": (
        lambda place, number: tokenizer(number),
        lambda made, folder: made.save(folder / "tokenizer.json"),
    ),
    "write_jsonl": (
        lambda place, number: [{"text": 9 * "red" * number}],
        lambda made, folder: write_jsonl(made, folder / "records.jsonl"),
    ),
    "save_bert4keras_weights": (
        lambda place, number: encoder(number),
        lambda made, folder: save_bert4keras_weights(made, folder / "encoder.h5"),
    ),
    "save_google_weights": (
        lambda place, number: encoder(number),
        lambda made, folder: save_google_weights(made, folder / "encoder.ckpt"),
    ),
    "save_huggingface": (lambda place, number: encoder(number), save_huggingface),
    "convert": (
        lambda place, number: old_model(place / f"{number}.h5", number),
        lambda made, folder: convert(made, folder / "model.keras"),
    ),
    "SentenceEncoder.save": (
        lambda place, number: sentences(number),
        lambda made, folder: made.save(folder),
    ),
}


@contextlib.contextmanager
def disk_of(size):
    """A context in which a file can get no longer than this, in bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 20, 0.5, 0.9])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(tmp_path, name, size):
    make, write = WRITERS[name]
    old, new = make(tmp_path, 1), make(tmp_path, 2)
    folder = tmp_path / "target"
    write(old, folder)
    before = contents(folder)
    size = size if size >= 1 else int(size * max(map(len, before.values())))
    with disk_of(size), pytest.raises(OSError, match=str(folder)):
        write(new, folder)
    assert contents(folder) == before
    with disk_of(size), pytest.raises(OSError, match="elsewhere"):
        write(new, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    write(new, folder)
    after = contents(folder)
    assert set(after) == set(before)
    assert all(after[file] != before[file] for file in before)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_broken_disk(tmp_path, monkeypatch, name, call):
    make, write = WRITERS[name]
    old, new = make(tmp_path, 1), make(tmp_path, 2)
    folder = tmp_path / "target"
    write(old, folder)
    before = contents(folder)

    def fail(*args, **kwargs):
        raise OSError(5, "broken disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="broken disk"):
            write(new, folder)
    assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("move", range(1, 7))
def test_a_huggingface_folder_whose_save_was_cut_short(tmp_path, monkeypatch, move):
    """What is read is never a new config with old weights."""
    replace, left, others = os.replace, [move], {"vocab.txt": b"red"}
    (tmp_path / "vocab.txt").write_bytes(b"red")
    save_huggingface(encoder(1), tmp_path)
    new = encoder(2)

    def die(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "the process is dead")  # whatever it still tries to do
        replace(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(OSError):
        patch.setattr(os, "replace", die)
        save_huggingface(new, tmp_path)
    loaded = encoder_from_huggingface(tmp_path)
    assert loaded.layer_norm_epsilon == 0.2
    assert all((w == 2).all() for w in loaded.get_weights())
    load_huggingface_weights(new, tmp_path)
    assert (tmp_path / COMPLETE).exists() == (move < 6)
    save_huggingface(encoder(3), tmp_path)
    assert encoder_from_huggingface(tmp_path).layer_norm_epsilon == 0.3
    assert {*contents(tmp_path)} == {"config.json", "model.safetensors", *others}


WRITE = {"write_text", "write_bytes", "save_file", "savez", "save", "dump", "SaveV2", "tofile"}
MOVE = {"rename", "mkdir", "makedirs", "mkdtemp", "unlink", "rmtree"}


def calls(source):
    """The names of the methods and functions that a source calls."""
    nodes = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}


def test_one_place_of_the_package_moves_files_and_all_that_writes_uses_it():
    bad = []
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text("utf-8")
        moves = MOVE & calls(source) or "os.replace(" in source
        if path.parent.name != "files" and (
            moves or (WRITE & calls(source) and "    with replaced_file" not in source)
        ):
            bad.append(path.name)
    assert bad == []
