import io
import pickle
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save

from keras_ext.files.file_kind import file_kind, wrong_kind


def hdf5():
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["x"] = np.zeros(3)
    return content.getvalue()


def archive():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("x", b"")
    return content.getvalue()


def table(folder):
    """The index of a checkpoint."""
    tensorflow = pytest.importorskip("tensorflow")
    prefix = str(folder / "other.ckpt")
    tensorflow.raw_ops.SaveV2(
        prefix=prefix, tensor_names=["x"], shape_and_slices=[""], tensors=[tensorflow.zeros(3)]
    )
    return (folder / "other.ckpt.index").read_bytes()


FILES = {
    "empty": b"",
    "zip archive": archive(),
    "pickle": pickle.dumps({"weight": [1.0]}),
    "HDF5": hdf5(),
    "HTML": b"\n\n <!DOCTYPE html><html></html>",
    "XML": b"<?xml version='1.0'?><Error/>",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a safetensors file": save({"x": np.zeros(3)}),
    "unknown kind": b"just some text",
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["model.safetensors", "bert_model.ckpt.index", "x.h5"])
def test_the_content_counts_and_not_the_name(tmp_path, kind, name):
    (tmp_path / name).write_bytes(FILES[kind])
    assert kind in file_kind(tmp_path / name)


def test_the_index_of_a_checkpoint_is_known_by_its_end(tmp_path):
    content = table(tmp_path)
    for kind, end in (("the index of a TensorFlow checkpoint", None), ("unknown kind", -1)):
        (tmp_path / "x").write_bytes(content[:end])
        assert kind in file_kind(tmp_path / "x")


@pytest.mark.parametrize("length", [0x80, 0x3C, 0x4B50])
def test_the_length_of_a_safetensors_header_is_no_signature(tmp_path, length):
    """The first bytes are then those of a pickle, of a page and of a zip archive."""
    header = b'{"__metadata__": {"x": "' + b"y" * (length - 27) + b'"}}'
    assert len(header) == length
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + header)
    assert file_kind(tmp_path / "x") == "a safetensors file"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such file.*absent"):
        file_kind(tmp_path / "absent")


def test_the_message_says_what_was_expected_and_what_is_there(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    message = wrong_kind(tmp_path / "x", "a safetensors file")
    assert message.startswith("Expected a safetensors file, but the file is empty. Received: path=")
