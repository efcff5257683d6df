import keras
import numpy as np
import pytest

from keras_ext.sentences.whitening import whitening


def correlated(n=300, d=6, seed=0):
    """Vectors far from 0, whose directions have variances of many orders."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, d)) * 10.0 ** np.linspace(0, 1.5, d) @ rng.normal(size=(d, d))
    return mixed + 50.0


def covariance(vectors):
    centred = vectors - vectors.mean(axis=0)
    return centred.T @ centred / len(vectors)


def test_the_output_has_mean_zero_and_the_identity_as_covariance():
    vectors = correlated()
    layer = whitening(vectors)
    white = np.array(layer(vectors))
    np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(covariance(white), np.eye(6), atol=1e-4)
    assert np.abs(covariance(vectors) - np.eye(6)).max() > 100
    assert isinstance(layer, keras.layers.Dense) and layer.built


def test_distances_are_those_of_mahalanobis():
    vectors = correlated()
    inverse = np.linalg.inv(covariance(vectors))
    difference = vectors[0] - vectors[1]
    white = np.array(whitening(vectors)(vectors[:2]))
    expected = difference @ inverse @ difference
    assert np.sum((white[0] - white[1]) ** 2) == pytest.approx(expected, rel=1e-4)


def test_fewer_units_are_the_directions_of_most_variance():
    vectors = correlated()
    full, part = whitening(vectors), whitening(vectors, 2)
    assert part.units == 2
    np.testing.assert_array_equal(part(vectors), np.array(full(vectors))[:, :2])
    # The kernel's columns are as short as the variance in their direction is large.
    lengths = np.linalg.norm(full.get_weights()[0], axis=0)
    variances = np.linalg.eigvalsh(covariance(vectors))[::-1]
    np.testing.assert_allclose(lengths, variances**-0.5, rtol=1e-4)


def test_directions_without_variance_give_zero():
    vectors = correlated(n=4)  # three directions
    white = np.array(whitening(vectors)(vectors))
    assert white.shape == (4, 6)
    np.testing.assert_allclose(covariance(white), np.diag([1, 1, 1, 0, 0, 0]), atol=1e-4)
    np.testing.assert_array_equal(white[:, 3:], 0.0)
    assert np.array(whitening(vectors, 3)(vectors)).shape == (4, 3)
    with pytest.raises(ValueError, match="vary in 3 of 6 directions.*Received: units=4"):
        whitening(vectors, 4)


def test_the_scale_and_the_place_of_the_vectors_do_not_matter():
    vectors = correlated()
    white = np.array(whitening(vectors)(vectors))
    tiny = vectors * 1e-12
    signs = np.sign(white[0] * np.array(whitening(tiny)(tiny))[0])
    np.testing.assert_allclose(np.array(whitening(tiny)(tiny)) * signs, white, atol=1e-3)


def test_it_is_saved_behind_a_model(tmp_path):
    vectors = correlated().astype("float32")
    model = keras.Sequential([keras.Input((6,)), whitening(vectors, 4)])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(vectors), model(vectors))


def test_half_precision_vectors_under_a_half_precision_policy_give_float32():
    vectors = correlated().astype("float16")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = whitening(vectors)
    finally:
        keras.config.set_dtype_policy("float32")
    white = np.array(layer(vectors))
    assert white.dtype == "float32"
    np.testing.assert_allclose(covariance(white.astype("float64")), np.eye(6), atol=1e-3)


@pytest.mark.parametrize(
    ("vectors", "units", "message"),
    [
        (np.zeros((1, 3)), None, r"at least two vectors.*shape=\(1, 3\)"),
        (np.zeros(3), None, r"at least two vectors.*shape=\(3,\)"),
        (np.ones((5, 3)), None, "vary in 0 of 3 directions"),
        (np.eye(3), 0, "Received: units=0"),
        (np.eye(3), 4, "Received: units=4"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), None, r"finite. Received: vectors\[1\]"),
    ],
)
def test_bad_input_is_refused(vectors, units, message):
    with pytest.raises(ValueError, match=message):
        whitening(vectors, units)
