import warnings

import keras
from keras import ops

from keras_ext.keras_internals import AllAtOnce, averages, clipped, place_of, trained_by
from keras_ext.ops.settings import whole
from keras_ext.optimizers.non_finite_guard import add_counters, count
from keras_ext.optimizers.replicas import run_if, sum_over_replicas, values_of, with_values
from keras_ext.optimizers.tiger_rules import ARGUMENTS, check_arguments, rules, usable, zeros_for
from keras_ext.optimizers.wrapper import checked_rate

HALF = ("float16", "bfloat16")


@keras.saving.register_keras_serializable(package="keras_ext")
class Tiger(AllAtOnce, keras.optimizers.Optimizer):
    """Tiger: the sign of one momentum, which also accumulates the gradients.

    With the gradients g of k micro-batches, `m <- beta m + (1 - beta) mean(g)`, and then

        v <- v - eta (sign(m) + weight_decay v)

    - a bias, the gain of a normalisation, a temperature, or a variable of at most one axis:
      `eta = vector_lr_scale learning_rate`, no weight decay;
    - an embedding table: `eta = learning_rate max(RMS(row), min_rms)` for each row;
    - any other: `eta = learning_rate max(RMS(v), min_rms)`, RMS the root mean square.

    So the learning rate is the relative change of a weight. The state is one slot per weight for
    any k: the momentum is the accumulator, which that of Lion, with its two betas, cannot be. It is
    kept as m times `k / (1 - beta)`, as a sign needs no scale: a micro-step only adds its gradient.
    `iterations` and schedules count updates. A window that an epoch ends goes on in the next;
    `position` counts its micro-steps so far, all of them with gradients of the same variables.

    A micro-gradient of a variable that is not finite, or beyond about 1e19, is left out. A variable
    without a good one in the window stays as it is, and so does its momentum. `skipped_steps` and
    `consecutive_skips` count the steps in which that, or a rate that is not finite, befell any
    variable; `keras_ext.callbacks.OptimizerMonitor` shows them. Inside a loss scaling such steps are
    skipped before they come here. With nonfinite="shrink", the author's way, such a variable
    shrinks a little instead, which heals weights that have grown until the model overflows. Where
    it is the data that is bad, it ruins good weights: 200 bad batches leave 13 % of them.

    `clipnorm` and its like clip micro-gradients. The weights should be float32, as they are under
    every `mixed_` policy.

    Args:
        learning_rate: float, a schedule, or a callable. The author suggests 1e-3 to 2e-3.
        beta: float in [0, 1), decay of the momentum: 0.965 for text, 0.945 for images.
        weight_decay: float, relative to `eta`; `exclude_from_weight_decay` is heeded.
        gradient_accumulation_steps: int of at least 1, k, or None for 1. If a saved optimizer goes
            on with another, at the end of a window, its memory counts k_old / k_new at first.
        scale_parameter: bool, whether rates depend on the variable. Else `learning_rate` is all.
        vector_lr_scale: float, 0.5 by default. This and the next are for scale_parameter alone.
        min_rms: float, 1e-3 by default. With 0 a matrix of zeros would never move.
        rowwise: str, regular expression for the paths of the tables that are scaled by rows; by
            default of those whose last part ends so.
        vector_vars: str, that of the paths of what is treated as a bias, or None for the rule.
        center_one_vars: str, that of what shrinks to 1, not 0; None is for gains. This is for what
            shrinks alone, as is shrink_ratio.
        nonfinite: "skip" (no update then), "shrink", "propagate" (no check) or "reference": as
            published, it looks for NaN only, shrinks at once, and a last bad one costs the update.
        nonfinite_scope: "variable", the default, or "global": what is left out for its variable,
            or for all. Without a meaning if they propagate.
        shrink_ratio: float in [0, 1], what remains of the distance to the centre, by default 0.99.
        lazy_rows: bool, whether rows of a table without a gradient in the window stay as they
            are. Else the momentum moves also the rows of words that did not occur.
        count_micro_steps: bool, whether `iterations` and schedules count micro-steps instead.
        name: str.
        **kwargs: those of `keras.optimizers.Optimizer`, but `loss_scale_factor`.

    Raises:
        ValueError: if an argument is out of its range or has no effect, a pattern matches no
            variable, or a saved state is that of other variables.

    Example:

    ```python
    import keras
    import keras_ext

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    # In place of AdamW(3e-4, gradient_accumulation_steps=8):
    optimizer = keras_ext.optimizers.Tiger(1e-3, gradient_accumulation_steps=8)
    model.compile(loss="mse", optimizer=optimizer)
    ```

    The published code is `min_rms=0.0, vector_vars="bias|beta|gamma", center_one_vars="gamma",
    nonfinite="reference", count_micro_steps=True`.

    Reference:
        Su Jianlin, Tiger: A Tight-fisted Optimizer, 2023, https://kexue.fm/archives/9512
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta=0.965,
        weight_decay=0.01,
        gradient_accumulation_steps=None,
        scale_parameter=True,
        vector_lr_scale=None,
        min_rms=None,
        rowwise="embeddings",
        vector_vars=None,
        center_one_vars=None,
        nonfinite="skip",
        nonfinite_scope=None,
        shrink_ratio=None,
        lazy_rows=False,
        count_micro_steps=False,
        name="tiger",
        **kwargs,
    ):
        arguments = locals()
        super().__init__(
            checked_rate(learning_rate), weight_decay=weight_decay, name=name, **kwargs
        )
        # Not the attribute of Keras, for which it would make a slot.
        self._given_steps = gradient_accumulation_steps
        if self._given_steps is not None:
            self._given_steps = whole("gradient_accumulation_steps", self._given_steps)
        self.accumulation_steps = self._given_steps or 1
        for argument in ARGUMENTS:
            setattr(self, argument, arguments[argument])
        check_arguments(self)

    def build(self, variables):
        if self.built:
            return
        super().build(list(variables))  # a tuple from some callers
        self._rules = rules(self, variables)
        self._momentums = add_momentums(self, variables)
        self._touched = [
            self.add_variable((*v.shape[:-1], 1), name=f"touched_{i}") if rule.lazy else None
            for i, (v, rule) in enumerate(zip(variables, self._rules, strict=True))
        ]
        # Which variables have had a usable gradient in this window, and its micro-steps so far.
        self._good = self.add_variable((len(variables),), dtype="bool", name="good")
        self.position = self.add_variable((), dtype="int", name="position")
        add_counters(self)

    def update(self, gradients, variables):
        """One step: what `apply` does with the gradients that are there.

        Args:
            gradients: list of tensors or sparse gradients, of this replica.
            variables: list of `keras.Variable`.
        """
        indices = [place_of(variable, self) for variable in variables]
        gradients = sum_over_replicas(gradients)
        if self.nonfinite != "propagate":
            gradients = self._without_bad(gradients, indices)
        if self.nonfinite == "reference":
            self._as_published(indices)
        self._add(clipped(gradients, self), indices)

        def move(_):
            learning_rate = ops.convert_to_tensor(self.learning_rate)
            for index in indices:
                self._move(index, learning_rate)
            if self.use_ema:
                self._average()
            self._good.assign(ops.zeros(self._good.shape, "bool"))

        ends = self.position >= self.accumulation_steps - 1
        if self.accumulation_steps == 1:
            move(None)
        else:
            run_if(ends, move, [], self.variables + trained_by(self))
        self.position.assign(ops.where(ends, 0, self.position + 1))
        if not self.count_micro_steps:
            # Keras adds 1 in every micro-step.
            self.iterations.assign_sub(1 - ops.cast(ends, self.iterations.dtype))

    def _without_bad(self, gradients, indices):
        """Zeros in place of the gradients that do not count; the slot `good` knows of the others."""
        counts = usable(gradients, self.nonfinite, self.nonfinite_scope)
        known = dict(zip(indices, counts, strict=True))
        good = ops.stack([known.get(i, False) for i in range(len(self._rules))])
        if self.nonfinite != "reference":
            good = ops.logical_or(good, self._good)
        self._good.assign(good)
        count(
            self,
            ops.all(ops.stack([*counts, ops.isfinite(ops.convert_to_tensor(self.learning_rate))])),
        )
        return zeros_for(gradients, counts)

    def _add(self, gradients, indices):
        """Adds gradients to the momentum, and marks the rows that received one."""
        for index, gradient in zip(indices, gradients, strict=True):
            self.assign_add(self._momentums[index], gradient)
            if self._touched[index] is not None:
                rows = ops.any(ops.not_equal(values_of(gradient), 0.0), axis=-1, keepdims=True)
                rows = with_values(gradient, ops.cast(rows, "float32"))
                self.assign_add(self._touched[index], rows)

    def _as_published(self, indices):
        """A bad micro-step shrinks at once, and one that begins a window forgets the decay."""
        for index in indices:
            variable, momentum = trained_by(self)[index], self._momentums[index]
            good = self._good[index]
            shrink = ops.cast(ops.where(good, 0.0, 1.0 - self.shrink_ratio), variable.dtype)
            self.assign_sub(variable, shrink * (variable - self._rules[index].center))
            decays = ops.logical_and(good, ops.equal(self.position, 0))
            keep = ops.cast(ops.where(decays, self.beta, 1.0), momentum.dtype)
            self.assign(momentum, momentum * keep)

    def _move(self, index, learning_rate):
        """The update of one variable at the end of a window."""
        variable, momentum = trained_by(self)[index], self._momentums[index]
        rule, touched, dtype = self._rules[index], self._touched[index], momentum.dtype
        value = ops.cast(variable, dtype)
        rate = rule.rate(value, ops.cast(learning_rate, dtype), self.min_rms)
        keep, shrink = self.beta, 0.0
        if self.nonfinite != "propagate":
            good = self._good[index]
            moves = ops.logical_and(good, ops.isfinite(rate))
            rate = ops.where(moves, rate, ops.zeros_like(rate))
            keep = ops.cast(ops.where(good, self.beta, 1.0), dtype)
        if touched is not None:
            rate = rate * ops.cast(touched > 0, dtype)
            self.assign(touched, ops.zeros(touched.shape))
        if self.nonfinite == "shrink":
            shrink = ops.cast(ops.where(good, 0.0, 1.0 - self.shrink_ratio), dtype)
        self.assign_sub(variable, rule.step(value, momentum, rate, shrink))
        if self.nonfinite != "reference":
            self.assign(momentum, momentum * keep)

    def _average(self):
        """The average of the weights, and the weights in its place, once an update."""
        updates = self.iterations // (self.accumulation_steps if self.count_micro_steps else 1)
        for variable, average in zip(trained_by(self), averages(self), strict=True):
            if average is None:
                continue
            keep = ops.cast(ops.where(updates > 0, self.ema_momentum, 0.0), average.dtype)
            new = keep * average + (1.0 - keep) * variable
            self.assign(average, new)
            if self.ema_overwrite_frequency:
                due = ops.equal((updates + 1) % self.ema_overwrite_frequency, 0)
                self.assign(variable, ops.where(due, new, ops.convert_to_tensor(variable)))

    @property
    def learning_rate(self):
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        keras.optimizers.Optimizer.learning_rate.fset(self, checked_rate(learning_rate))

    def load_own_variables(self, store):
        check_slots(self, store)
        super().load_own_variables(store)

    def get_config(self):
        own = {name: getattr(self, name) for name in ARGUMENTS}
        steps = {"gradient_accumulation_steps": self._given_steps}
        return {**super().get_config(), **own, **steps}


def add_momentums(optimizer, variables):
    """Adds the slots in which the gradients are summed up.

    Half precision would be too coarse for sums. It is too coarse for weights as well: they are
    rounded to where they were. So it warns of them.
    """
    half = [variable.path for variable in variables if variable.dtype in HALF]
    if half:
        warnings.warn(
            "A weight in half precision does not move by less than its spacing, 0.1 to 1 %: "
            "training may stand still. Expected float32 weights, as under mixed_float16. "
            f"Received: {half[:5]}",
            stacklevel=3,
        )
    return [
        optimizer.add_variable(variable.shape, dtype="float32", name="momentum")
        if variable.dtype in HALF
        else optimizer.add_variable_from_reference(variable, name="momentum")
        for variable in variables
    ]


def check_slots(optimizer, store):
    """Raises where a saved state is not that of the variables of an optimizer.

    Args:
        optimizer: a built Keras optimizer.
        store: dict-like of arrays, as `load_own_variables` takes.

    Raises:
        ValueError: as it says.
    """
    keys = set(store.keys())
    saved = [tuple(store[str(i)].shape) for i in range(len(keys)) if str(i) in keys]
    expected = [tuple(variable.shape) for variable in optimizer.variables]
    # One that was saved before it was built has a count and a rate. Keras passes over it.
    if optimizer.built and len(saved) > 2 and saved != expected:
        raise ValueError(
            "The saved state is that of another optimizer or of a model of other shape. Expected "
            f"slots of the shapes {expected}. Received: {saved}"
        )
