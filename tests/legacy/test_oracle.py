"""The oracle itself: complete, alive, and as the tests that use it take it to be."""

import json

import h5py
import numpy as np
import pytest
from legacy import cases
from legacy.oracle import generate

pytestmark = pytest.mark.slow

SAVED = {"case.json", "data.npz", "model.h5", "weights.h5"}
TF_FORMAT = {f"tf_format.weights.{end}" for end in ("index", "data-00000-of-00001")}
CHECKPOINT = {f"bert_model.ckpt.{end}" for end in ("index", "data-00000-of-00001")}
REWRITTEN = cases.OLD_ORDER | cases.KERAS_2_3
WITH_OUTPUTS = (*cases.ENCODERS, *cases.HEAD_MODELS)


def expected_files():
    """Case -> the files that its folder must hold."""
    files = {name: {"case.json", "model.h5"} for name in cases.UNSUPPORTED}
    files |= {name: SAVED for name in REWRITTEN}
    files |= {name: SAVED | TF_FORMAT for name in (*cases.HEAD_MODELS, *cases.USER_MODELS)}
    for name, case in cases.ENCODERS.items():
        files[name] = (
            SAVED | TF_FORMAT | {"config.json"} | (CHECKPOINT if case.checkpoint else set())
        )
    return files


def text_of(name):
    return name.decode() if isinstance(name, bytes) else name


def weights_of(path):
    """The weights of a file: layer -> list of arrays, in their order."""
    with h5py.File(path) as file:
        return {
            text_of(name): [file[name][weight][...] for weight in file[name].attrs["weight_names"]]
            for name in file.attrs["layer_names"]
        }


def test_every_case_is_complete(legacy):
    assert {path.name for path in legacy.iterdir()} == set(expected_files())
    for name, files in expected_files().items():
        assert files - {path.name for path in (legacy / name).iterdir()} == set(), name
        assert json.loads((legacy / name / "case.json").read_text("utf-8"))["name"] == name


def test_every_row_shows_its_kind_of_padding(legacy):
    for name in WITH_OUTPUTS:
        data = np.load(legacy / name / "data.npz")
        empty = data["token_ids"] == 0
        assert not empty[0].any(), name
        assert empty[1, -1] and not empty[1, 0], name
        assert empty[2].sum() == 1 and not empty[2, [0, -1]].any(), name
        assert empty[3, [0, -1]].all() and data["mask"][3, 0], name
        assert np.array_equal(data["mask"][:, 1:], ~empty[:, 1:]), name


@pytest.mark.parametrize("name", WITH_OUTPUTS)
def test_outputs_vary_and_are_finite_where_nothing_is_masked(legacy, name):
    data = np.load(legacy / name / "data.npz")
    mask = data["mask"]
    for key in [key for key in data if key.startswith(("output_", "hidden"))]:
        value = data[key]
        if value.ndim == 4:
            pairs = mask[:, None, :, None] & mask[:, None, None, :]
            upper = np.triu(np.ones(value.shape[2:], bool)) | np.isfinite(value[0, 0, -1, 0])
            seen = np.isfinite(value) == (pairs & upper)
            assert seen.all(), key
            value = value[np.isfinite(value)]
        elif value.ndim == 3:
            value = value[mask]
        assert np.isfinite(value).all(), key
        assert value.std() > 1e-3, key


def test_different_cases_have_different_outputs(legacy):
    digests = {}
    for name in WITH_OUTPUTS:
        value = np.load(legacy / name / "data.npz")["output_0"]
        digests.setdefault((value.shape, value.tobytes()), []).append(name)
    assert [names for names in digests.values() if len(names) > 1] == []


def test_no_weight_is_0_or_1_and_no_two_arrays_are_alike(legacy):
    shared = {"albert-unshared"}
    fixed = {"Embedding-Relative-Position"}
    for name in set(WITH_OUTPUTS) - shared:
        layers = weights_of(legacy / name / "weights.h5")
        arrays = [x for layer, values in layers.items() if layer not in fixed for x in values]
        assert arrays, name
        assert not any(np.isin(x, [0, 1]).any() for x in arrays), name
        assert len({x.tobytes() for x in arrays}) == len(arrays), name


@pytest.mark.parametrize("name", cases.OLD_ORDER)
def test_the_old_order_has_the_output_of_the_unit_second(legacy, name):
    old = weights_of(legacy / name / "weights.h5")
    new = weights_of(legacy / cases.OLD_ORDER[name] / "weights.h5")
    units = [layer for layer in new if layer.startswith(("unit", "Transformer")) and new[layer]]
    assert units
    for layer in units:
        dense = {4: 1, 8: 2}[len(new[layer])]  # a kernel, or a kernel and a bias
        expected = new[layer][:dense] + new[layer][-dense:] + new[layer][dense:-dense]
        for x, y in zip(old[layer], expected, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", cases.KERAS_2_3)
def test_the_files_of_keras_2_3_hold_the_same_weights(legacy, name):
    old = weights_of(legacy / name / "weights.h5")
    new = weights_of(legacy / cases.KERAS_2_3[name] / "weights.h5")
    assert list(old) == list(new)
    for layer, values in new.items():
        for x, y in zip(old[layer], values, strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_names_of_keras_2_3_are_bytes_of_fixed_length(legacy):
    with h5py.File(legacy / "gau-softmax-keras-2.3" / "weights.h5") as file:
        assert file.attrs.get_id("layer_names").dtype.kind == "S"
        names = file["unit-1"].attrs["weight_names"]
    assert [name.decode().split("/")[1] for name in names[::2]] == [
        "dense_3",
        "scale_offset_3",
        "scale_offset_4",
        "dense_4",
    ]


def test_a_frozen_sublayer_changes_the_order_of_the_weights(legacy):
    with h5py.File(legacy / "bert-frozen-sublayer" / "weights.h5") as file:
        names = file["Transformer-0-MultiHeadSelfAttention"].attrs["weight_names"]
        assert [name.split("/")[1] for name in names[::2]] == [
            "dense_1",
            "dense_2",
            "dense_3",
            "dense",
        ]


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path):
    command = "pip install --no-deps --target build/legacy -r tests/legacy/requirements.txt"
    with pytest.raises(RuntimeError, match=f"bert4keras==0.11.5.*{command}"):
        generate(tmp_path / "output", 0, packages=tmp_path)
    assert not (tmp_path / "output").exists()
