import keras
import numpy as np
import pytest

from keras_ext.metrics import CodePerplexity, CodeUsage


def reference(indices, weights, codes):
    """Usage and perplexity of one stage, index by index in float64."""
    counts = dict.fromkeys(range(codes), 0.0)
    for index, weight in zip(np.ravel(indices), np.ravel(weights), strict=True):
        if index in counts:
            counts[index] += weight
    used = np.array([count for count in counts.values() if count > 0])
    shares = used / used.sum()
    return len(used) / codes, np.exp(-np.sum(shares * np.log(shares)))


def found(batches, codes):
    """Both metrics after batches of indices and weights."""
    metrics = CodeUsage(codes), CodePerplexity(codes)
    for metric in metrics:
        for indices, weights in batches:
            metric.update_state(None, indices, weights)
    return [float(metric.result()) for metric in metrics]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_all_batches_count_as_one(rng, dtype):
    indices = rng.integers(0, 9, (3, 4, 5)).astype(dtype)
    expected = reference(indices, np.ones_like(indices), 12)
    np.testing.assert_allclose(found([(part, None) for part in indices], 12), expected, rtol=1e-5)


def test_weights_and_what_is_no_code(rng):
    indices = rng.integers(-1, 7, (4, 6, 3))  # of 6 codes: -1 and 6 are none
    for shape in [(4,), (4, 6), (4, 6, 3)]:
        weights = rng.uniform(size=shape) * (rng.uniform(size=shape) < 0.7) / 100
        weights[0] = 0.005
        each = np.broadcast_to(weights.reshape(*shape, *[1] * (3 - len(shape))), indices.shape)
        expected = reference(indices, each, 6)
        np.testing.assert_allclose(found([(indices, weights)], 6), expected, rtol=1e-5)


def test_stages_are_averaged(rng):
    indices = rng.integers(-1, [5, 30], (50, 2))
    pairs = [reference(indices[:, i], np.ones(50), size) for i, size in enumerate((8, 30))]
    expected = np.mean(pairs, axis=0)
    np.testing.assert_allclose(found([(indices, None)], [8, 30]), expected, rtol=1e-5)


def test_even_codes_and_none():
    np.testing.assert_allclose(found([(np.arange(40) % 10, None)], 40), [0.25, 10.0], rtol=1e-5)
    assert found([], 4) == [0.0, 1.0] == found([(np.full((2, 3), -1), None)], 4)


@pytest.mark.parametrize("cls", [CodeUsage, CodePerplexity])
def test_a_reset_forgets(cls):
    metric = cls(4)
    metric.update_state(None, np.arange(4))
    assert float(metric.result()) > 0.9
    metric.reset_state()
    metric.update_state(None, np.zeros(3, "int32"))
    np.testing.assert_allclose(float(metric.result()), {CodeUsage: 0.25}.get(cls, 1.0))


def test_in_compile():
    indices = np.array([[0, 1], [1, 3]])
    inputs = keras.Input((2,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(loss="mse", metrics=[CodeUsage(8), CodePerplexity(8)])
    logs = model.evaluate(indices, indices, batch_size=1, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        [logs["code_usage"], logs["code_perplexity"]],
        reference(indices, np.ones((2, 2)), 8),
        rtol=1e-5,
    )


@pytest.mark.parametrize("cls", [CodeUsage, CodePerplexity])
@pytest.mark.parametrize(
    ("codes", "message"),
    [(0, "at least 1"), (4.0, "to be an int"), ([], "at least one stage"), ([4, 0], "at least 1")],
)
def test_bad_numbers_of_codes(cls, codes, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: codes="):
        cls(codes)


@pytest.mark.parametrize("cls", [CodeUsage, CodePerplexity])
def test_another_number_of_stages(cls):
    with pytest.raises(ValueError, match=r"for each stage, \(..., 2\).*shape=\(1, 3\)"):
        cls([4, 4]).update_state(None, [[0, 1, 2]])
