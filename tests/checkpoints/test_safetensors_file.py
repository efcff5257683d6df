import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from keras_ext.checkpoints import read_safetensors


def file_of(header, data=b""):
    header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_tensors_come_back_with_names_shapes_and_values(tmp_path, rng):
    tensors = {
        "a.weight": rng.normal(size=(3, 4)).astype("float32"),
        "b": np.arange(5),
        "scalar": np.array(2.5, "float64"),
        "empty": np.zeros((0, 3), "float32"),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for path in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        read = read_safetensors(path)
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(read[name], tensor)
            assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape


def test_half_precision_becomes_float32_exactly(tmp_path):
    numbers = np.array([1.0, -0.5, 3.140625, 0.0, 65280.0], "float32")  # bfloat16 holds them
    upper = (numbers.view("uint32") >> 16).astype("<u2")
    header = {
        "bf": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]},
        "half": {"dtype": "F16", "shape": [5, 1], "data_offsets": [10, 20]},
    }
    data = upper.tobytes() + numbers.astype("<f2").tobytes()
    (tmp_path / "x").write_bytes(file_of(header, data))
    read = read_safetensors(tmp_path / "x")
    assert read["bf"].dtype == read["half"].dtype == "float32"
    np.testing.assert_array_equal(read["bf"], numbers)
    np.testing.assert_array_equal(read["half"][:, 0], numbers)


def test_shards_are_read_as_one(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "one.safetensors")
    save_file({"b": np.ones(1)}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_safetensors(tmp_path).keys() == {"a", "b"}


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": None}, {"weight_map": ["one"]}, {"weight_map": {"a": 3}}]
)
def test_an_index_of_another_shape_is_an_error_that_names_it(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match='Expected "weight_map".*model.safetensors.index.json'):
        read_safetensors(tmp_path)


def test_a_cut_file_names_the_tensors_that_are_not_whole(tmp_path):
    content = save({"first": np.zeros(4, "float32"), "last": np.ones(4, "float32")})
    (tmp_path / "x").write_bytes(content[:-1])
    with pytest.raises(ValueError, match="cut off; these tensors are not whole: last. Received"):
        read_safetensors(tmp_path / "x")
    (tmp_path / "x").write_bytes(content[:40])
    with pytest.raises(ValueError, match="cut off within its header"):
        read_safetensors(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"\n  <html>error</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (pickle.dumps({"weight": [1.0]}), "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        (b"just some text that is long enough", "unknown kind"),
        (b"\x01", "unknown kind"),
        (file_of({"a": 1}), "contradicts itself about a tensor. Received: name='a', entry=1"),
        ((5).to_bytes(8, "little") + b"{oops", "The header: not JSON"),
        (file_of({"a": {"dtype": "F8", "shape": [0], "data_offsets": [0, 0]}}), "Unknown dtype"),
        (
            file_of({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
            "contradicts itself about a tensor. Received: name='a'",
        ),
        (
            file_of({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, bytes(2)),
            "Unknown dtype of a tensor. Received: name='a'",
        ),
        (
            file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": 4}}, bytes(4)),
            "contradicts",
        ),
        (file_of({"a": {"dtype": "F32", "shape": [0], "data_offsets": [4, 0]}}), "contradicts"),
        (save({"a": np.ones(2)}) + b"more", "The header does not fit the data"),
        (file_of({}, b"data"), "The header does not fit the data"),
        (file_of([]), "unknown kind"),
    ],
)
def test_what_is_not_safetensors_is_refused_by_its_kind(tmp_path, content, kind):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=kind):
        read_safetensors(tmp_path / "model.safetensors")


def test_a_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(ValueError, match="zip archive"):
        read_safetensors(tmp_path / "x")


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(ValueError, match="pickle"):
            read_safetensors(path)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such weight file.*model.safetensors"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize(
    ("offsets", "shape"),
    [([-(2**33), 4], [1]), ([0, 2**40], [2**38]), ([0, 4], [-1]), ([0, 8], [2**63, 2**63])],
)
def test_absurd_numbers_in_a_small_header_take_no_memory(tmp_path, offsets, shape):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    (tmp_path / "x").write_bytes(file_of({"a": entry}, bytes(4)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="'?a'?.*path="):
        read_safetensors(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [[2**62, 0], [0] * 100])
def test_a_shape_that_no_array_has_is_an_error_that_names_the_tensor(tmp_path, shape):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    (tmp_path / "x").write_bytes(file_of({"a": entry}))
    with pytest.raises(ValueError, match="'a'"):
        read_safetensors(tmp_path / "x")


@pytest.mark.parametrize("depth", [110, 5000])
def test_a_deep_header_or_index_is_no_recursion_error(tmp_path, depth):
    deep = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    (tmp_path / "x").write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(ValueError, match="JSON of more than 100 levels.*path="):
        read_safetensors(tmp_path / "x")
    (tmp_path / "model.safetensors.index.json").write_bytes(deep)
    with pytest.raises(ValueError, match="index.json: JSON of more than 100 levels"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../other.safetensors", "/tmp/x", "a/../../x", "..\\x", "C:\\x", "a\0b"]
)
def test_an_index_names_only_files_of_its_folder(tmp_path, shard):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": np.zeros(1)}, tmp_path / "other.safetensors")
    index = {"weight_map": {"a": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="index.json names what is not in its folder"):
        read_safetensors(folder)


def test_a_tensor_of_two_shards_or_of_none_is_named(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "one.safetensors")
    save_file({"a": np.ones(1), "b": np.ones(1)}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="two of the files: a in one.safetensors and two"):
        read_safetensors(tmp_path)
    path.write_text(json.dumps({"weight_map": {"c": "two.safetensors"}}))
    with pytest.raises(ValueError, match="not hold what their index says.*: c. Received"):
        read_safetensors(tmp_path)
