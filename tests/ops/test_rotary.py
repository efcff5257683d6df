import math

import numpy as np
import pytest
from keras import ops

from keras_ext.ops import apply_rotary, rotary_angles


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")


def rotated(*arguments, **options):
    return np.array(apply_rotary(*arguments, **options))


def reference(x, positions, base=10000.0, layout="interleaved"):
    """Every pair is a complex number times exp(i angle)."""
    size = x.shape[-1]
    result = np.zeros(x.shape)
    for index in np.ndindex(x.shape[:-1]):
        for pair in range(size // 2):
            first, second = (2 * pair, 2 * pair + 1)
            if layout == "half":
                first, second = (pair, pair + size // 2)
            angle = positions[index[1]] * base ** (-2 * pair / size)
            turned = complex(x[*index, first], x[*index, second]) * np.exp(1j * angle)
            result[*index, first], result[*index, second] = turned.real, turned.imag
    return result


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("base", [10000.0, 100.0])
@pytest.mark.parametrize("positions", [None, [3, 0, 7, 2, 2], [0.5, -1.25, 100.75, 2.0, 1e-3]])
def test_equals_complex_rotation(x, layout, base, positions):
    given = None if positions is None else np.array(positions)
    result = rotated(x, given, base=base, layout=layout)
    expected = reference(x, range(5) if positions is None else positions, base, layout)
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_positions_per_sample_and_heads(x):
    positions = np.array([[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
    result = rotated(x, positions)
    for sample in range(2):
        expected = reference(x[sample : sample + 1], positions[sample])
        np.testing.assert_allclose(result[sample], expected[0], atol=1e-5)
    heads = np.stack([x, 2 * x[:, ::-1]], axis=2)  # (b, n, heads, size)
    result = rotated(heads, positions)
    np.testing.assert_allclose(result[:, :, 1], rotated(2 * x[:, ::-1], positions), atol=1e-6)


def test_layouts_differ_by_a_permutation_of_the_channels(x):
    permutation = [0, 2, 4, 6, 1, 3, 5, 7]
    half = rotated(x[..., permutation], layout="half")
    np.testing.assert_allclose(half, rotated(x)[..., permutation], atol=1e-6)
    assert np.abs(rotated(x, layout="half") - rotated(x)).max() > 0.1


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_only_the_distance_matters(x, layout):
    def products(shift):
        positions = np.arange(5) + shift
        query = rotated(x, positions, layout=layout)
        key = rotated(x[:, ::-1], positions, layout=layout)
        return query @ key.swapaxes(1, 2)

    np.testing.assert_allclose(products(0.0), products(13.5), atol=1e-4)
    np.testing.assert_allclose(products(0.0), products(-7), atol=1e-4)


def test_lengths_stay_and_position_zero_changes_nothing(x):
    turned = rotated(x)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6
    )
    assert np.array_equal(turned[:, 0], x[:, 0])
    assert np.abs(turned[:, 1:] - x[:, 1:]).max() > 0.1


def test_quarter_turn_in_closed_form():
    turned = rotated(np.array([[[3.0, 4.0]]], "float32"), np.array([math.pi / 2]))
    np.testing.assert_allclose(turned, [[[-4.0, 3.0]]], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_its_dtype_and_exact_angles(dtype):
    # 2049 is no float16 and 257 no bfloat16: cast angles would be wrong by whole radians.
    x = ops.ones((1, 2, 4), dtype)
    turned = apply_rotary(x, np.array([257, 2049]))
    assert ops.dtype(turned) == dtype
    expected = reference(np.ones((1, 2, 4)), [257, 2049])
    turned = np.array(ops.cast(turned, "float32"))
    np.testing.assert_allclose(turned, expected, atol=1e-2)  # three digits of the dtype


def test_angles_are_float32_and_follow_the_formula():
    angles = rotary_angles(ops.cast([0, 3], "float16"), 6, base=8.0)
    assert ops.dtype(angles) == "float32"
    expected = [[p * 8.0 ** (-2 * i / 6) for i in range(3)] for p in (0, 3)]
    np.testing.assert_allclose(np.array(angles), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 3, 5), {}, "pairs.*size=5"),
        ((1, 3, 0), {}, "pairs.*size=0"),
        ((3, 4), {}, r"\(3, 4\)"),
        ((1, 2, 3, 4, 6), {}, "batch, length"),
        ((1, 3, 4), {"layout": "neox"}, "layout.*neox"),
    ],
)
def test_what_cannot_be_turned_raises(shape, options, message):
    with pytest.raises(ValueError, match=message):
        apply_rotary(np.zeros(shape, "float32"), **options)
