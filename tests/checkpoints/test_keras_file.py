import io
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_ext.checkpoints.keras_file import load_keras_file


@pytest.fixture
def path(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def rewrite(path, change, packed=zipfile.ZIP_STORED):
    """Writes the archive anew with other parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def with_weights(change):
    """The change of a file by one of its weights."""

    def changed(parts):
        content = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(content, "r+") as file:
            group = (
                file["layers/dense/vars"] if "layers/dense" in file else file["layers/head/vars"]
            )
            change(file, group)
        parts["model.weights.h5"] = content.getvalue()

    return changed


def test_what_keras_saves_is_loaded(path):
    loaded, expected = load_keras_file(path), keras.models.load_model(path)
    for ours, theirs in zip(loaded.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def refused(path, match):
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"(?s){match}"):
        load_keras_file(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("part", ["config.json", "model.weights.h5", "more.txt"])
def test_a_packed_bomb_of_blanks_takes_no_memory(path, part):
    blanks = b" " * 2**26
    rewrite(path, lambda parts: parts.update({part: blanks}), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**18
    refused(path, "claims to hold.*not packed.*model.keras")


def test_a_deep_description_is_no_recursion_error(path):
    deep = b'{"config": ' + b"[" * 10**5 + b"]" * 10**5 + b"}"
    rewrite(path, lambda parts: parts.update({"config.json": deep}))
    refused(path, "config.json: JSON of more than 100 levels")


def blanks(file, group):
    del group["1"]
    shape, chunks = (2**12, 2**12), (2**10, 2**12)
    group.create_dataset("1", shape, "float32", chunks=chunks, compression="gzip")


def elsewhere(file, group):
    del group["1"]
    group["1"] = h5py.ExternalLink("other.h5", "/x")


def soft(file, group):
    del group["1"]
    group["1"] = h5py.SoftLink("/layers")


def external(file, group):
    del group["1"]
    group.create_dataset("1", (2,), "float32", external=[("other.bin", 0, 8)])


def to_itself(file, group):
    for i in range(40):
        group[f"root{i}"] = file["/"]
    del group["1"]


def deep(file, group):
    del group["1"]
    for _ in range(2000):
        group = group.create_group("a")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (blanks, "claims to hold 67108.*model.keras"),
        (elsewhere, "links, or kept in other files: /layers/.*/vars/1"),
        (soft, "links, or kept in other files: /layers/.*/vars/1"),
        (external, "links, or kept in other files: /layers/.*/vars/1"),
        (to_itself, "received 41 variables"),
        (deep, "Dense name=head"),
    ],
)
def test_weights_lie_in_the_file_and_fit_in_it(path, change, match):
    rewrite(path, with_weights(change))
    refused(path, match)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named(path, bad):
    rewrite(path, with_weights(lambda file, group: group["1"].write_direct(np.float32([0, bad]))))
    refused(path, "values: .*head/bias, 1 of 2 are not finite.*model.keras")


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_what_is_no_keras_file_is_named(path, content):
    path.write_bytes(content)
    refused(path, "git lfs pull.*model.keras" if content[:1] == b"v" else "model.keras")


@pytest.mark.parametrize("part", ["config.json", "model.weights.h5"])
def test_a_part_that_lacks_is_named(path, part):
    rewrite(path, lambda parts: parts.pop(part))
    refused(path, f"model.keras cannot be read.*{part}")


@pytest.mark.parametrize(("key", "number"), [("units", 10**9), ("num_layers", 10**5)])
def test_a_description_that_claims_more_than_the_file_holds_is_refused(path, key, number):
    def change(parts):
        text = parts["config.json"].decode()
        parts["config.json"] = text.replace('"units": 2', f'"{key}": {number}').encode()

    rewrite(path, change)
    refused(path, f"claims more than the file.*{key}={number}, path=.*model.keras")
