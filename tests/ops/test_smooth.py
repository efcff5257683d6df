import keras
import numpy as np
import pytest
from gradients import value_and_gradient
from keras import ops
from scipy import integrate, stats

from keras_ext.ops import (
    smooth,
    smooth_abs,
    smooth_ceil,
    smooth_clip,
    smooth_floor,
    smooth_leaky_relu,
    smooth_max,
    smooth_min,
    smooth_relu,
    smooth_round,
    smooth_sign,
    smooth_step,
)

DENSITIES = {"gaussian": stats.norm, "logistic": stats.logistic}
PIECES = (
    [-1.0, 0.5, 2.0],
    [[1.0, 0.5], [0.0, 0.0, 1.0], [0.3, 1.0, 0.0, -0.25], [2.0, -1.0, 0.125]],
)


def piecewise(x):
    """The piecewise polynomial of `PIECES`."""
    piece = PIECES[1][int(np.searchsorted(PIECES[0], x, side="right"))]
    return sum(c * x**k for k, c in enumerate(piece))


# Name -> smooth function of (x, width, kernel), the function, where it jumps or bends.
FUNCTIONS = {
    "step": (smooth_step, lambda x: float(x >= 0), [0.0]),
    "sign": (smooth_sign, np.sign, [0.0]),
    "relu": (smooth_relu, lambda x: max(x, 0.0), [0.0]),
    "leaky_relu": (
        lambda x, width, kernel: smooth_leaky_relu(x, 0.1, width, kernel),
        lambda x: max(x, 0.1 * x),
        [0.0],
    ),
    "abs": (smooth_abs, abs, [0.0]),
    "max": (
        lambda x, width, kernel: smooth_max(x, 0.25, width, kernel),
        lambda x: max(x, 0.25),
        [0.25],
    ),
    "min": (
        lambda x, width, kernel: smooth_min(x, 0.25, width, kernel),
        lambda x: min(x, 0.25),
        [0.25],
    ),
    "clip": (
        lambda x, width, kernel: smooth_clip(x, -0.5, 2.0, width, kernel),
        lambda x: min(max(x, -0.5), 2.0),
        [-0.5, 2.0],
    ),
    "floor": (smooth_floor, np.floor, list(range(-60, 60))),
    "ceil": (smooth_ceil, np.ceil, list(range(-60, 60))),
    "round": (smooth_round, lambda x: np.floor(x + 0.5), [k + 0.5 for k in range(-60, 60)]),
    "piecewise": (
        lambda x, width, kernel: smooth(*PIECES, kernel)(x, width),
        piecewise,
        PIECES[0],
    ),
}
KINDS = pytest.mark.parametrize("kernel", DENSITIES)
ALL = pytest.mark.parametrize("name", FUNCTIONS)


def quadrature(name, x, width, kernel):
    """The convolution, piece by piece between the breaks within reach of the density."""
    _, function, breaks = FUNCTIONS[name]
    density = DENSITIES[kernel](scale=width)
    reach = (9 if kernel == "gaussian" else 36) * width
    ends = [-reach, *sorted(x - at for at in breaks if abs(x - at) < reach), reach]
    return sum(
        integrate.quad(lambda e: function(x - e) * density.pdf(e), low, high, epsabs=1e-12)[0]
        for low, high in zip(ends, ends[1:], strict=False)
    )


@pytest.mark.one_backend
@KINDS
@ALL
@pytest.mark.parametrize("width", [0.02, 0.24, 0.3, 1.0])
def test_is_the_convolution_with_the_density(name, kernel, width):
    x = np.array([-3.3, -1.0, -0.51, 0.0, 0.2, 0.5, 1.9, 4.0])
    values = np.asarray(FUNCTIONS[name][0](x, width, kernel))
    assert values.dtype == "float64"
    expected = [quadrature(name, each, width, kernel) for each in x]
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.one_backend
@KINDS
@ALL
def test_float32_keeps_six_digits(name, kernel):
    x = np.linspace(-4.0, 4.0, 161)
    wide = np.asarray(FUNCTIONS[name][0](x, 0.3, kernel))
    values = FUNCTIONS[name][0](x.astype("float32"), 0.3, kernel)
    assert keras.backend.standardize_dtype(values.dtype) == "float32"
    np.testing.assert_allclose(np.asarray(values), wide, rtol=3e-6, atol=3e-6)


@KINDS
@ALL
def test_goes_to_the_function_as_the_width_goes_to_0(name, kernel):
    smoothed, function, breaks = FUNCTIONS[name]
    x = np.linspace(-3.0, 3.0, 301) + 0.003
    x = np.float32([each for each in x if min(abs(each - np.array(breaks))) > 2e-3])
    expected = [function(float(each)) for each in x]
    np.testing.assert_allclose(np.asarray(smoothed(x, 1e-4, kernel)), expected, atol=2e-6)


@pytest.mark.one_backend
@KINDS
@ALL
def test_the_derivative_is_that_of_differences(name, kernel):
    """Also where the function breaks; from both sides of 1/4 the two forms of floor meet."""
    smoothed = FUNCTIONS[name][0]
    for width in (0.1, 0.2499, 0.2501, 0.6):
        x = np.array([-2.0, -1.3, -1.0, -0.5, 0.0, 0.25, 0.5, 0.9, 2.0, 2.6])
        _, (gradient,) = value_and_gradient(lambda x, w=width: smoothed(x, w, kernel), x)
        h = 1e-5
        sides = [np.asarray(smoothed(x + sign * h, width, kernel)) for sign in (1, -1)]
        expected = (sides[0] - sides[1]) / (2 * h)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("kernel", "bound"), [("gaussian", (2 * np.pi) ** -0.5), ("logistic", np.log(2))]
)
def test_relu_is_off_by_no_more_than_at_0(kernel, bound):
    x = np.linspace(-3, 3, 601)
    for width in (0.1, 1.0):
        error = np.asarray(smooth_relu(x, width, kernel)) - np.maximum(x, 0)
        assert (error >= 0).all()
        np.testing.assert_allclose(error.max(), bound * width, rtol=1e-6)


@pytest.mark.one_backend
@KINDS
def test_nothing_cancels_in_the_tails(kernel):
    """Float32, twelve widths out: the relative error of the tail, and the last digit far away."""
    x = np.float32([-12.0, -7.0, -4.0])
    wide = np.asarray(smooth_relu(x.astype("float64"), 1.0, kernel))
    np.testing.assert_allclose(np.asarray(smooth_relu(x, 1.0, kernel)), wide, rtol=2e-5)
    far = np.float32([-1e8, 123456.78])
    assert np.asarray(smooth_clip(far, -0.5, 2.0, 0.1, kernel)).tolist() == [-0.5, 2.0]
    assert np.asarray(smooth_abs(far, 0.1, kernel)).tolist() == np.abs(far).tolist()
    assert np.asarray(smooth_max(far, far[::-1], 0.1, kernel)).tolist() == [far[1]] * 2
    assert np.asarray(smooth_step(np.float32([-1e30, 1e30]), 1e-3, kernel)).tolist() == [0.0, 1.0]


@pytest.mark.one_backend
def test_max_is_that_of_logaddexp():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    expected = 0.3 * np.logaddexp(x / 0.3, y / 0.3)
    np.testing.assert_allclose(np.asarray(smooth_max(x, y, 0.3, "logistic")), expected, rtol=1e-9)


@pytest.mark.one_backend
def test_a_width_may_be_a_tensor_and_has_a_gradient():
    x = np.linspace(-2.0, 2.0, 9)
    _, (gradient,) = value_and_gradient(lambda width: smooth_floor(x, width), np.array(0.2))
    sums = [np.sum(np.asarray(smooth_floor(x, 0.2 + sign * 1e-5))) for sign in (1, -1)]
    np.testing.assert_allclose(gradient, (sums[0] - sums[1]) / 2e-5, rtol=1e-4, atol=1e-6)
    widths = ops.convert_to_tensor(np.float32([[0.05], [0.4]]))
    both = np.asarray(smooth_floor(x.astype("float32"), widths))
    for row, width in zip(both, (0.05, 0.4), strict=True):
        np.testing.assert_allclose(row, np.asarray(smooth_floor(x, width)), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype):
    x = ops.cast(np.linspace(-3, 3, 13), dtype)
    values = smooth_relu(x, 0.5)
    assert keras.backend.standardize_dtype(values.dtype) == dtype
    expected = ops.cast(smooth_relu(ops.cast(x, "float32"), 0.5), dtype)
    np.testing.assert_array_equal(ops.cast(values, "float32"), ops.cast(expected, "float32"))


@pytest.mark.parametrize("width", [0, -1.0, np.nan, np.inf])
@ALL
def test_a_width_of_0_is_refused(name, width):
    with pytest.raises(ValueError, match=r"above 0.*Received: width="):
        FUNCTIONS[name][0](np.zeros(3), width, "gaussian")


@pytest.mark.parametrize(
    ("breaks", "pieces", "match"),
    [
        ([1, 0], [[0], [1], [2]], "increase"),
        ([0, 0], [[0], [1], [2]], "increase"),
        ([0], [[0]], "2 pieces"),
        ([0], [[0], [np.nan]], "finite"),
    ],
)
def test_bad_pieces(breaks, pieces, match):
    with pytest.raises(ValueError, match=match):
        smooth(breaks, pieces)


@ALL
def test_an_unknown_kernel_is_refused(name):
    with pytest.raises(ValueError, match="kernel='box'"):
        FUNCTIONS[name][0](np.zeros(3), 1.0, "box")
