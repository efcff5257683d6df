import contextlib

import keras
import numpy as np
import pytest
from gradients import to_numpy

from keras_ext import layers, metrics
from keras_ext.training import AutoencoderVQ

QUANTIZERS = {
    "fsq": lambda: layers.FSQ([5, 3]),
    "ema": lambda: layers.VectorQuantizer(16, 8, threshold_dead=0.1, seed=0),
    "loss": lambda: layers.VectorQuantizer(16, 8, "loss", gradient="rotation", seed=0),
    "residual": lambda: layers.ResidualQuantizer([layers.FSQ([5, 3]), layers.FSQ([3, 3])]),
}


@pytest.fixture
def x(rng):
    return (rng.normal(size=(64, 3)) @ rng.normal(size=(3, 12))).astype("float32")


def autoencoder(quantizer, policy="float32", seed=0):
    """Vectors of 12 numbers as 3 tokens."""
    keras.utils.set_random_seed(seed)
    encoder = [
        keras.Input((12,)),
        keras.layers.Dense(24, "tanh", dtype=policy),
        keras.layers.Reshape((3, 8), dtype=policy),
    ]
    decoder = [
        keras.Input((3, 8)),
        keras.layers.Flatten(dtype=policy),
        keras.layers.Dense(24, "tanh", dtype=policy),
        keras.layers.Dense(12, dtype=policy),
    ]
    encoder, decoder = keras.Sequential(encoder), keras.Sequential(decoder)
    return AutoencoderVQ(encoder, quantizer, decoder, dtype=policy)


def eager(model, **arguments):
    """Compiled without a graph, which takes longer to trace than a few steps."""
    run_eagerly = keras.backend.backend() == "tensorflow"
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=run_eagerly, **arguments)
    return model


def counted(indices, count):
    """Usage and perplexity."""
    shares = np.bincount(np.ravel(indices), minlength=count) / np.size(indices)
    used = shares[shares > 0]
    return len(used) / count, np.exp(-np.sum(used * np.log(used)))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_training_learns_and_the_logs_say_how_codes_are_used(name, x):
    model = eager(autoencoder(QUANTIZERS[name]()))
    history = model.fit(x, epochs=12, batch_size=16, verbose=0).history
    assert sorted(history) == ["loss", "perplexity", "usage"]
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    codes = to_numpy(model.encode(x))
    assert codes.dtype == np.int32 and codes.shape == (64, 3, 2)[: 3 if name == "residual" else 2]
    np.testing.assert_allclose(model.decode(codes), model.predict(x, verbose=0), atol=1e-6)
    logs = model.evaluate(x, batch_size=16, verbose=0, return_dict=True)
    if name == "residual":
        pairs = [counted(codes[..., i], size) for i, size in enumerate((15, 9))]
        found = np.mean(pairs, axis=0)
    else:
        found = counted(codes, model.quantizer.num_codes)
    np.testing.assert_allclose([logs["usage"], logs["perplexity"]], found, rtol=1e-5)
    for metric in (metrics.CodeUsage, metrics.CodePerplexity):
        metric = metric(model.quantizer.num_codes)
        metric.update_state(None, codes)
        logged = logs[metric.name.removeprefix("code_")]
        np.testing.assert_allclose(float(metric.result()), logged, rtol=1e-6)


@pytest.mark.parametrize("name", ["ema", "loss"])
def test_the_loss_has_that_of_the_quantiser(name, x):
    model = eager(autoencoder(QUANTIZERS[name]()))
    model.fit(x, verbose=0)
    logs = model.evaluate(x, batch_size=64, verbose=0, return_dict=True)
    inner = to_numpy(model.encoder(x))
    error = np.mean((inner - to_numpy(model.quantizer(inner))) ** 2)
    expected = np.mean((x - model.predict(x, verbose=0)) ** 2)
    expected += (0.25 if name == "ema" else 1.25) * error
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-4)


def test_dense_layers_stand_between_different_widths_only():
    model = autoencoder(QUANTIZERS["fsq"]())
    assert model.project_in.kernel.shape == (8, 2) and model.project_out.kernel.shape == (2, 8)
    model = autoencoder(QUANTIZERS["ema"]())
    assert model.project_in is None and model.project_out is None


def test_parts_of_the_rows_are_encoded_and_decoded_alike(x):
    model = autoencoder(QUANTIZERS["fsq"]())
    codes = model.encode(x)
    np.testing.assert_array_equal(model.encode(x, batch_size=10), codes)
    np.testing.assert_allclose(model.decode(codes, batch_size=10), model.decode(codes), atol=1e-6)


def test_another_target_and_weights_of_samples(x):
    model = eager(autoencoder(QUANTIZERS["fsq"]()))
    expected = np.mean((2 * x - model.predict(x, verbose=0)) ** 2)
    logs = model.evaluate(x, 2 * x, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    weights = np.repeat([2.0, 0.0], 32)
    expected = np.mean((x[:32] - model.predict(x[:32], verbose=0)) ** 2)
    logs = model.evaluate(x, sample_weight=weights, verbose=0, batch_size=64, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    before = model.get_weights()
    model.fit(x, sample_weight=np.zeros(64), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_padding_is_not_counted(rng):
    tokens = rng.integers(1, 9, (16, 6))
    tokens[:, 3:] = 0
    ids, vectors = keras.Input((6,), dtype="int32"), keras.Input((6, 4))
    encoder = keras.Model(ids, keras.layers.Embedding(9, 4, mask_zero=True)(ids))
    decoder = keras.Model(vectors, keras.layers.Dense(9)(vectors))
    decoder.supports_masking = True  # else Keras warns that its output has none
    model = AutoencoderVQ(encoder, layers.VectorQuantizer(32, 4, kmeans_steps=0, seed=0), decoder)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    eager(model, loss=crossentropy).fit(tokens, verbose=0)
    logs = model.evaluate(tokens, verbose=0, return_dict=True)
    found = counted(to_numpy(model.encode(tokens))[:, :3], 32)
    np.testing.assert_allclose([logs["usage"], logs["perplexity"]], found, rtol=1e-5)
    np.testing.assert_allclose(np.sum(model.quantizer.counts), 0.99 * 32 + 0.01 * 48, rtol=1e-4)
    # What is hidden can be encoded and decoded; a call marks it.
    codes, marked = to_numpy(model.encode(tokens)), to_numpy(model({"x": tokens})["indices"])
    assert codes.min() >= 0 and model.decode(codes).shape == (16, 6, 9)
    np.testing.assert_array_equal(marked, np.where(tokens > 0, codes, -1))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_compiled_training_in_any_policy(name, policy, x):
    model = autoencoder(QUANTIZERS[name](), policy)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=True)
    history = model.fit(x, epochs=8, batch_size=32, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    state = [to_numpy(weight) for weight in model.quantizer.weights]
    assert all(np.isfinite(part).all() and part.dtype == np.float32 for part in state)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_saved_model_goes_on_where_it_was(name, x, tmp_path):
    model = eager(autoencoder(QUANTIZERS[name]()))
    model.fit(x, epochs=2, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.encode(x), model.encode(x))
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    logs = [each.evaluate(x, verbose=0, return_dict=True) for each in (model, again)]
    assert logs[0] == logs[1]
    assert int(again.optimizer.iterations) == 8
    for each in (model, again):
        each.fit(x, batch_size=64, verbose=0, shuffle=False)
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-6)


def test_two_replicas_are_one_device(two_replicas):
    found = two_replicas("training.test_autoencoder_vq.on_two_replicas")
    assert found["weights"] < 1e-4 and found["logs"] < 1e-4 and found["changed"]


def on_two_replicas(strategy):
    """How far training on two replicas is from that on one device."""
    data = np.random.default_rng(0).normal(size=(32, 12)).astype("float32")

    def trained(scope):
        with scope:
            uniform = keras.initializers.RandomUniform(seed=1)
            settings = {"kmeans_steps": None, "decay": 0.9, "codebook_initializer": uniform}
            model = autoencoder(layers.VectorQuantizer(16, 8, **settings))
            model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        logs = model.fit(data, batch_size=16, epochs=3, shuffle=False, verbose=0).history
        return logs, model.evaluate(data, batch_size=16, verbose=0), model.get_weights()

    (logs, after, weights) = trained(strategy.scope())
    (expected, expected_after, expected_weights) = trained(contextlib.nullcontext())
    pairs = zip(weights, expected_weights, strict=True)
    pieces = [np.subtract(logs[name], expected[name]) for name in expected]
    return {
        "weights": max(float(np.abs(a - b).max()) for a, b in pairs),
        "logs": float(np.abs(np.concatenate([*pieces, np.subtract(after, expected_after)])).max()),
        "changed": float(np.ptp(expected["loss"])) > 0.0,
    }


@pytest.mark.parametrize("wrong", ["encoder", "decoder", "quantizer"])
def test_bad_parts(wrong):
    network = keras.Sequential([keras.Input((3, 8)), keras.layers.Dense(8)])
    parts = {"encoder": network, "quantizer": layers.FSQ([5]), "decoder": network}
    for part in (keras.layers.Dense(8), keras.Sequential([keras.layers.Dense(8)]), None):
        with pytest.raises(ValueError, match=f"Expected .*Received: {wrong}="):
            AutoencoderVQ(**{**parts, wrong: part})


def test_bad_codes():
    model = autoencoder(layers.FSQ([5, 3]))
    with pytest.raises(ValueError, match="from 0 to 14. Received: indices from 0 to 15"):
        model.decode([[0, 15, 0]])
