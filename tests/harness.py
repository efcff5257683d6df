"""The properties that every serialisable object has, each a function of one row.

Each raises AssertionError saying which object lacks what. `tests/test_all.py` holds the table.
"""

import dataclasses
import functools
import inspect
import json

import keras
import numpy as np
from harness_backend import compiled, quickest, specs
from harness_compare import compare, relative_difference, run, to_numpy
from harness_kinds import LENGTH, AroundRow, LayerRow, OptimizerRow, by_name
from keras import ops, tree
from reload_saved import outputs_of

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
XLA_TOLERANCE = 1e-5
TOLERANCES = {"mixed_float16": 0.01, "mixed_bfloat16": 0.08}
"""Relative difference from float32. The spacing of float16 is 0.001, that of bfloat16 0.008; a
value passes some ten roundings."""


def check_layer(row):
    """All properties of a layer, save those of a fresh process."""
    check_config(row)
    check_registered_name(row)
    check_build(row)
    for policy in POLICIES:
        check_output(row, policy)
    for policy in TOLERANCES:
        check_low_precision(row, policy)
    check_xla(row)
    if masks(row):
        check_padding(row)


check_model = check_layer


def check_loss(row):
    """All properties of a loss or a metric, save those of a fresh process."""
    check_config(row)
    check_registered_name(row)
    for policy in POLICIES:
        check_output(row, policy)
    for policy in TOLERANCES:
        check_low_precision(row, policy)
    check_xla(row)


check_metric = check_loss


def check_config(row):
    """The config holds every argument as it was passed, and building changes nothing."""
    passed = {**row.passed("float32"), **row.general}
    subject = row.make(**row.general)
    if isinstance(row, LayerRow):
        passed = {**row.passed("mixed_bfloat16"), **row.general}
        passed["dtype"] = keras.DTypePolicy("mixed_bfloat16")
        subject = row.make("mixed_bfloat16", **row.general)
    config = subject.get_config()
    missing = (set(parameters(row.cls)) | set(passed)) - set(config)
    assert not missing, f"{row}: the config lacks {sorted(missing)}"
    for name, value in passed.items():
        assert config[name] == serialised(value), (
            f"{row}: the config of {name} is {config[name]!r}, passed was {serialised(value)!r}"
        )
    again = row.cls.from_config(dict(config)).get_config()
    assert again == config, f"{row}: from_config changes the config to {again}"
    stored = keras.saving.serialize_keras_object(subject)
    again = keras.saving.deserialize_keras_object(stored).get_config()
    assert again == config, f"{row}: serialisation changes the config to {again}"
    if isinstance(row, (LayerRow, OptimizerRow)):
        row.build(subject)
        again = subject.get_config()
        assert again == config, f"{row}: build changes the config to {again}"


def check_numpy_arguments(row):
    """Numbers of NumPy as arguments are those of Python, or refused as some of Keras' layers do.

    The config that is saved is the same: nothing is trained that cannot be saved.
    """

    def of_numpy(value):
        if type(value) is int:
            return np.int64(value)
        return np.float64(value) if type(value) is float else value

    arguments = {
        name: tree.map_structure(of_numpy, value) if isinstance(value, list) else of_numpy(value)
        for name, value in row.arguments.items()
    }
    try:
        subject = dataclasses.replace(row, arguments=arguments).make()
    except ValueError as error:
        if "integer" not in str(error):
            raise
        return
    found, expected = (
        {
            **json.loads(json.dumps(keras.saving.serialize_keras_object(each)["config"])),
            "name": None,
        }
        for each in (subject, row.make())
    )
    assert found == expected, f"{row}: with numbers of NumPy the config is {found}"


def check_arguments_vary(rows):
    """Every argument with a default is passed off it in some row of its class.

    A config that leaves an argument at its default would otherwise look complete.
    """
    (cls,) = {row.cls for row in rows}
    for name, parameter in parameters(cls).items():
        values = [{**row.arguments, **row.general}.get(name, parameter.default) for row in rows]
        if name != "dtype":  # check_config passes one
            assert any(value != parameter.default for value in values), (
                f"{cls.__name__}: no row passes {name} other than {parameter.default!r}"
            )


def check_registered_name(row):
    """The object is registered under its own name in the package's."""
    name, expected = keras.saving.get_registered_name(row.cls), f"keras_ext>{row.cls.__name__}"
    assert name == expected, f"{row}: registered as {name}, not {expected}"
    assert keras.saving.get_registered_object(name) is row.cls, f"{row}: {name} is another object"


def check_build(row):
    """`build` alone makes every weight that there is after a call, and builds every sub-layer."""
    layer = row.make()
    row.build(layer)
    unbuilt = [part.name for part in parts(layer) if not part.built]
    assert not unbuilt, f"{row}: build leaves sub-layers unbuilt: {unbuilt}"
    built = [variable.path for variable in layer.variables]
    first, others = row.split(row.inputs_in("float32"))
    layer(first, **others)
    called = [variable.path for variable in layer.variables]
    assert called == built, f"{row}: build makes the weights {built}, a call {called}"


def check_output(row, policy):
    """Shape and dtype of the output are those that are promised."""
    subject = built(row, policy)
    outputs = named(
        specs(functools.partial(row.call, subject), row.weights(subject), row.inputs_in(policy))
    )
    promises = [named(row.symbolic(subject, policy))]
    if isinstance(row, LayerRow):
        promises.append(named(row.symbolic(subject, policy, shape=lambda x: x.shape)))
    # (A model around a network gives losses, whose shape nobody asks for.)
    if isinstance(row, LayerRow) and not isinstance(row, AroundRow):
        input_shape = tree.map_structure(lambda x: x.shape, row.split(row.inputs)[0])
        for name, shape in named(subject.compute_output_shape(input_shape)).items():
            assert tuple(shape) == tuple(outputs[name].shape), (
                f"{row}: the shape of the output is {tuple(outputs[name].shape)}, "
                f"compute_output_shape says {tuple(shape)}"
            )
    for promise in promises:
        assert promise.keys() == outputs.keys(), f"{row}: promised are {list(promise)}"
        for name, spec in promise.items():
            shape = tuple(outputs[name].shape)
            dtype = keras.backend.standardize_dtype(outputs[name].dtype)
            assert dtype == spec.dtype, (
                f"{row}: the dtype of the output under {policy} is {dtype}, promised {spec.dtype}"
            )
            fits = len(shape) == len(spec.shape) and all(
                size in (None, actual) for size, actual in zip(spec.shape, shape, strict=True)
            )
            assert fits, f"{row}: the shape of the output is {shape}, promised {spec.shape}"
    assert all(weight.dtype == "float32" for weight in getattr(subject, "weights", [])), (
        f"{row}: not all weights are float32 under {policy}"
    )


def check_xla(row):
    """XLA gives the value and gradient of eager execution, and one trace serves two calls."""
    subject, inputs, runs = built(row, "float32"), row.inputs_in("float32"), []

    def function(weights, inputs):
        runs.append(None)
        return run(row, subject, weights, inputs)

    jitted = compiled(function)
    try:
        outputs = jitted(row.weights(subject), inputs)
    except Exception as error:
        raise AssertionError(f"{row}: XLA cannot compile it: {error}") from error
    traces = len(runs)
    jitted(row.weights(subject), inputs)
    assert len(runs) == traces, f"{row}: the second call with the same shapes traces again"
    # On JAX nothing runs eagerly here: what XLA gives is compared with TensorFlow's.
    if quickest is not compiled:
        compare(row, "XLA", outputs, reference(row), XLA_TOLERANCE)


def check_low_precision(row, policy):
    """Half precision gives a finite value and gradient near those of float32."""
    compare(row, policy, results(row, policy), reference(row), TOLERANCES[policy])


@functools.cache
def built(row, policy):
    """The object of a row, built once: the checks call it as a pure function of its weights."""
    return row.built(policy)


@functools.cache
def reference(row):
    """Value and gradient in float32, computed once."""
    return results(row, "float32")


def write_reference(row, path):
    """Writes value and gradient in float32 for a process that runs another backend."""
    np.savez(path, *(to_numpy(x) for x in tree.flatten(reference(row))))


def check_reference(row, path):
    """Value and gradient in float32 are those that another backend has written."""
    with np.load(path) as file:
        expected = [file[name] for name in file.files]
    value, gradient = reference(row)
    count = len(tree.flatten(value))
    expected = expected[:count], expected[count:]
    compare(row, "another backend", (value, gradient), expected, XLA_TOLERANCE)


def results(row, policy):
    """Value and gradient under a dtype policy."""
    subject = built(row, policy)
    function = quickest(functools.partial(run, row, subject))
    return function(row.weights(subject), row.inputs_in(policy))


def check_padding(row):
    """What stands at padded positions changes nothing at the others.

    That a fully masked row gives a finite value and gradient, `compare` sees in every other check.
    """
    subject = built(row, "float32")
    mask = masks(row)[0]
    assert mask.any(axis=1).tolist() == [True, True, False], f"{row}: no row is fully masked"
    rng = np.random.default_rng(1)

    def changed(x):
        if x.dtype == "bool" or x.shape[:2] != mask.shape:
            return x
        padding = ~mask.reshape(mask.shape + (1,) * (x.ndim - 2))
        noise = rng.permutation(x.ravel()).reshape(x.shape)
        return np.where(padding, noise, x)

    other = tree.map_structure(lambda x: ops.convert_to_tensor(changed(x)), row.inputs)
    first = row.call(subject, row.weights(subject), row.inputs_in("float32"))
    second = row.call(subject, row.weights(subject), other)
    for left, right in zip(tree.flatten(first), tree.flatten(second), strict=True):
        left, right = real_positions(left, mask), real_positions(right, mask)
        difference = relative_difference(left, right)
        assert difference < 1e-6, (
            f"{row}: what stands at padded positions changes the others by {difference:.1e}"
        )


def save(row, policy, path):
    """Saves a model of the object, and inputs for it, where `reload_saved.py` finds them.

    Returns:
        What the model computes from these inputs, by name.
    """
    model, inputs = row.saved_model(policy), row.inputs_in(policy)
    inputs = inputs["inputs"] if isinstance(inputs.get("inputs"), dict) else by_name(inputs)
    inputs = {name: to_numpy(x) for name, x in inputs.items()}
    np.savez(path.with_suffix(".inputs.npz"), **inputs)
    model.save(path)
    outputs = outputs_of(model, inputs)
    assert all(np.isfinite(x).all() for x in outputs.values()), f"{row}: not finite under {policy}"
    return outputs


def parameters(cls):
    """The arguments of the constructor, without `self` and `**kwargs`."""
    named = dict(list(inspect.signature(cls.__init__).parameters.items())[1:])
    return {name: p for name, p in named.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def serialised(value):
    """What the config holds for an argument."""
    return keras.saving.serialize_keras_object(value) if hasattr(value, "get_config") else value


def named(outputs):
    """The outputs by name, also those of a tuple, and where there is only one."""
    if isinstance(outputs, (list, tuple)) and not isinstance(outputs[0], (int, type(None))):
        return {str(i): output for i, output in enumerate(outputs)}
    return outputs if isinstance(outputs, dict) else {"output": outputs}


def parts(layer):
    """All layers inside a layer."""
    return layer._flatten_layers(include_self=False)


def masks(row):
    """The masks of padding among the inputs of a row; one of pairs has three axes."""
    return [x for x in tree.flatten(row.inputs) if x.dtype == "bool" and x.ndim == 2]


def real_positions(output, mask):
    """The output with 0 in place of what belongs to a padded position."""
    output = to_numpy(output)
    for axis in range(1, output.ndim):
        if output.shape[axis] == LENGTH:
            shape = [1] * output.ndim
            shape[0], shape[axis] = mask.shape
            output = np.where(mask.reshape(shape), output, 0.0)
    return np.where(mask.any(axis=1).reshape((-1,) + (1,) * (output.ndim - 1)), output, 0.0)
