import math

import keras
from keras import ops

from keras_ext.keras_internals import place_of
from keras_ext.optimizers.adjusted_update import AdjustedUpdate
from keras_ext.optimizers.kinds import matching
from keras_ext.optimizers.nested import innermost
from keras_ext.optimizers.replicas import is_sparse, sum_over_replicas, values_of


@keras.saving.register_keras_serializable(package="keras_ext")
class ParameterwiseLR(AdjustedUpdate):
    """Another learning rate for some of the weights: multiples of that of the inner optimizer.

    With the multiplier c of the first rule that matches, 1 if none does, and v' the weight that
    the inner optimizer makes of v:

        v <- v + c (v' - v)

    Updates are linear in the learning rate, so this is the update with the rate `c learning_rate`.
    (Not quite for three: a weight with a constraint, since v' fulfils it already; Lamb and
    Adafactor with weight decay, which measure a weight that has decayed; the bound of Adafactor's
    relative steps.) c = 0 leaves a weight as it is to the bit, but slots and gradient are still
    computed: `trainable = False` is cheaper. The cost is a copy of the weights that have a rule,
    during the step. For different optimizers rather than rates there is
    `keras.optimizers.MultiOptimizer`, which may stand inside.

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        rules: list of `[pattern, multiplier]`: a regular expression for `re.search` on the path
            of a variable, and a finite float of at least 0. `layerwise_decay` makes such a list.
        lazy_rows: str or None, regular expression for the paths of embedding tables, (rows, d),
            whose rows stay as they are where the gradient of the update is 0. Else an optimizer
            with momentum moves also the rows of words that did not occur. Their slots fade all
            the same. Variables of one axis are not meant.
        name: str.

    Raises:
        ValueError: if a multiplier is out of its range, a pattern matches no variable, or the
            inner optimizer cannot stand inside.

    Example:

    ```python
    import keras
    import keras_ext

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    optimizer = keras_ext.optimizers.ParameterwiseLR(
        keras.optimizers.AdamW(1e-3), [["bias$", 2.0], [f"{model.layers[0].name}/", 0.1]]
    )
    model.compile(loss="mse", optimizer=optimizer)
    ```

    Reference:
        Lazy rows: Su Jianlin, on the embeddings of sign optimizers, 2023,
        https://kexue.fm/archives/9736
    """

    def __init__(self, inner_optimizer, rules, lazy_rows=None, name=None):
        super().__init__(inner_optimizer, name=name)
        for rule in rules:
            valid = len(rule) == 2 and isinstance(rule[0], str) and not isinstance(rule[1], str)
            if not valid or not math.isfinite(rule[1]) or rule[1] < 0:
                raise ValueError(
                    "Expected rules of a pattern and a finite multiplier of at least 0. "
                    f"Received: {rule=}"
                )
        if lazy_rows is not None and hasattr(innermost(self), "lazy_rows"):
            raise ValueError(
                "Tiger knows best which rows received a gradient. Expected its own argument "
                f"lazy_rows in place of that of ParameterwiseLR. Received: {lazy_rows=}"
            )
        self.rules = [[pattern, float(multiplier)] for pattern, multiplier in rules]
        self.lazy_rows = lazy_rows

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._multipliers = [1.0] * len(variables)
        for pattern, multiplier in reversed(self.rules):  # the first rule wins, so it comes last
            for i, found in enumerate(matching(variables, pattern, "rules")):
                self._multipliers[i] = multiplier if found else self._multipliers[i]
        self._lazy = [False] * len(variables)
        if self.lazy_rows is not None:
            self._lazy = matching(variables, self.lazy_rows, "lazy_rows")

    def multiplier(self, variable):
        """The multiplier of a variable.

        Args:
            variable: a `keras.Variable` that the optimizer was built with.

        Returns:
            float.
        """
        return self._multipliers[place_of(variable, self)]

    def update(self, gradients, variables):
        touched = sum_over_replicas(
            [
                rows_with_gradient(gradient, variable) if self._is_lazy(variable) else None
                for gradient, variable in zip(gradients, variables, strict=True)
            ]
        )
        adjustments = [
            adjustment(self.multiplier(variable), rows)
            for variable, rows in zip(variables, touched, strict=True)
        ]
        self.adjusted_update(gradients, variables, adjustments)

    def _is_lazy(self, variable):
        return self._lazy[place_of(variable, self)] and len(variable.shape) > 1

    def get_config(self):
        rules = [list(rule) for rule in self.rules]
        return {**super().get_config(), "rules": rules, "lazy_rows": self.lazy_rows}


def adjustment(multiplier, touched):
    """What `AdjustedUpdate` does to one variable: a function of before and after, or None.

    Args:
        multiplier: float.
        touched: (rows, 1, ...), 0 for the rows that stay as they are, or None: none does.
    """
    if multiplier == 0:
        return lambda before, after: before
    if multiplier == 1 and touched is None:
        return None

    def adjust(before, after):
        final = after if multiplier == 1 else before + multiplier * (after - before)
        return final if touched is None else ops.where(touched > 0, final, before)

    return adjust


def rows_with_gradient(gradient, variable):
    """How often a row of a table received a gradient that is not 0.

    Args:
        gradient: tensor of the shape of the table, sparse gradient, or None.
        variable: a `keras.Variable`, (rows, ...).

    Returns:
        float32 (rows, 1, ...), or None if there is no gradient.
    """
    if gradient is None:
        return None
    values = values_of(gradient)
    rest = tuple(range(1, len(variable.shape)))
    found = ops.cast(ops.any(ops.not_equal(values, 0), axis=rest, keepdims=True), "float32")
    if not is_sparse(gradient):
        return found
    shape = (variable.shape[0], *(1 for _ in rest))
    return ops.scatter(gradient.indices[:, None], found, shape)
