import json

import keras
import numpy as np
import pytest

from keras_ext.optimizers import PiecewiseLinear

POINTS = [[3, 1.0], [7, 0.2], [8, 0.5], [20, 0.0]]


def reference(points, step):
    """The sum over the corners, as the published schedule has it."""
    value = points[0][1]
    for (start, left), (end, right) in zip(points, points[1:], strict=False):
        value += (right - left) * np.clip((step - start) / (end - start), 0, 1)
    return value


@pytest.mark.parametrize("from_zero", [True, False])
def test_values_are_those_of_the_reference(from_zero):
    schedule = PiecewiseLinear(POINTS, base=0.25, from_zero=from_zero)
    points = [[0, 0.0], *POINTS] if from_zero else POINTS
    for step in range(25):
        value = schedule(step)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        np.testing.assert_allclose(value, 0.25 * reference(points, step), rtol=0, atol=3e-8)


def test_corners_are_hit_exactly():
    points = [[0, 0.1], [3, 0.3], [10, 0.7], [16, 0.0]]
    schedule = PiecewiseLinear(points)
    for step, value in points:
        assert np.array(schedule(step)) == np.float32(value)
    assert np.array(schedule(10**6)) == 0.0


def test_a_first_point_at_0_needs_no_way_from_zero():
    assert float(PiecewiseLinear([[0, 0.5], [2, 1.0]])(0)) == 0.5


def test_one_point_is_a_constant_after_the_way_from_zero():
    values = [float(PiecewiseLinear([[4, 2.0]])(step)) for step in (0, 1, 4, 99)]
    assert values == [0.0, 0.5, 2.0, 2.0]
    assert float(PiecewiseLinear([[4, 2.0]], from_zero=False)(0)) == 2.0


def test_it_survives_json_with_an_optimizer_around():
    sgd = keras.optimizers.SGD(PiecewiseLinear([(3, 1), (7, 0.5)], base=2.0, from_zero=False))
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(sgd)))
    schedule = keras.saving.deserialize_keras_object(stored)._learning_rate
    assert isinstance(schedule, PiecewiseLinear)
    assert schedule.get_config() == {
        "points": [[3, 1.0], [7, 0.5]],
        "base": 2.0,
        "from_zero": False,
    }


def test_the_first_update_has_the_value_of_step_0():
    weight = keras.Variable([1.0])
    sgd = keras.optimizers.SGD(PiecewiseLinear([[0, 0.5], [1, 0.25]]))
    for expected in (0.5, 0.25, 0.0):
        sgd.apply([keras.ops.ones((1,))], [weight])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), [expected])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": []}, "at least one"),
        ({"points": [[3]]}, r"list of \[step, value\]"),
        ({"points": [[3, 1.0], [3, 2.0]]}, "that increase"),
        ({"points": [[3, 1.0], [2, 2.0]]}, "that increase"),
        ({"points": [[-1, 1.0]]}, "at least 0"),
        ({"points": [[0.5, 1.0]]}, "steps of at least 0"),
        ({"points": [[3, float("nan")]]}, "finite values"),
        ({"points": [[3, float("inf")]]}, "finite values"),
        ({"points": [[3, 1.0]], "base": float("inf")}, "finite values"),
    ],
)
def test_bad_points_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        PiecewiseLinear(**arguments)
