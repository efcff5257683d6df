import keras
import numpy as np
import pytest
from gradients import value_and_gradient

from keras_ext.layers.pair_score import PairScore


def pairs(batch=5, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 2, width)).astype("float32")


def cosines(x):
    x = x.astype("float64")
    return np.sum(x[:, 0] * x[:, 1], -1) / np.prod(np.linalg.norm(x, axis=-1), axis=-1)


def test_scores_are_cosines_inner_products_and_angles():
    x = pairs()
    np.testing.assert_allclose(PairScore()(x)[:, 0], cosines(x), rtol=1e-5)
    products = np.sum(x[:, 0] * x[:, 1], axis=-1)
    np.testing.assert_allclose(PairScore("dot")(x)[:, 0], products, rtol=1e-5, atol=1e-6)
    u, v = (y[:, :2] + 1j * y[:, 2:] for y in (x[:, 0], x[:, 1]))
    quotient = (u * v.conj()).sum(-1) / np.prod(np.linalg.norm(x, axis=-1), axis=-1)
    angles = abs(quotient.real + quotient.imag)
    np.testing.assert_allclose(PairScore("angle")(x)[:, 0], angles, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_losses_and_metrics_of_keras_compare_row_with_row(shape, jit_compile):
    """A mean over (5, 5) differences, what broadcasting gives, is another number."""
    x, labels = pairs(), np.linspace(0, 1, 5).astype("float32")
    weights = np.array([1, 0, 2, 0, 3], "float32")
    model = keras.Sequential([keras.Input((2, 4)), PairScore()])
    model.compile(loss="mse", metrics=["mae"], weighted_metrics=["mse"], jit_compile=jit_compile)
    result = model.evaluate(
        x, labels.reshape(shape), sample_weight=weights, batch_size=5, verbose=0, return_dict=True
    )
    errors = cosines(x) - labels
    assert result["mae"] == pytest.approx(abs(errors).mean(), rel=1e-5)
    assert result["mse"] == pytest.approx(np.average(errors**2, weights=weights), rel=1e-5)
    assert result["loss"] == pytest.approx((weights * errors**2).sum() / 5, rel=1e-5)


def test_training_on_the_cosine():
    x, labels = pairs(batch=16, width=8), np.linspace(-0.5, 0.9, 16).astype("float32")
    dense = keras.layers.Dense(8, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((2, 8)), dense, PairScore()])
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=True)
    losses = [model.train_on_batch(x, labels) for _ in range(40)]
    assert losses[0] == pytest.approx(np.mean((cosines(x) - labels) ** 2), rel=1e-4)
    assert losses[-1] < 0.05 * losses[0]


def test_vectors_of_zeros_give_zero_and_a_small_gradient():
    x = pairs()
    x[1, 0] = x[2] = 0.0
    value, (gradient,) = value_and_gradient(PairScore(), x)
    assert value[1:3, 0].tolist() == [0.0, 0.0]
    assert abs(gradient).max() <= 2.0


def test_output_is_float32_and_the_inputs_are_not_rounded():
    layer = PairScore(dtype="mixed_bfloat16")
    np.testing.assert_array_equal(layer(pairs()), PairScore()(pairs()))
    assert keras.backend.standardize_dtype(layer(pairs()).dtype) == "float32"
    assert layer(keras.Input((2, 4))).shape == (None, 1)


def test_bad_arguments_raise():
    with pytest.raises(ValueError, match="Received: score='manhattan'"):
        PairScore("manhattan")
    with pytest.raises(ValueError, match="name of a score. Received: score="):
        PairScore(len)
    for shape in ((4, 3, 8), (4, 8)):
        with pytest.raises(ValueError, match=r"\(batch, 2, d\). Received: shape="):
            PairScore()(np.zeros(shape, "float32"))
