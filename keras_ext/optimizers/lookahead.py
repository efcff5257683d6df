import keras
from keras import ops

from keras_ext.keras_internals import trained_by
from keras_ext.ops.settings import whole
from keras_ext.optimizers.adjusted_update import AdjustedUpdate
from keras_ext.optimizers.replicas import run_if


@keras.saving.register_keras_serializable(package="keras_ext")
class Lookahead(AdjustedUpdate):
    """Slow weights, which go a part of the way that the inner optimizer has gone.

    The slow weights s begin as the weights v. After every `sync_period` updates of the inner
    optimizer, those that `iterations` counts,

        s <- s + slow_step_size (v - s)
        v <- s

    The state is one slot per weight beside that of the inner optimizer. The slots of that are not
    changed when the weights are.

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        sync_period: int of at least 1, updates between two steps of the slow weights.
        slow_step_size: float in (0, 1]. With 1 the inner optimizer is left alone.
        name: str.

    Raises:
        ValueError: if an argument is out of its range, or the inner optimizer cannot stand inside.

    Example:

    ```python
    import keras
    import keras_ext

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    optimizer = keras_ext.optimizers.Lookahead(keras.optimizers.Adam(1e-3), sync_period=5)
    model.compile(loss="mse", optimizer=optimizer)
    ```

    Reference:
        Michael Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, 2019,
        https://arxiv.org/abs/1907.08610
    """

    def __init__(self, inner_optimizer, sync_period=5, slow_step_size=0.5, name=None):
        super().__init__(inner_optimizer, name=name)
        sync_period = whole("sync_period", sync_period)
        if not 0 < slow_step_size <= 1:
            raise ValueError(f"Expected slow_step_size in (0, 1]. Received: {slow_step_size=}")
        self.sync_period = sync_period
        self.slow_step_size = slow_step_size

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._slow = self.add_optimizer_variables(variables, "slow")
        # Weights may be loaded after the optimizer was built: the first step takes what is there.
        self._started = self.add_variable((), dtype="int", name="started")

    def update(self, gradients, variables):
        state = self.variables + trained_by(self)
        first = self.is_first_update()
        before = ops.copy(self.iterations)
        unstarted = ops.equal(ops.copy(self._started), 0)
        run_if(unstarted, lambda _: self._start(), [], state)
        self.inner_optimizer.apply(gradients, variables)
        updates = ops.copy(self.iterations)
        due = ops.logical_and(updates > before, ops.equal(updates % self.sync_period, 0))
        run_if(due, lambda _: self._synchronise(first), [], state)

    def _pairs(self):
        """All weights and their slow ones. One that is trained by overwriting it has none."""
        pairs = zip(trained_by(self), self._slow, strict=True)
        return [(variable, slow) for variable, slow in pairs if slow is not None]

    def _start(self):
        self._started.assign(1)
        for variable, slow in self._pairs():
            slow.assign(variable)

    def _synchronise(self, first):
        for variable, slow in self._pairs():
            slow.assign(slow + self.slow_step_size * (variable - slow))
            self.replace(variable, slow, first)

    def get_config(self):
        own = {"sync_period": self.sync_period, "slow_step_size": self.slow_step_size}
        return {**super().get_config(), **own}
