import keras
import numpy as np
from keras import ops

from keras_ext.keras_internals import place_of, trained_by, without_missing
from keras_ext.ops.settings import whole
from keras_ext.optimizers.replicas import (
    on_all_replicas,
    on_first_replica,
    run_if,
    sum_over_replicas,
)
from keras_ext.optimizers.wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable(package="keras_ext")
class GradientAccumulation(OptimizerWrapper):
    """Makes one update of the mean gradient of several micro-batches.

    The gradients g of a window of k micro-batches are added up as they come, and with the last one
    the inner optimizer is applied once, to

        (g_1 + ... + g_k) / k

    So all that it does happens once per real update, as with a batch k times as large: weight
    decay, clipping (of the mean), averages of the weights, a step of its schedule, `iterations`.

    A window that an epoch leaves unfinished goes on in the next one, unless `flush` is called.

    The mean of means is the mean over the big batch only if every micro-batch counts the same. A
    loss that is averaged over tokens, or by sample weights, counts a micro-batch of few tokens as
    much as one of many: its tokens weigh more than they would in the big batch.

    A micro-batch that a loss scaling or a guard around this optimizer skips is not counted: the
    window takes one more. The state is one accumulator per weight, of its shape and dtype, beside
    that of the inner optimizer. The gradients of embeddings become dense in it: rows that a batch
    has several times are added up before the inner optimizer squares them. Several replicas
    exchange their gradients in every micro-step, so that a window can be saved and resumed.
    `keras_ext.optimizers.Tiger` accumulates without any of this memory.

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        steps: int of at least 1, k, micro-batches in an update.
        name: str.

    Raises:
        ValueError: if `steps` is not an int of at least 1; if the inner optimizer cannot stand
            inside this one, or accumulates itself; if a variable is trained by overwriting it
            (float8 layers); if not the same variables have a gradient in every step: also after a
            layer is frozen, which needs a new optimizer.

    Example:

    ```python
    import keras
    import keras_ext

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    adam = keras.optimizers.AdamW(3e-4, weight_decay=0.01, use_ema=True)
    optimizer = keras_ext.optimizers.GradientAccumulation(adam, steps=8)
    model.compile(loss="mse", optimizer=optimizer)
    ```
    """

    def __init__(self, inner_optimizer, steps, name=None):
        steps = whole("steps", steps)
        super().__init__(inner_optimizer, name=name)
        if getattr(self.inner_optimizer, "accumulation_steps", 1) > 1:
            raise ValueError(
                "Expected one accumulation: GradientAccumulation, or the argument "
                "gradient_accumulation_steps of Tiger, which needs less memory. Received: "
                f"inner_optimizer={self.inner_optimizer!r}, which accumulates, too"
            )
        self.steps = steps

    def build(self, variables):
        if self.built:
            return
        overwritten = [v.path for v in variables if v.overwrite_with_gradient]
        if overwritten:
            raise ValueError(
                "GradientAccumulation cannot train a layer in float8: the gradients of its scales "
                "are their new values, which have no sum. Expected variables without "
                f"overwrite_with_gradient. Received: {overwritten[:5]}"
            )
        super().build(variables)
        self._accumulators = self.add_optimizer_variables(variables, "accumulator")
        # "int" is int64 under TensorFlow, which keeps int32 variables on the host, where XLA on a
        # GPU cannot reach them.
        self.pending_steps = self.add_variable((), dtype="int", name="pending_steps")
        # Saved, so that `flush` knows what has no gradient before the first step after loading.
        self._given = self.add_variable((len(variables),), dtype="int", name="given")
        self._given_before = None

    def update(self, gradients, variables):
        gradients, variables = without_missing(gradients, variables, self)
        self._check_same_variables(variables)
        summed = sum_over_replicas(gradients)
        for gradient, variable in zip(summed, variables, strict=True):
            self.assign_add(self._accumulator(variable), gradient)
        self.pending_steps.assign_add(1)
        run_if(
            # More, if what was saved had longer windows.
            self.pending_steps >= self.steps,
            lambda _: self._apply_window(variables),
            [],
            self.variables + trained_by(self),
        )

    def flush(self):
        """Applies what an unfinished window holds, with its true count; nothing if it is empty.

        For callbacks, between two steps: `keras_ext.callbacks.OptimizerMonitor` calls it at the end
        of each epoch. Not for compiled functions.
        """
        if not self.built or int(ops.convert_to_numpy(self.pending_steps)) == 0:
            return
        given = ops.convert_to_numpy(self._given)
        variables = [trained_by(self)[i] for i in np.flatnonzero(given)]
        on_all_replicas(self, lambda: self._apply_window(variables))

    def _apply_window(self, variables):
        """The update: the mean over the micro-steps that are there. A new window begins."""
        accumulators = [self._accumulator(variable) for variable in variables]
        means = [ops.divide(a, ops.cast(self.pending_steps, a.dtype)) for a in accumulators]
        # Each replica knows the mean, and the inner optimizer adds up what the replicas give.
        self.inner_optimizer.apply(on_first_replica(means), variables)
        for accumulator in accumulators:
            accumulator.assign(ops.zeros(accumulator.shape, accumulator.dtype))
        self.pending_steps.assign(0)

    def _accumulator(self, variable):
        return self._accumulators[place_of(variable, self)]

    def _check_same_variables(self, variables):
        """A compiled step cannot ask which variables had a gradient in another one."""
        given = [0] * len(trained_by(self))
        for variable in variables:
            given[place_of(variable, self)] = 1
        if self._given_before not in (None, given):
            changed = np.flatnonzero(np.not_equal(given, self._given_before))[:5]
            paths = [trained_by(self)[i].path for i in changed]
            raise ValueError(
                "The steps of a window must give gradients of the same variables. Expected zeros "
                "where there is no gradient for once, or a new optimizer where other variables "
                f"are to be trained. Received: a gradient in only some of the steps for {paths}"
            )
        self._given_before = given
        self._given.assign(given)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}
