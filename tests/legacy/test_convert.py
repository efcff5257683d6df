"""Whole models that bert4keras saved give the same outputs as `.keras` files of ours."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from legacy import cases
from legacy.parity import assert_parity, inputs_of

import keras_ext
from keras_ext import layers
from keras_ext.bert4keras import convert, load_bert4keras_weights
from keras_ext.bert4keras.legacy_hdf5 import read_legacy_hdf5

pytestmark = pytest.mark.slow

REWRITTEN = {**cases.OLD_ORDER, **cases.KERAS_2_3}
LOAD = """
import sys
import numpy as np, keras, keras_ext
data = np.load(sys.argv[2])
names = list(data)
inputs = [data[name] for name in names[: names.index("mask")]]
model = keras.models.load_model(sys.argv[1])
np.savez(sys.argv[3], np.array(model(inputs if len(inputs) > 1 else inputs[0])))
"""


def converted(folder, target):
    report = convert(folder / "model.h5", target)
    return keras.models.load_model(target), report


@pytest.mark.parametrize("name", [*cases.ENCODERS, *cases.HEAD_MODELS, *REWRITTEN])
def test_a_converted_model_gives_the_outputs_of_bert4keras(legacy, tmp_path, name):
    folder = legacy / name
    model, report = converted(folder, tmp_path / "x.keras")
    data = np.load(folder / "data.npz")
    inputs = list(inputs_of(data).values())
    assert_parity(model(inputs if len(inputs) > 1 else inputs[0]), data)
    dtypes = ["int32"] * len(inputs)
    if name == "roformer-custom-position":
        dtypes[-1] = "float32"  # nothing looks them up
    assert [tensor.dtype for tensor in model.inputs] == dtypes
    assert not model.compiled
    stored = set(read_legacy_hdf5(folder / "weights.h5").layers)
    if "nested" not in name:  # where the layers of the inner model are laid open
        assert stored <= set(report.layers)
        assert stored <= {layer.name for layer in model.layers}


@pytest.mark.parametrize("name", cases.USER_MODELS)
def test_what_users_build_around_bert4keras_gives_the_same_outputs(legacy, tmp_path, name):
    folder = legacy / name
    model, report = converted(folder, tmp_path / "x.keras")
    data = np.load(folder / "data.npz")
    inputs = list(inputs_of(data).values())
    assert_parity(model(inputs), data)
    for file in ("weights.h5", "tf_format.weights"):
        for weight in model.weights:
            weight.assign(np.full(weight.shape, 0.1))
        load_bert4keras_weights(model, folder / file)
        assert_parity(model(inputs), data)
    dropped = {"conv1d: kernel_regularizer"} if name == "keras_layers" else set()
    assert set(report.dropped) == dropped


@pytest.mark.parametrize(("name", "layer"), cases.UNSUPPORTED.items())
def test_a_layer_without_a_counterpart_is_named_and_nothing_is_written(
    legacy, tmp_path, name, layer
):
    with pytest.raises(ValueError, match=rf"without a counterpart[\s\S]*  {layer} \(\w+\): "):
        convert(legacy / name / "model.h5", tmp_path / "x.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_process_loads_a_converted_model_and_gives_the_same_bits(legacy, tmp_path):
    folder, target = legacy / "roformer-efficient-global-pointer", tmp_path / "x.keras"
    model, _ = converted(folder, target)
    arguments = [target, folder / "data.npz", tmp_path / "outputs.npz"]
    subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, arguments)],
        check=True,
        cwd=Path(keras_ext.__file__).parents[1],
    )
    expected = model(list(inputs_of(np.load(folder / "data.npz")).values()))
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npz")["arr_0"], np.array(expected))


def test_layers_become_ours_with_their_settings(legacy, tmp_path):
    model, _ = converted(legacy / "roformer-efficient-global-pointer", tmp_path / "x.keras")
    (head,) = (layer for layer in model.layers if "pointer" in layer.name)
    assert isinstance(head, layers.EfficientGlobalPointer) and not head.factored
    assert (head.heads, head.head_size, head.rope, head.tril_mask) == (3, 6, True, True)
    attention = model.get_layer("Transformer-0-MultiHeadSelfAttention")
    assert isinstance(attention, layers.MultiHeadSelfAttention) and attention.rope
    assert attention.attention_dropout == 0.1
    assert model.get_layer("Embedding-Dropout").rate == 0.1


def test_frozen_layers_stay_frozen(legacy, tmp_path):
    model, _ = converted(legacy / "bert-frozen", tmp_path / "x.keras")
    frozen = {layer.name for layer in model.layers if layer.weights and not layer.trainable}
    assert frozen == set(cases.ENCODERS["bert-frozen"].frozen)


def test_loss_and_optimizer_are_reported_as_dropped(legacy, tmp_path):
    _, report = converted(legacy / "bert-compiled", tmp_path / "x.keras")
    assert set(report.dropped) == {"loss", "optimizer_config", "optimizer_weights"}


def test_a_loss_passes_over_padding_as_in_keras_2(legacy, tmp_path):
    folder = legacy / "bert-compiled"
    model, _ = converted(folder, tmp_path / "x.keras")
    data = np.load(folder / "data.npz")
    inputs, mask = list(inputs_of(data).values()), data["mask"]
    tags = np.zeros(mask.shape, "int32")
    model.compile(loss="sparse_categorical_crossentropy", jit_compile=False)
    loss = model.evaluate(inputs, tags, batch_size=len(tags), verbose=0)
    expected = -np.log(data["output_0"][..., 0])[mask].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_layer_that_is_added_gets_the_mask_from_keras(legacy, tmp_path):
    model, _ = converted(legacy / "bert", tmp_path / "x.keras")
    pooled = keras.layers.GlobalAveragePooling1D()(model.output)
    data = np.load(legacy / "bert" / "data.npz")
    output = keras.Model(model.inputs, pooled)(list(inputs_of(data).values()))
    weights = data["mask"] / data["mask"].sum(axis=1, keepdims=True)
    expected = (data["output_0"] * weights[..., None]).sum(axis=1)
    np.testing.assert_allclose(np.array(output), expected, atol=1e-5)


def test_files_of_the_newer_formats_are_refused_with_what_to_do(legacy, tmp_path):
    folder = legacy / "bert-newer-formats"
    for file, advice in (
        ("newer.keras", r"model.save\('name.h5'\)"),
        ("newer.weights.h5", r"model.save_weights\('name.h5'\)"),
        ("weights.h5", "build the model and use load_bert4keras_weights"),
    ):
        with pytest.raises(ValueError, match=advice):
            convert(folder / file, tmp_path / "x.keras")
    with pytest.raises(ValueError, match="perhaps a SavedModel"):
        convert(folder, tmp_path / "x.keras")
    assert list(tmp_path.iterdir()) == []
