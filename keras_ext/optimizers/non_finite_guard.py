import keras
from keras import ops

from keras_ext.keras_internals import trained_by
from keras_ext.ops.settings import effective
from keras_ext.optimizers.finite import all_finite
from keras_ext.optimizers.kinds import center
from keras_ext.optimizers.replicas import run_if
from keras_ext.optimizers.wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable(package="keras_ext")
class NonFiniteGuard(OptimizerWrapper):
    """Keeps gradients that are not finite away from an optimizer, and counts them.

    A step is bad if the squared norm of all gradients, on any replica, or the learning rate is not
    finite. Then the inner optimizer, its slots and `iterations` stay as they are, as if the batch
    had never been there; and each weight v

    - with mode="skip" stays, too;
    - with mode="shrink" becomes `c + shrink_ratio (v - c)`, c = 1 for the scale of a
      normalisation and 0 for all others. This heals weights that have grown until the model
      overflows, and ruins good ones where the data is bad: 200 bad steps leave 13 % of them.

    It costs one pass over the gradients and two integers. The slots `skipped_steps`, all the bad
    steps so far, and `consecutive_skips`, those since the last good one, are saved with the model.
    `keras_ext.callbacks.OptimizerMonitor` writes them into the logs, and stops training that does
    nothing but skip.

    The loss of a bad batch still enters the mean loss that Keras reports, which may be NaN for
    that epoch. Weights that no gradient trains, such as the moving statistics of a
    BatchNormalization, change in the forward pass: no optimizer can protect those, the
    OptimizerMonitor checks them. A good step can still be one too large: clip gradients inside.

    Under mixed_float16, `compile` puts Keras' loss scaling around this, which skips steps itself,
    does not count them, and sees one replica only: pass
    `keras_ext.optimizers.GuardedLossScale` there.

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        mode: "skip" or "shrink".
        shrink_ratio: float in [0, 1], what remains of the distance to c, 0.99 by default. For
            mode="shrink" only.
        name: str.

    Raises:
        ValueError: if an argument is out of its range or has no effect, or if the inner optimizer
            cannot stand inside.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    >>> optimizer = NonFiniteGuard(keras.optimizers.Adam(1e-3))
    >>> model.compile(loss="mse", optimizer=optimizer)
    >>> x = np.ones((32, 8))
    >>> x[0] = np.nan
    >>> history = model.fit(x, np.ones((32, 1)), batch_size=8, verbose=0)
    >>> int(optimizer.skipped_steps), int(optimizer.iterations)
    (1, 3)

    Reference:
        Shrinking: Su Jianlin, Tiger: A Tight-fisted Optimizer, 2023,
        https://kexue.fm/archives/9512
    """

    def __init__(self, inner_optimizer, mode="skip", shrink_ratio=None, name=None):
        if mode not in ("skip", "shrink"):
            raise ValueError(f'Expected mode "skip" or "shrink". Received: {mode=}')
        shrinks = 'mode="shrink"', mode == "shrink"
        shrink_ratio = effective("shrink_ratio", shrink_ratio, 0.99, *shrinks)
        if shrink_ratio is not None and not 0 <= shrink_ratio <= 1:
            raise ValueError(f"Expected shrink_ratio in [0, 1]. Received: {shrink_ratio=}")
        super().__init__(inner_optimizer, name=name)
        self.mode = mode
        self.shrink_ratio = shrink_ratio

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        add_counters(self)

    def update(self, gradients, variables):
        state = self.variables + trained_by(self)
        good = all_finite(gradients, self.inner_optimizer)
        run_if(good, lambda grads: self.inner_optimizer.apply(grads, variables), gradients, state)
        if self.mode == "shrink":
            run_if(ops.logical_not(good), lambda _: self._shrink(variables), [], state)
        count(self, good)

    def _shrink(self, variables):
        for variable in variables:
            middle = center(variable)
            value = middle + self.shrink_ratio * (variable - middle)
            self.assign(variable, value)
            if variable.constraint is not None:
                self.assign(variable, variable.constraint(variable))

    def get_config(self):
        own = {"mode": self.mode, "shrink_ratio": self.shrink_ratio}
        return {**super().get_config(), **own}


def add_counters(optimizer):
    """Adds the slots that `count` writes."""
    for name in ("skipped_steps", "consecutive_skips"):
        setattr(optimizer, name, optimizer.add_variable((), dtype="int", name=name))


def count(optimizer, good):
    """Counts a step, if it is bad: in all, and in a row."""
    bad = 1 - ops.cast(good, optimizer.skipped_steps.dtype)
    optimizer.skipped_steps.assign_add(bad)
    optimizer.consecutive_skips.assign(bad * (optimizer.consecutive_skips + 1))
