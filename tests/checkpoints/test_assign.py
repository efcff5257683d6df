import keras
import ml_dtypes
import numpy as np
import pytest

from keras_ext.checkpoints import WeightName, assign_weights, collect_weights

TABLE = [
    WeightName("first", "kernel", "one.weight", True),
    WeightName("first", "bias", "one.bias"),
    WeightName("second", "kernel", "two.weight", True),
]


@pytest.fixture
def model():
    first = keras.layers.Dense(3, name="first")
    second = keras.layers.Dense(2, use_bias=False, name="second")
    return keras.Sequential([keras.Input((4,)), first, second])


@pytest.fixture
def values(rng):
    shapes = {"one.weight": (3, 4), "one.bias": (3,), "two.weight": (2, 3)}
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def test_values_arrive_transposed_where_the_table_says_so(model, values):
    report = assign_weights(model, TABLE, values)
    kernel, bias, second = model.get_weights()
    np.testing.assert_array_equal(kernel, values["one.weight"].T)
    np.testing.assert_array_equal(bias, values["one.bias"])
    np.testing.assert_array_equal(second, values["two.weight"].T)
    assert report == (("one.bias", "one.weight", "two.weight"), (), ())


def test_frozen_layers_are_loaded(model, values):
    model.get_layer("first").trainable = False
    assign_weights(model, TABLE, values)
    np.testing.assert_array_equal(model.get_layer("first").get_weights()[1], values["one.bias"])


def test_all_faults_are_listed_and_nothing_is_assigned(model, values):
    before = model.get_weights()
    values["one.offset"] = values.pop("one.bias")
    values["two.weight"] = values["two.weight"].T
    with pytest.raises(ValueError) as caught:
        assign_weights(model, TABLE, values)
    message = str(caught.value)
    assert "missing: one.bias" in message and "unused: one.offset" in message
    assert "shape: two.weight, expected (2, 3), found (3, 2)" in message
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_allowed_names_are_reported_instead(model, values):
    del values["one.bias"]
    values["head.bias"] = np.zeros(2)
    report = assign_weights(model, TABLE, values, ("*.bias",), ("head.*",))
    assert report.missing == ("one.bias",) and report.unused == ("head.bias",)
    assert report.loaded == ("one.weight", "two.weight")
    with pytest.raises(ValueError, match="missing: one.bias"):
        assign_weights(model, TABLE, values, ("bias",), ("head.*",))


def test_a_weight_that_the_table_forgets_is_missing(model, values):
    del values["two.weight"]
    path = model.get_layer("second").kernel.path
    with pytest.raises(ValueError, match=f"missing: {path}"):
        assign_weights(model, TABLE[:2], values)
    assert assign_weights(model, TABLE[:2], values, ("*second/*",)).missing == (path,)


def test_a_shape_is_never_allowed_to_differ(model, values):
    values["one.bias"] = np.zeros(4)
    with pytest.raises(ValueError, match=r"one.bias, expected \(3,\), found \(4,\)"):
        assign_weights(model, TABLE, values, ("*",), ("*",))


def test_one_str_is_no_tuple_of_patterns(model, values):
    """The star in it would allow everything."""
    del values["one.bias"]
    for name in ("allow_missing", "allow_unused"):
        with pytest.raises(ValueError, match=f"tuple of patterns. Received: {name}='x.*'"):
            assign_weights(model, TABLE, values, **{name: "x.*"})


@pytest.mark.parametrize("dtype", ["int8", "bool", "complex64", "str"])
def test_what_is_no_floats_is_refused_before_anything_is_assigned(model, values, dtype):
    """Integers stand for other numbers, and text would fail half way."""
    before = model.get_weights()
    values["two.weight"] = values["two.weight"].astype(dtype)
    with pytest.raises(ValueError, match=f"dtype: two.weight, expected floats, found {dtype}"):
        assign_weights(model, TABLE, values)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_floats_of_any_size_are_taken(model, values):
    values["one.bias"] = values["one.bias"].astype("float64")
    values["one.weight"] = values["one.weight"].astype("float16")
    values["two.weight"] = values["two.weight"].astype(ml_dtypes.bfloat16)
    assign_weights(model, TABLE, values)
    np.testing.assert_allclose(model.get_weights()[2], values["two.weight"].T.astype("float32"))


SHARED = [WeightName("first", "bias", "bias"), WeightName("third", "bias", "bias")]


def shared_model():
    layers = [keras.layers.Dense(3, name=name) for name in ("first", "third")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    table = [WeightName(layer.name, "kernel", layer.name) for layer in layers]
    return model, [*table, *SHARED]


def test_collecting_gives_what_was_assigned(model, values):
    assign_weights(model, TABLE, values)
    collected = collect_weights(model, TABLE)
    assert collected.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(collected[name], value)
        assert collected[name].flags.c_contiguous


def test_half_precision_is_collected_as_float32():
    layer = keras.layers.Dense(2, name="first", dtype="bfloat16")
    model = keras.Sequential([keras.Input((3,)), layer])
    collected = collect_weights(model, TABLE[:2])
    assert {value.dtype.name for value in collected.values()} == {"float32"}
    assign_weights(model, TABLE[:2], collected)
    again = collect_weights(model, TABLE[:2])
    np.testing.assert_array_equal(again["one.weight"], collected["one.weight"])


def test_collecting_refuses_to_lose_a_weight(model):
    path = model.get_layer("second").kernel.path
    with pytest.raises(ValueError, match=f"cannot hold this model.*\\n.*without a name: {path}"):
        collect_weights(model, TABLE[:2])
    assert collect_weights(model, TABLE[:2], ("*second/*",)).keys() == {"one.weight", "one.bias"}


def test_one_tensor_fills_all_weights_that_share_its_name(rng):
    model, table = shared_model()
    values = {name: rng.normal(size=(3, 3)) for name in ("first", "third")}
    report = assign_weights(model, table, {**values, "bias": np.arange(3.0)})
    assert report.loaded == ("bias", "first", "third")
    for name in ("first", "third"):
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[1], [0, 1, 2])
    np.testing.assert_array_equal(collect_weights(model, table)["bias"], [0, 1, 2])


def test_different_weights_cannot_be_collected_under_one_name():
    model, table = shared_model()
    model.get_layer("third").bias.assign([1, 2, 3])
    with pytest.raises(ValueError, match="shared by different weights: bias"):
        collect_weights(model, table)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_no_finite_weight_is_named_and_nothing_is_assigned(model, values, bad):
    before = model.get_weights()
    values["two.weight"] = values["two.weight"].astype("float64" if bad == 1e39 else "float32")
    values["two.weight"][1, 2] = bad
    with pytest.raises(ValueError, match="values: two.weight, 1 of 6 are not finite in float32"):
        assign_weights(model, TABLE, values)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_largest_numbers_are_weights(model, values):
    values["one.bias"][:] = [3.4e38, -3.4e38, 1e-45]
    assign_weights(model, TABLE, values)
    np.testing.assert_array_equal(model.get_weights()[1], values["one.bias"])


def test_what_a_half_precision_variable_cannot_hold_is_refused(values):
    layer = keras.layers.Dense(3, dtype="float16", name="first")
    model = keras.Sequential([keras.Input((4,)), layer])
    values["one.bias"][0] = 1e5
    values.pop("two.weight")
    with pytest.raises(ValueError, match="one.bias, 1 of 3 are not finite in float16"):
        assign_weights(model, TABLE[:2], values)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float8_e4m3fn", "int64", "bool", "complex64"])
def test_quantised_weights_without_their_scale_are_refused(model, values, dtype):
    values["one.weight"] = values["one.weight"].astype(dtype)
    packed = "8" in dtype
    match = f"dtype: one.weight, expected floats, found {dtype}{'; quantised' if packed else ''}"
    with pytest.raises(ValueError, match=match):
        assign_weights(model, TABLE, values)
