import keras
from keras import ops

from keras_ext.keras_internals import place_of
from keras_ext.optimizers.adjusted_update import AdjustedUpdate
from keras_ext.optimizers.kinds import matching, vectors
from keras_ext.optimizers.nested import innermost
from keras_ext.optimizers.parameterwise_lr import ParameterwiseLR


@keras.saving.register_keras_serializable(package="keras_ext")
class LayerAdaptation(AdjustedUpdate):
    """The update of any optimizer in proportion to the weight, as LAMB does with that of Adam.

    With v' the weight that the inner optimizer makes of v, and RMS the root mean square of all
    entries of a variable:

        u = (v' - v) / learning_rate
        v <- v + learning_rate phi(RMS(v)) / RMS(u) u

    phi is `clip`. Where phi(RMS(v)) or RMS(u) is 0, as for weights that start at 0 with no lower
    bound, `v <- v'`. Biases, gains of a normalisation, temperatures and all variables of at most
    one axis also become v'. So the learning rate is the relative change of a weight in one update.

    This is LAMB as published: u holds the weight decay. (`keras.optimizers.Lamb` leaves that
    outside of the ratio; without decay both are the same.) The bounds of phi are on the root mean
    square, not on the norm, so that one pair of them fits variables of all sizes. A multiplier of
    a `ParameterwiseLR` inside multiplies the learning rate here.

    u is the difference of two weights in their precision. What is lost where an update is below
    the spacing of the numbers, 1e-7 of the weight, scaling does not bring back: gradients as small
    as those of plain SGD can be, with a small learning rate, are to be scaled up first. Adam, Lion
    and others whose steps have the size of the learning rate are safe.

    What Tiger has and `keras.optimizers.Lion` lacks is this, with weights of 0 that move and half
    the rate for vectors (equal to Tiger without weight decay; with it, RMS(u) is not exactly 1):

        lion = keras.optimizers.Lion(1e-3, beta_1=0.965, beta_2=0.965)
        vectors = [["(bias|beta|gamma|gain|scale)$", 0.5]]
        optimizer = LayerAdaptation(
            ParameterwiseLR(lion, vectors), clip=[1e-3, None], rowwise="embeddings$"
        )

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        exclude: str, regular expression for the paths of the variables that become v', or None for
            the rule.
        clip: `[low, high]`, floats of at least 0 or None, the bounds of phi, or None for none.
        rowwise: str, regular expression for the paths of embedding tables, whose rows are adapted
            each by itself, or None for none.
        name: str.

    Raises:
        ValueError: if an argument is out of its range, a pattern matches no variable, or the inner
            optimizer cannot stand inside.

    Example:

    ```python
    import keras
    import keras_ext

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    adam = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
    optimizer = keras_ext.optimizers.LayerAdaptation(adam)
    model.compile(loss="mse", optimizer=optimizer)
    ```

    Reference:
        Yang You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes,
        2019, https://arxiv.org/abs/1904.00962
    """

    def __init__(self, inner_optimizer, exclude=None, clip=None, rowwise=None, name=None):
        super().__init__(inner_optimizer, name=name)
        if isinstance(innermost(self), keras.optimizers.MultiOptimizer):
            raise ValueError(
                "LayerAdaptation needs the learning rate, and a MultiOptimizer has several. "
                f"Expected an optimizer with one. Received: {inner_optimizer=}"
            )
        if clip is not None:
            bounds = [bound for bound in clip if bound is not None]
            if len(clip) != 2 or bounds != sorted(bounds) or not all(b >= 0 for b in bounds):
                raise ValueError(
                    "Expected clip to be [low, high], floats with 0 <= low <= high, or None. "
                    f"Received: {clip=}"
                )
        self.exclude = exclude
        self.clip = None if clip is None else list(clip)
        self.rowwise = rowwise

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._excluded = vectors(variables, self.exclude, "exclude")
        self._by_row = [False] * len(variables)
        if self.rowwise is not None:
            self._by_row = matching(variables, self.rowwise, "rowwise")

    def update(self, gradients, variables):
        # Taken before the update: a schedule has moved on after it.
        rate = ops.cast(self.learning_rate, "float32")
        self.adjusted_update(gradients, variables, [self._adjustment(v, rate) for v in variables])

    def _adjustment(self, variable, rate):
        index = place_of(variable, self)
        if self._excluded[index]:
            return None
        if isinstance(self.inner_optimizer, ParameterwiseLR):
            rate = rate * self.inner_optimizer.multiplier(variable)
        by_row = self._by_row[index] and len(variable.shape) > 1
        low, high = self.clip or (None, None)

        def adjust(before, after):
            step = after - before
            size = root_mean_square(before, by_row)
            size = size if low is None else ops.maximum(size, low)
            size = size if high is None else ops.minimum(size, high)
            relative = ops.divide_no_nan(root_mean_square(step, by_row), rate)
            adapts = ops.logical_and(size > 0, relative > 0)
            ratio = ops.cast(ops.divide_no_nan(size, relative), step.dtype)
            return ops.where(adapts, before + ratio * step, after)

        return adjust

    def get_config(self):
        own = {"exclude": self.exclude, "rowwise": self.rowwise}
        return {**super().get_config(), **own, "clip": self.clip and list(self.clip)}


def root_mean_square(x, by_row):
    """The root mean square of all entries, or of those of each row, (..., 1), in float32."""
    squares = ops.square(ops.cast(x, "float32"))
    return ops.sqrt(ops.mean(squares, axis=-1 if by_row else None, keepdims=by_row))
