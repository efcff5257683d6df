import keras
import numpy as np
from keras import ops

from keras_ext.keras_internals import trained_by
from keras_ext.ops.settings import effective, whole
from keras_ext.optimizers.finite import all_finite
from keras_ext.optimizers.non_finite_guard import NonFiniteGuard, add_counters, count
from keras_ext.optimizers.replicas import run_if
from keras_ext.optimizers.wrapper import OptimizerWrapper, checked_inner


@keras.saving.register_keras_serializable(package="keras_ext")
class GuardedLossScale(keras.optimizers.LossScaleOptimizer):
    """Scales the loss for float16, and keeps gradients that are not finite away from an optimizer.

    Small gradients vanish in float16, large ones overflow. So the loss is multiplied by a scale s,
    and the gradients, of every replica, are divided by it. Then a step is

    - good, if the squared norm of all gradients, on any replica, and the learning rate are finite:
      the inner optimizer is applied, and after `dynamic_growth_steps` good steps in a row
      `s <- min(2 s, max_scale)`;
    - bad, if not: `s <- max(s / 2, min_scale)`. The inner optimizer, its slots, `iterations` and
      the weights stay as they are, as if the batch had never been there.

    Where the scale cannot fall, at `min_scale` or with `dynamic=False`, a bad step is the fault of
    the batch: it is handed on if the inner optimizer is a `keras_ext.optimizers.NonFiniteGuard`,
    whose mode decides, and left out as above if not.

    Why the scale has bounds: 200 bad steps halve the scale of Keras' LossScaleOptimizer, whose
    subclass this is, to exactly 0. The next gradients are 0, divided by 0 they are NaN, and so are
    the weights. And doubling it without end gives infinity, which no halving undoes: from then on
    every step is bad.

    All scales are exact, and leave no trace in the gradients, if `initial_scale` and the bounds
    are powers of 2. The slots `skipped_steps`, all the bad steps so far, and `consecutive_skips`,
    those since the last good one, count every bad step once, whoever handles it, and are saved with
    the model. `keras_ext.callbacks.OptimizerMonitor` writes them into the logs.

    `compile` puts Keras' own loss scaling around an optimizer if the policy of the model is
    mixed_float16, around a bare one as around a NonFiniteGuard. These two lines prevent it:

        optimizer = keras_ext.optimizers.GuardedLossScale(optimizer)
        model.compile(optimizer=optimizer, ...)

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        initial_scale: float. The first steps halve one that is too high.
        dynamic_growth_steps: int of at least 1, good steps in a row before the scale is doubled,
            2000 by default. This and the two bounds are for a dynamic scale only.
        dynamic: bool. If False, the scale stays `initial_scale`. (In place of the argument
            `loss_scale_factor` of Keras' optimizers, which cannot train an Embedding.)
        min_scale: float, 2**-14 by default. 1.0 is enough where no gradient overflows without a
            scale. If many batches are bad in themselves, a lower one only costs small gradients,
            because it takes `dynamic_growth_steps` to undo each halving.
        max_scale: float, 2**24 by default.
        name: str.

    Raises:
        ValueError: if an argument is out of its range or has no effect, if not
            `0 < min_scale <= initial_scale <= max_scale`, or if the inner optimizer cannot stand
            inside.

    Example:

    >>> dense = keras.layers.Dense(1, dtype="mixed_float16")
    >>> model = keras.Sequential([keras.Input((8,)), dense])
    >>> optimizer = GuardedLossScale(keras.optimizers.Adam(1e-3), initial_scale=2.0**20)
    >>> model.compile(loss="mse", optimizer=optimizer)
    >>> history = model.fit(np.ones((32, 8)), np.full((32, 1), 9.0), verbose=0)
    >>> int(optimizer.skipped_steps), float(optimizer.dynamic_scale) == 2.0**19  # it was too high
    (1, True)

    Reference:
        Paulius Micikevicius et al., Mixed Precision Training, 2018,
        https://arxiv.org/abs/1710.03740
    """

    def __init__(
        self,
        inner_optimizer,
        initial_scale=2.0**15,
        dynamic_growth_steps=None,
        dynamic=True,
        min_scale=None,
        max_scale=None,
        name=None,
    ):
        inner_optimizer = checked_inner(inner_optimizer, type(self).__name__)
        if dynamic_growth_steps is not None:
            dynamic_growth_steps = whole("dynamic_growth_steps", dynamic_growth_steps)
        dynamic_growth_steps, min_scale, max_scale = (
            effective(name, value, default, "dynamic=True", bool(dynamic))
            for name, value, default in (
                ("dynamic_growth_steps", dynamic_growth_steps, 2000),
                ("min_scale", min_scale, 2.0**-14),
                ("max_scale", max_scale, 2.0**24),
            )
        )
        _check_scales(initial_scale, min_scale, max_scale)
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, name=name)
        self.dynamic = dynamic
        self.min_scale = min_scale
        self.max_scale = max_scale

    def build(self, variables):
        if self.built:
            return
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        keras.optimizers.Optimizer.build(self, variables)
        start = keras.initializers.Constant(self.initial_scale)
        self.dynamic_scale = self.add_variable((), start, "float32", name="dynamic_scale")
        self.step_counter = self.add_variable((), dtype="int", name="step_counter")
        add_counters(self)

    # What Keras' class does otherwise, and every wrapper of this package does.
    apply = OptimizerWrapper.apply
    stateless_apply = keras.optimizers.Optimizer.stateless_apply
    learning_rate = OptimizerWrapper.learning_rate
    exclude_from_weight_decay = OptimizerWrapper.exclude_from_weight_decay
    save_own_variables = OptimizerWrapper.save_own_variables
    load_own_variables = OptimizerWrapper.load_own_variables

    def update(self, gradients, variables):
        """One step: what `apply` does once the optimizer is built.

        Args:
            gradients: list of tensors, sparse gradients or None, of the scaled loss.
            variables: list of `keras.Variable`.
        """
        scale = ops.convert_to_tensor(self.dynamic_scale)
        gradients = [
            gradient
            if gradient is None or variable.overwrite_with_gradient
            else ops.divide(gradient, scale)
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        good = applied = all_finite(gradients, self.inner_optimizer)
        if isinstance(self.inner_optimizer, NonFiniteGuard):
            applied = ops.logical_or(good, scale <= self.min_scale) if self.dynamic else True
        run_if(
            applied,
            lambda gradients: self.inner_optimizer.apply(gradients, variables),
            gradients,
            self.variables + trained_by(self),
        )
        if self.dynamic:
            self._adapt(good, scale)
        count(self, good)

    def _adapt(self, good, scale):
        steps = ops.where(good, self.step_counter + 1, 0)
        grows = ops.equal(steps, self.dynamic_growth_steps)
        higher = ops.where(grows, ops.minimum(2.0 * scale, self.max_scale), scale)
        lower = ops.maximum(0.5 * scale, self.min_scale)
        self.dynamic_scale.assign(ops.where(good, higher, lower))
        self.step_counter.assign(ops.where(grows, 0, steps))

    def get_config(self):
        own = {name: getattr(self, name) for name in ("dynamic", "min_scale", "max_scale")}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return super().from_config(dict(config), custom_objects)  # which empties what it is given


def _check_scales(initial_scale, min_scale, max_scale):
    """Raises where scales are not numbers above 0, or contradict each other."""
    lowest = initial_scale if min_scale is None else min_scale
    highest = initial_scale if max_scale is None else max_scale
    smallest, largest = np.finfo("float32").tiny, np.finfo("float32").max
    if not smallest <= lowest <= initial_scale <= highest <= largest:
        raise ValueError(
            "Expected scales with 0 < min_scale <= initial_scale <= max_scale, finite in float32. "
            f"Received: {min_scale=}, {initial_scale=}, {max_scale=}"
        )
