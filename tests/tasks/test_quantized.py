"""Quantised and low-rank layers in the bundles of both tasks."""

import keras
import numpy as np
import pytest
from tasks.recognizers import make_recognizer, make_records
from tasks.sentences import TEXTS, make_encoder

from keras_ext.tasks import EntityRecognizer, SentenceEncoder
from keras_ext.tasks.quantized import load_model, quantized_layers

RECORDS = make_records()[:8]


def dense_layers(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dense)]


@pytest.fixture(params=["entities", "sentences"])
def case(request):
    """A task, the function that reads its class's bundles, and what it computes."""
    if request.param == "entities":
        text = RECORDS[0]["text"]
        return make_recognizer(), EntityRecognizer.load, lambda task: task.span_scores(text)[0]
    return make_encoder(), SentenceEncoder.load, lambda task: task.encode(TEXTS)


def test_a_quantised_bundle_computes_the_same(case, tmp_path):
    task, load, compute = case
    before = compute(task)
    task.save(tmp_path / "floats")
    task.model.quantize("int8", filters=lambda layer: isinstance(layer, keras.layers.Dense))
    after = compute(task)
    assert 0 < np.abs(after - before).max() < 0.2 * np.abs(before[before > -1e29]).max()
    task.save(tmp_path / "bundle")
    loaded = load(tmp_path / "bundle")
    np.testing.assert_array_equal(compute(loaded), after)
    assert quantized_layers(loaded.model) == quantized_layers(task.model)
    assert all(layer.quantization_mode == "int8" for layer in dense_layers(loaded.model))
    np.testing.assert_array_equal(compute(load(tmp_path / "floats")), before)


@pytest.mark.slow
def test_low_rank_products_are_in_the_kernels_of_the_bundle(case, tmp_path):
    task, load, compute = case
    before = compute(task)
    for layer in dense_layers(task.model)[:3]:
        layer.enable_lora(rank=2)
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.1))
    task.model.make_predict_function(force=True)  # what was traced before does not know them
    after = compute(task)
    assert np.abs(after - before).max() > 1e-3
    task.save(tmp_path / "bundle")
    loaded = load(tmp_path / "bundle")
    np.testing.assert_allclose(compute(loaded), after, rtol=1e-4, atol=1e-5)
    assert not any(layer.lora_enabled for layer in dense_layers(loaded.model))


def test_a_layer_that_is_missing_is_named(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="one")])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"Received: \['two'\]"):
        load_model(tmp_path / "model.keras", {"two": "int8"})
