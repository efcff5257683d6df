"""What the harness must know of each kind of object: how to make, call and save one.

A row of the sweep table is an object's class, its arguments and the arrays to call it with. All
kinds are called as pure functions of weights and inputs, so that one check serves all of them and
both backends.
"""

from dataclasses import dataclass, field

import keras
import numpy as np
from keras import ops, tree
from reload_saved import train

from keras_ext.ops import mask_value

LENGTH = 7
"""Tokens of a sequence. No other size in the table is 7: it marks the time axes of an output."""


@dataclass(frozen=True, eq=False)
class Row:
    """One object under test.

    Args:
        cls: Its class, or the registered function itself.
        arguments: The arguments of its own, by name.
        inputs: The call arguments by name, NumPy arrays; for an encoder one dict. What is
            floating point is differentiated with respect to.
        note: What tells rows of one class apart.
    """

    cls: type
    arguments: dict = field(default_factory=dict)
    inputs: dict = field(default_factory=dict)
    note: str = ""

    general = {}
    """Arguments of the base class, off their defaults; each must be in the config, too."""
    differentiable = True

    def __str__(self):
        return self.cls.__name__ + (f"-{self.note}" if self.note else "")

    def make(self, policy="float32", **general):
        return self.cls(**self.arguments, **general)

    def passed(self, policy):
        """The arguments of an object that is made under a policy."""
        return self.arguments

    def weights(self, subject):
        """The tensors to differentiate with respect to, besides the inputs."""
        return []

    def inputs_in(self, policy):
        """The inputs as they come under a dtype policy: scores in its compute dtype."""
        dtype = keras.DTypePolicy(policy).compute_dtype

        def cast(x):
            if x.dtype.kind != "f":
                return ops.convert_to_tensor(x)
            # A masked score is the lowest number of float16, not -inf.
            return ops.cast(np.where(x <= -1e29, np.float32(mask_value(dtype)), x), dtype)

        return tree.map_structure(cast, self.inputs)


class LayerRow(Row):
    """A layer, or an encoder (a functional model)."""

    general = {"name": "renamed", "trainable": False}

    def make(self, policy="float32", **general):
        return self.cls(**self.arguments, dtype=keras.DTypePolicy(policy), **general)

    def built(self, policy="float32"):
        """The layer with weights that are random: no bias is 0, no scale 1."""
        layer = self.make(policy)
        self.build(layer)
        rng = np.random.default_rng(0)
        for weight in layer.trainable_variables:
            weight.assign(rng.normal(size=weight.shape, scale=0.3))
        return layer

    def build(self, layer):
        if not layer.built:
            layer.build(tree.map_structure(lambda x: x.shape, self.split(self.inputs)[0]))

    def split(self, inputs):
        """The first call argument and the others by name."""
        first, *names = self.inputs  # JAX sorts the names of `inputs`
        return inputs[first], {name: inputs[name] for name in names}

    def weights(self, subject):
        return [variable.value for variable in subject.trainable_variables]

    def call(self, subject, weights, inputs):
        # `stateless_call` would pass over `__call__`, which casts to the compute dtype.
        state = zip(subject.trainable_variables, weights, strict=True)
        first, others = self.split(inputs)
        with keras.StatelessScope(state):
            return subject(first, **others)

    def symbolic(self, subject, policy, shape=lambda x: (None, None, *x.shape[2:])[: x.ndim]):
        """The output that is promised, for inputs of open batch and length."""
        first, others = self.split(
            tree.map_structure(
                lambda x: keras.KerasTensor(shape(x), keras.backend.standardize_dtype(x.dtype)),
                self.inputs_in(policy),
            )
        )
        return subject(first, **others)

    def saved_model(self, policy):
        subject = self.built(policy)
        if isinstance(subject, keras.Model):
            return subject
        symbols = {
            name: keras.Input((None, *x.shape[2:])[: x.ndim - 1], dtype=str(x.dtype), name=name)
            for name, x in by_name(self.inputs).items()
        }
        inputs = {
            name: [symbols[part] for part in by_name({name: x})]
            if isinstance(x, list)
            else symbols[name]
            for name, x in self.inputs.items()
        }
        first, others = self.split(inputs)
        return keras.Model(symbols, subject(first, **others))


class AroundRow(LayerRow):
    """A model that is made around the network among its arguments."""

    def passed(self, policy):
        # A network that stands inside serves one model only, and has its policy.
        network = self.arguments["network"]
        config = {**network.get_config(), "dtype": policy}
        return {**self.arguments, "network": type(network).from_config(config)}

    def make(self, policy="float32", **general):
        return self.cls(**self.passed(policy), dtype=keras.DTypePolicy(policy), **general)

    def symbolic(self, subject, policy, shape=None):
        # The shape of a sample is that of the network. JAX knows how many random numbers it draws.
        def open_batch(x):
            return (None if keras.backend.backend() == "tensorflow" else len(x), *x.shape[1:])

        return super().symbolic(subject, policy, shape or open_batch)


class RecurrentRow(LayerRow):
    """A recurrent layer. A cell is built with it and serves one layer only."""

    general = {**LayerRow.general, "return_state": True}

    def make(self, policy="float32", **general):
        cells = {
            name: value.from_config(value.get_config())
            for name, value in self.arguments.items()
            if name == "cell"
        }
        arguments = {**self.arguments, **cells, **general}
        return self.cls(**arguments, dtype=keras.DTypePolicy(policy))


def by_name(inputs):
    """The inputs as a flat dict: the parts of a list are numbered."""
    flat = {}
    for name, x in inputs.items():
        listed = isinstance(x, list)
        flat |= {f"{name}_{i}": part for i, part in enumerate(x)} if listed else {name: x}
    return flat


@dataclass(frozen=True, eq=False)
class PartRow(Row):
    """An object that a layer is made with: an initializer, a scale of attention.

    Args:
        layer: Function of the object that gives a layer; `inputs` are its inputs.
    """

    layer: object = None

    __str__ = Row.__str__

    def saved_model(self, policy):
        keras.utils.set_random_seed(0)
        (x,) = self.inputs.values()
        inputs = {name: keras.Input(x.shape[1:], name=name) for name in self.inputs}
        (symbol,) = inputs.values()
        return keras.Model(inputs, self.layer(self.make())(symbol))


class LossRow(Row):
    """A loss: the gradient is that of the scores, which come in the compute dtype."""

    general = {"name": "renamed", "reduction": "none"}

    def built(self, policy="float32"):
        return self.make()

    def call(self, subject, weights, inputs):
        return subject.call(**inputs)

    def symbolic(self, subject, policy):
        return keras.KerasTensor((None,), "float32")

    def saved_model(self, policy):
        return self.compiled_model(policy, loss=self.make())

    def compiled_model(self, policy, **arguments):
        """A model that hands the scores on, compiled with this object."""
        dtype = keras.DTypePolicy(policy).compute_dtype
        scores = keras.Input(self.inputs["y_pred"].shape[1:], dtype=dtype)
        model = keras.Model(scores, keras.layers.Identity(dtype=policy)(scores))
        model.compile(**arguments)
        return model


class MetricRow(LossRow):
    """A metric, called as update and result from a fresh state."""

    general = {"name": "renamed"}
    differentiable = False

    def call(self, subject, weights, inputs):
        state = [ops.zeros(v.shape, v.dtype) for v in subject.variables]
        state = subject.stateless_update_state(state, **inputs)
        return subject.stateless_result(subject.stateless_update_state(state, **inputs))

    def symbolic(self, subject, policy):
        return keras.KerasTensor((), "float32")

    def saved_model(self, policy):
        return self.compiled_model(policy, metrics=[self.make()])


class FunctionRow(Row):
    """A registered function of one tensor that keeps shape and dtype."""

    def built(self, policy="float32"):
        return self.cls

    def call(self, subject, weights, inputs):
        return subject(**inputs)

    def symbolic(self, subject, policy):
        (x,) = self.inputs.values()
        return keras.KerasTensor(x.shape, keras.DTypePolicy(policy).compute_dtype)

    def saved_model(self, policy):
        (x,) = self.inputs.values()
        inputs = {name: keras.Input(x.shape[1:], name=name) for name in self.inputs}
        (symbol,) = inputs.values()
        return keras.Model(inputs, keras.layers.Activation(self.cls, dtype=policy)(symbol))


class OptimizerRow(Row):
    """An optimizer. `inputs` are batches to train on: `train_x` and `train_y`, (steps, b, ...)."""

    general = {"name": "renamed"}

    def make(self, policy="float32", **general):
        # An optimizer that stands inside serves one model only.
        arguments = {
            name: value.from_config(value.get_config()) if hasattr(value, "get_config") else value
            for name, value in self.arguments.items()
        }
        return self.cls(**arguments, **general)

    def optimizer(self):
        return self.make()

    def build(self, optimizer):
        optimizer.build(self.model().trainable_variables)

    def model(self, policy="float32"):
        """A small model with weights of all kinds; the gradient of its table is sparse."""
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input(self.inputs["train_x"].shape[2:], dtype="int32"),
                # Wide enough that the first scale of the loss overflows nowhere in float16.
                keras.layers.Embedding(
                    6, 4, keras.initializers.RandomNormal(stddev=1.0), name="table", dtype=policy
                ),
                keras.layers.LayerNormalization(name="norm", dtype=policy),
                keras.layers.Flatten(dtype=policy),
                keras.layers.Dense(3, name="dense", dtype=policy),
            ]
        )
        model.dtype_policy = policy  # by which `compile` decides on loss scaling
        return model

    def compiled_model(self, policy):
        model = self.model(policy)
        # Without compiling, which is quick, save in JAX, which compiles each condition anew.
        eager = keras.backend.backend() == "tensorflow"
        model.compile(self.optimizer(), "mse", run_eagerly=eager)
        return model

    def saved_model(self, policy):
        model = self.compiled_model(policy)
        train(model, self.inputs["train_x"][:3], self.inputs["train_y"][:3])
        return model


class ScheduleRow(OptimizerRow):
    """A schedule of the learning rate, which plain gradient descent follows."""

    general = {}

    def optimizer(self):
        return keras.optimizers.SGD(self.make())

    def build(self, schedule):
        pass
