import json
import os
import pickle
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_ext.bert4keras.legacy_hdf5 import read_legacy_hdf5, write_legacy_hdf5


@pytest.fixture
def layers(rng):
    shapes = {
        "Embedding-Token": {"embeddings": (30, 8)},
        "Block": {"q_dense/kernel": (8, 4), "q_dense/bias": (4,), "o_dense/kernel": (4, 8)},
        "Norm": {"beta": (8,), "gamma": (8,)},
        "scale": {"alpha": ()},
    }
    return {
        layer: {name: rng.normal(size=shape).astype("float32") for name, shape in part.items()}
        for layer, part in shapes.items()
    }


@pytest.fixture
def path(tmp_path, layers):
    write_legacy_hdf5(tmp_path / "model.h5", layers)
    return tmp_path / "model.h5"


def assert_same(read, layers):
    assert list(read) == list(layers)
    for layer, weights in layers.items():
        assert list(read[layer]) == list(weights)
        for name, value in weights.items():
            np.testing.assert_array_equal(read[layer][name], value)


def test_what_is_written_is_read_bit_for_bit_and_in_order(path, layers):
    file = read_legacy_hdf5(path)
    assert_same(file.layers, layers)
    assert file.config is None and file.training == {}


def test_the_layout_is_that_of_keras_2(path):
    with h5py.File(path) as file:
        assert list(file.attrs["layer_names"]) == [b"Embedding-Token", b"Block", b"Norm", b"scale"]
        assert file.attrs["backend"] == "tensorflow" and file.attrs["keras_version"][:2] == "2."
        names = list(file["Block"].attrs["weight_names"])
        assert names[0] == b"Block/q_dense/kernel:0"
        assert file["Block"][names[0]].dtype == "float32"


def test_the_name_of_the_file_does_not_matter(path, layers):
    assert_same(read_legacy_hdf5(path.rename(path.with_name("best.weights"))).layers, layers)


def test_other_precisions_are_written_as_float32(tmp_path):
    write_legacy_hdf5(tmp_path / "x.h5", {"a": {"kernel": np.ones(3, "float16")}})
    assert read_legacy_hdf5(tmp_path / "x.h5").layers["a"]["kernel"].dtype == "float32"


def test_names_may_be_bytes_or_text(path, layers):
    with h5py.File(path, "r+") as file:
        for group, name in ((file, "layer_names"), (file["Block"], "weight_names")):
            text = [value.decode() for value in group.attrs[name]]
            del group.attrs[name]
            group.attrs.create(name, text, dtype=h5py.string_dtype())
    assert_same(read_legacy_hdf5(path).layers, layers)


@pytest.mark.slow
def test_a_list_of_names_longer_than_a_header_is_split_and_joined(tmp_path):
    many = {f"layer-{i:040}": {"bias": np.array([i], "float32")} for i in range(3000)}
    write_legacy_hdf5(tmp_path / "x.h5", many)
    with h5py.File(tmp_path / "x.h5") as file:
        assert "layer_names" not in file.attrs and "layer_names2" in file.attrs
        assert file.attrs["layer_names0"].nbytes <= 64512
    assert_same(read_legacy_hdf5(tmp_path / "x.h5").layers, many)


def test_layers_without_weights_and_unlisted_groups_are_passed_over(path, layers):
    with h5py.File(path, "r+") as file:
        file.create_group("Dropout").attrs["weight_names"] = np.zeros(0)
        file.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0)
        file.attrs["layer_names"] = [b"Dropout", *file.attrs["layer_names"]]
    assert_same(read_legacy_hdf5(path).layers, layers)


def test_a_whole_model_keeps_its_weights_in_a_group(path, layers):
    with h5py.File(path, "r+") as file:
        group = file.create_group("model_weights")
        for layer in layers:
            file.move(layer, f"model_weights/{layer}")
        group.attrs["layer_names"] = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["model_config"] = json.dumps({"class_name": "Functional"})
        file.attrs["training_config"] = json.dumps({"loss": "mse"}).encode()
        file.create_group("optimizer_weights")
    file = read_legacy_hdf5(path)
    assert_same(file.layers, layers)
    assert file.config == {"class_name": "Functional"}
    assert file.training == {"loss": "mse", "optimizer_weights": True}
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = "{"
    with pytest.raises(ValueError, match="model_config: not JSON.*path="):
        read_legacy_hdf5(path)


def test_names_that_tensorflow_1_has_numbered_lose_their_layer_too(tmp_path):
    write_legacy_hdf5(tmp_path / "x.h5", {"head": {"kernel": np.ones(2)}})
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["head"].move("head", "model_1/head_2")
        file["head"].attrs["weight_names"] = [b"model_1/head_2/kernel:0"]
    assert list(read_legacy_hdf5(tmp_path / "x.h5").layers["head"]) == ["kernel"]


def test_weights_that_are_listed_but_lack_are_named(path):
    with h5py.File(path, "r+") as file:
        del file["Block/Block/q_dense/bias:0"]
        del file["Norm"]
    with pytest.raises(ValueError, match="not hold.*Block: Block/q_dense/bias:0, Norm"):
        read_legacy_hdf5(path)


def external_values(file, group, other):
    group.create_dataset("bias:0", (4,), "float32", external=[(other, 0, 16)])


def external_link(file, group, other):
    group["bias:0"] = h5py.ExternalLink(other, "/Block/Block/q_dense/bias:0")


def external_group(file, group, other):
    del file["Block"]
    file["Block"] = h5py.ExternalLink(other, "/Block")


def virtual_dataset(file, group, other):
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(other, "/Block/Block/q_dense/bias:0", (4,))
    group.create_virtual_dataset("bias:0", layout)


@pytest.mark.parametrize(
    "change", [external_values, external_link, external_group, virtual_dataset]
)
def test_values_are_never_taken_from_another_file(path, layers, tmp_path, change):
    write_legacy_hdf5(tmp_path / "other.h5", layers)
    with h5py.File(path, "r+") as file:
        group = file["Block/Block/q_dense"]
        del group["bias:0"]
        change(file, group, str(tmp_path / "other.h5"))
    with pytest.raises(ValueError, match="from other files.*: /Block.*path="):
        read_legacy_hdf5(path)


def test_a_file_that_claims_more_than_it_can_hold_is_refused_before_it_fills_the_memory(path):
    with h5py.File(path, "r+") as file:
        del file["Norm/Norm/beta:0"]
        shape, chunks = (10**9, 10**5), (1000, 1000)
        file["Norm/Norm"].create_dataset("beta:0", shape, "float32", chunks=chunks)
    with pytest.raises(ValueError, match=r"claims to hold 4\d{14} bytes"):
        read_legacy_hdf5(path)


def test_two_weights_of_one_name_never_take_each_others_place(tmp_path):
    write_legacy_hdf5(tmp_path / "x.h5", {"head": {"kernel": np.ones(2)}})
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["head"]["head_1/kernel:0"] = np.zeros(2)
        file["head"].attrs["weight_names"] = [b"head/kernel:0", b"head_1/kernel:0"]
    weights = read_legacy_hdf5(tmp_path / "x.h5").layers["head"]
    assert [value[0] for value in weights.values()] == [1, 0] and "kernel" in weights


@pytest.mark.parametrize("thing", ["group", "nothing"])
def test_what_is_listed_but_no_tensor_is_named(path, thing):
    with h5py.File(path, "r+") as file:
        del file["Norm/Norm/beta:0"]
        if thing == "group":
            file["Norm/Norm"].create_group("beta:0")
        else:
            file["Norm/Norm"]["beta:0"] = h5py.Empty("float32")
    with pytest.raises(ValueError, match="not hold.*Norm: Norm/beta:0"):
        read_legacy_hdf5(path)


@pytest.mark.parametrize("text", ["[1]", "3", "[" * 60000])
def test_an_architecture_that_is_no_json_object_is_refused(path, text):
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = text
    with pytest.raises(ValueError, match="attribute model_config.*JSON.*path="):
        read_legacy_hdf5(path)


def test_a_file_that_claims_an_absurd_length_is_cut_off(path):
    content = path.read_bytes()
    length = len(content).to_bytes(8, "little")
    assert content[:100].count(length) == 1
    path.write_bytes(content.replace(length, (2**62).to_bytes(8, "little"), 1))
    with pytest.raises(ValueError, match=f"of {2**62} bytes"):
        read_legacy_hdf5(path)


def test_a_file_that_is_cut_off_never_loads(path):
    content = path.read_bytes()
    for size in np.linspace(8, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="cut off.*path=") as caught:
            read_legacy_hdf5(path)
        # The header, of 96 bytes, tells the length.
        assert size < 96 or f"has {size} of {len(content)} bytes" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "damaged or cut off"),
        (b"\0\1\2\3" * 40, "unknown kind"),
    ],
)
def test_what_is_not_hdf5_is_refused_by_its_kind(tmp_path, content, kind):
    (tmp_path / "model.h5").write_bytes(content)
    with pytest.raises(ValueError, match=f"{kind}.*path="):
        read_legacy_hdf5(tmp_path / "model.h5")


def test_a_zip_a_folder_and_no_file_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.h5", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"model.save\('name.h5'\).*zip archive"):
        read_legacy_hdf5(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="a folder, perhaps a SavedModel"):
        read_legacy_hdf5(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        read_legacy_hdf5(tmp_path / "other.h5")


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    (tmp_path / "model.h5").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="pickle"):
        read_legacy_hdf5(tmp_path / "model.h5")
    assert not (tmp_path / "sprung").exists()


def test_the_newer_weights_format_is_refused_with_what_to_do(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(ValueError, match=r"not list its layers.*model.save_weights\('name.h5'\)"):
        read_legacy_hdf5(tmp_path / "x.weights.h5")


def test_folders_are_made(tmp_path):
    write_legacy_hdf5(tmp_path / "new" / "x.h5", {"a": {"bias": np.ones(3)}})
    assert list(read_legacy_hdf5(tmp_path / "new" / "x.h5").layers) == ["a"]


def test_a_file_is_replaced_only_by_a_whole_one(path, layers):
    with pytest.raises(ValueError):
        write_legacy_hdf5(path, {"a": {"kernel": np.ones(3), "bias": "no number"}})
    assert_same(read_legacy_hdf5(path).layers, layers)
    assert [file.name for file in path.parent.iterdir()] == ["model.h5"]


def test_a_link_is_refused_before_what_it_names_is_opened(path, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    for name in ("model_weights", "Block", "optimizer_weights"):
        with h5py.File(path, "r+") as file:
            if name in file:
                file.move(name, "old")
            file[name] = h5py.ExternalLink(str(tmp_path / "pipe"), "/")
        if name == "optimizer_weights":
            assert read_legacy_hdf5(path).training["optimizer_weights"]
        else:
            with pytest.raises(ValueError, match=f"from other files, or by links.*/{name}"):
                read_legacy_hdf5(path)
        with h5py.File(path, "r+") as file:
            del file[name]
            if "old" in file:
                file.move("old", name)


def test_a_soft_link_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file["Norm"]
        file["Norm"] = h5py.SoftLink("/Block")
    with pytest.raises(ValueError, match="by links.*: /Norm"):
        read_legacy_hdf5(path)


def blanks(file, group):
    shape, chunks = (2**15, 2**10), (2**12, 2**10)
    values = group.create_dataset("beta:0", shape, "float32", chunks=chunks, compression="gzip")
    for i in range(0, len(values), len(values) // 8):
        values[i : i + len(values) // 8] = np.zeros(chunks, "float32")


def text(file, group):
    group["beta:0"] = ["x" * 2**20] * 10


def mirrors(file, group):
    """One array under many names."""
    group["beta:0"] = np.zeros(2**20, "float32")
    names = [f"Norm/n{i}" for i in range(200)]
    for name in names:
        file["Norm"][name] = group["beta:0"]
    file["Norm"].attrs["weight_names"] = [name.encode() for name in names]


@pytest.mark.parametrize(
    ("bomb", "match"),
    [
        (blanks, "claims to hold 1342.* bytes of weights"),
        (mirrors, "claims to hold 8.* bytes of weights"),
        (text, "Expected numbers as weights. Received: /Norm/Norm/beta:0 of object"),
    ],
)
def test_a_small_file_takes_little_memory(path, bomb, match):
    with h5py.File(path, "r+") as file:
        del file["Norm/Norm/beta:0"]
        bomb(file, file["Norm/Norm"])
    tracemalloc.start()
    with pytest.raises(ValueError, match=match):
        read_legacy_hdf5(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
