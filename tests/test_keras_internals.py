"""What the package takes the private names of Keras to mean; and that only one file knows them.

Where a test of a meaning fails, it names what that version of Keras has changed.
"""

import ast
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

import keras_ext
from keras_ext import keras_internals
from keras_ext.optimizers import NonFiniteGuard

SOURCE = Path(keras_internals.__file__)
OTHERS = [path for path in sorted(SOURCE.parent.rglob("*.py")) if path != SOURCE]
SGD = keras.optimizers.SGD


@contextmanager
def means(private):
    """Where what happens inside fails, it is because Keras has changed a private name."""
    try:
        yield
    except Exception as error:
        raise AssertionError(
            f"Keras {keras.__version__} has changed `{private}`, or what it means. Mend "
            f"keras_ext/keras_internals.py. Received: {type(error).__name__}: {error}"
        ) from error


def trained(optimizer=None, gradients=()):
    """An optimizer built for two weights, after steps in which each has these gradients."""
    optimizer = SGD(0.5) if optimizer is None else optimizer
    weights = [keras.Variable(np.ones(2, "float32"), name=name) for name in ("first", "second")]
    optimizer.build(weights)
    for gradient in gradients:
        optimizer.apply([ops.full((2,), gradient)] * 2, weights)
    return optimizer, weights


def small_model(optimizer="sgd"):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def trained_variables():
    optimizer, weights = trained()
    assert [id(v) for v in keras_internals.trained_by(optimizer)] == [id(v) for v in weights]


def places():
    optimizer, weights = trained()
    assert [keras_internals.place_of(weight, optimizer) for weight in weights] == [0, 1]


def known_variables():
    optimizer, weights = trained()
    keras_internals.check_known(weights, optimizer)
    with pytest.raises(ValueError, match="[Uu]nknown variable"):
        keras_internals.check_known([keras.Variable(1.0)], optimizer)


def missing_gradients():
    optimizer, weights = trained()
    with pytest.warns(UserWarning, match="first"):
        left = keras_internals.without_missing([None, 7.0], weights, optimizer)
    assert left == ([7.0], weights[1:])
    with pytest.raises(ValueError, match="[Nn]o gradients"):
        keras_internals.without_missing([None, None], weights, optimizer)


def clipping():
    gradients = [ops.convert_to_tensor([3.0, 4.0]), ops.convert_to_tensor([0.0, 0.5])]
    for arguments, expected in (
        ({}, [[3, 4], [0, 0.5]]),
        ({"clipnorm": 1.0}, [[0.6, 0.8], [0, 0.5]]),
        ({"clipvalue": 1.0}, [[1, 1], [0, 0.5]]),
        ({"global_clipnorm": 25.25**0.5 / 2}, [[1.5, 2], [0, 0.25]]),
    ):
        found = keras_internals.clipped(gradients, SGD(0.5, **arguments))
        np.testing.assert_allclose(np.stack([to_numpy(g) for g in found]), expected, rtol=1e-6)


def excluded_by(optimizer, **excluded):
    """Which of the weights decay, once by the function, once by what a step does to them."""
    optimizer.exclude_from_weight_decay(**excluded)
    optimizer, weights = trained(optimizer, [0.0])
    moved = [bool(ops.all(weight < 1)) for weight in weights]
    assert [keras_internals.decays(weight, optimizer) for weight in weights] == moved
    return moved


def exclusion():
    assert excluded_by(SGD(0.5, weight_decay=0.5), var_names=["second"]) == [True, False]
    assert excluded_by(SGD(0.5, weight_decay=0.5)) == [True, True]


def copied_exclusions():
    weights = [keras.Variable(np.ones(2, "float32"), name=name) for name in ("first", "second")]
    for excluded in ({"var_list": weights[:1]}, {"var_names": ["first"]}, None):
        old, new = SGD(0.5, weight_decay=0.5), SGD(0.5, weight_decay=0.5)
        if excluded:
            old.exclude_from_weight_decay(**excluded)
        keras_internals.copy_exclusions(old, new)
        new.build(weights)
        decaying = [keras_internals.decays(weight, new) for weight in weights]
        assert decaying == [excluded is None, True]


def rates():
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    assert float(keras_internals.rate_or_schedule(SGD(0.5))) == 0.5
    assert keras_internals.rate_or_schedule(SGD(schedule)) is schedule


def counted_steps():
    optimizer, _ = trained(SGD(0.5, gradient_accumulation_steps=2), [1.0] * 3)
    assert int(keras_internals.steps_taken(optimizer)) == 3
    assert int(optimizer.iterations) == 1


def weight_averages():
    optimizer, _ = trained(SGD(0.5, use_ema=True, ema_momentum=0.75), [1.0, 1.0])
    # The weights go 1, 0.5, 0; the average begins as the weight after the first step.
    for average in keras_internals.averages(optimizer):
        np.testing.assert_allclose(to_numpy(average), 0.75 * 0.5, rtol=1e-6)
    assert len(keras_internals.averages(optimizer)) == 2


def swapped_averages():
    model = small_model(NonFiniteGuard(SGD(0.5, use_ema=True)))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    x = np.ones((4, 2))
    for _ in range(2):  # `fit` ends with the averages in place
        model.train_on_batch(x, 9 * x[:, :1])
    swap.set_model(model)
    swap.set_params({"epochs": 9})
    expected = [to_numpy(x).copy() for x in keras_internals.averages(model.optimizer)]
    before = [weight.copy() for weight in model.get_weights()]
    swap.on_epoch_end(0)
    for weight, average, value in zip(model.get_weights(), expected, before, strict=True):
        np.testing.assert_allclose(weight, average, rtol=1e-5)
        assert np.all(weight != value)


def strategies():
    import tensorflow as tf

    assert keras_internals.strategy_of(SGD()) is tf.distribute.get_strategy()
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        assert keras_internals.strategy_of(SGD()) is strategy


def all_at_once():
    class Whole(keras_internals.AllAtOnce, keras.optimizers.Optimizer):
        def update(self, gradients, variables):
            for gradient, variable in zip(gradients, variables, strict=True):
                variable.assign(variable - gradient)

    optimizer = Whole(0.5, clipnorm=0.125, weight_decay=0.5, use_ema=True)
    weights = [keras.Variable(np.ones(2, "float32")) for _ in range(2)]
    weights[1].constraint = keras.constraints.NonNeg()
    gradient = ops.full((2,), 4.0)
    optimizer.apply([gradient, gradient], weights)
    assert [to_numpy(weight).tolist() for weight in weights] == [[-3, -3], [0, 0]]
    with pytest.warns(UserWarning, match="do not exist"):
        optimizer.apply([gradient, None], weights)
    assert to_numpy(weights[0]).tolist() == [-7, -7]
    assert int(optimizer.iterations) == 2


def layers_of_layers():
    dense, dropout, norm = keras.layers.Dense(2), keras.layers.Dropout(0), keras.layers.Dense(2)
    inner = keras.Sequential([keras.Input((2,)), dense, dropout])
    distributed = keras.layers.TimeDistributed(norm)
    inputs = keras.Input((3, 2))
    shared = keras.layers.TimeDistributed(inner)
    model = keras.Model(inputs, distributed(shared(shared(inputs))))
    found = keras_internals.layers_inside(model)
    assert len({id(layer) for layer in found}) == len(found)
    expected = {dense, dropout, norm, inner, distributed, shared}
    assert {layer for layer in found if not isinstance(layer, keras.layers.InputLayer)} == expected


def trainable_as_made():
    norm = keras.layers.BatchNormalization()
    norm.build((None, 2))
    norm.trainable = False
    assert norm.trainable_weights == []
    made = keras_internals.made_trainable(norm)
    assert [id(v) for v in made] == [id(norm.gamma), id(norm.beta)]
    outer = keras.layers.TimeDistributed(norm)
    outer.build((None, 3, 2))
    assert list(keras_internals.made_trainable(outer)) == []


def resumed_epoch(folder):
    backup = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
    model = small_model()
    x = np.ones((2, 2))

    def epochs(number, callbacks=()):
        return model.fit(x, x, epochs=number, callbacks=list(callbacks), verbose=0).epoch

    epochs(1, [backup])
    assert epochs(2, [backup]) == [1]
    assert epochs(1) == []  # else there is nothing to forget, and the function can go
    keras_internals.forget_resumed_epoch(model)
    assert epochs(1) == [0]


def evaluations_within_fit():
    asked = []

    class Asked(keras.Sequential):
        def evaluate(self, *arguments, **named):
            asked.append(keras_internals.is_within_fit(named))
            return super().evaluate(*arguments, **named)

    model, x = Asked([keras.layers.Dense(2)]), np.ones((2, 2))
    model.compile("sgd", "mse")
    model.fit(x, x, validation_data=(x, x), verbose=0)
    model.evaluate(x, x, verbose=0)
    assert asked == [True, False]


def losses_of_a_layer():
    class Adding(keras.layers.Layer):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return x

    layer = Adding()
    keras_internals.separate_losses(layer)
    model = keras.Sequential([layer])
    for number in (1.0, 3.0):  # what was added in a call before is gone
        model(np.full((2, 2), number, "float32"))
        for losses in (layer.losses, model.losses):
            assert [float(loss) for loss in losses] == [4 * number]


MEANINGS = {
    "_trainable_variables": [trained_variables, trainable_as_made],
    "_get_variable_index": [places],
    "_check_variables_are_known": [known_variables],
    "_filter_empty_gradients": [missing_gradients],
    "_clip_gradients": [clipping],
    "_use_weight_decay": [exclusion],
    "_exclude_from_weight_decay": [copied_exclusions],
    "_learning_rate": [rates],
    "_iterations": [counted_steps],
    "_model_variables_moving_average": [weight_averages, swapped_averages],
    "_distribution_strategy": [strategies],
    "_backend_apply_gradients": [all_at_once],
    "_flatten_layers": [layers_of_layers],
    "_initial_epoch": [resumed_epoch],
    "_use_cached_eval_dataset": [evaluations_within_fit],
    "_losses": [losses_of_a_layer],
}


@pytest.mark.parametrize("private", MEANINGS)
def test_what_a_private_name_means(private, tmp_path):
    if private == "_distribution_strategy" and keras.backend.backend() != "tensorflow":
        pytest.skip("strategies are TensorFlow's")
    for meaning in MEANINGS[private]:
        with means(private):
            meaning(tmp_path) if meaning is resumed_epoch else meaning()


def test_every_private_name_has_its_meaning_tested():
    tree = ast.parse(SOURCE.read_text("utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    private = {str(name) for name in used if str(name).startswith("_")}
    assert {name for name in private if not name.startswith("__")} == set(MEANINGS)


def test_no_replica_sees_or_clears_the_losses_of_another(monkeypatch):
    losses, replica = keras_internals.LossesByReplica(), iter([0, 1, 0, 1, 1, 0])
    monkeypatch.setattr(keras_internals, "current_replica", lambda: next(replica))
    losses.extend([5])
    losses.extend([7])
    assert losses[:] == [5] and losses[:] == [7]
    losses.clear()
    assert losses[:] == [5]


def test_a_changed_name_is_named_with_the_version():
    message = f"Keras {keras.__version__} has changed `_trainable_variables`.*no attribute"
    with pytest.raises(AssertionError, match=message), means("_trainable_variables"):
        keras_internals.trained_by(object())


@pytest.fixture(scope="module")
def private_to_keras():
    """The private names of Keras' models, layers, optimizers, variables and callbacks."""
    model = small_model(SGD(use_ema=True))
    model.optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.optimizer.build(model.trainable_variables)
    scaled = keras.optimizers.LossScaleOptimizer(SGD())
    objects = [model, *model.layers, *model.weights, model.optimizer, scaled]
    objects += [keras.callbacks.Callback(), keras.utils.PyDataset(), model.inputs[0]]
    names = {name for each in objects for name in dir(each) if name.startswith("_")}
    return {name for name in names if not name.startswith("__")}


def uses(source, private):
    """The private names that a source reads, sets, calls or overrides, but for its own ones."""
    tree = ast.parse(source)
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = {
        node.attr
        for node in attributes
        if isinstance(node.ctx, ast.Store) and getattr(node.value, "id", None) == "self"
    }
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    methods = {node.name for c in classes for node in c.body if isinstance(node, ast.FunctionDef)}
    return private & (({node.attr for node in attributes} - own) | methods)


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: str(p.relative_to(SOURCE.parent)))
def test_no_other_file_knows_private_names_of_keras(path, private_to_keras):
    assert uses(path.read_text("utf-8"), private_to_keras) == set()


@pytest.mark.parametrize(
    "source",
    [
        "layer._flatten_layers()",
        "model._flatten_layers = None",
        "class Model(keras.Model):\n    def _flatten_layers(self):\n        return []",
        "class Layer(keras.layers.Layer):\n    def call(self):\n        self._flatten_layers()",
    ],
)
def test_a_private_name_elsewhere_is_caught(source, private_to_keras):
    assert uses(source, private_to_keras) == {"_flatten_layers"}


def test_the_package_exports_none_of_it():
    assert "keras_internals" not in keras_ext.__all__
