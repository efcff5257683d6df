"""Samplers that are compiled once and kept, for a denoiser whose weights may be exchanged."""

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.compiled import compiled
from keras_ext.keras_internals import averages, trained_by

LIMIT = 16


class KeptSamplers:
    """The last compiled samplers, by what they were compiled for."""

    def __init__(self):
        self.functions = {}

    def get(self, function, denoiser, schedule, steps, variables, pairs, note, **settings):
        """A sampler, compiled if it is not yet.

        Args:
            function: a sampler.
            denoiser: function `(x, t, **conditions)`, always the same for the same `note`.
            schedule: a `Schedule`.
            steps: int.
            variables: list of all variables that the denoiser reads.
            pairs: list of pairs of variables, the first of which is to have the value of the second.
            note: what tells denoisers apart.
            **settings: further arguments of `compiled`.

        Returns:
            What `compiled` gives.
        """
        # The function that is kept holds the variables, so that no others get their ids.
        sources = tuple(id(source) for _, source in pairs)
        key = hashable((function, steps, note, settings, sources))
        if key not in self.functions:
            self.functions[key] = compiled(
                function,
                with_values(denoiser, variables, pairs),
                schedule,
                steps,
                variables=[*variables, *(source for _, source in pairs)],
                **settings,
            )
            while len(self.functions) > LIMIT:
                del self.functions[next(iter(self.functions))]
        return self.functions[key]


def with_values(denoiser, variables, pairs):
    """A denoiser some of whose variables have the values of others.

    Args:
        denoiser: function `(x, t, **conditions)`.
        variables: list of all variables that it reads.
        pairs: list of pairs of variables, the first of which is to have the value of the second.

    Returns:
        A function `(x, t, **conditions)`.
    """
    if not pairs:
        return denoiser
    sources = {id(variable): source for variable, source in pairs}
    # All of them: one that is left out would be a constant for JAX.
    mapping = [(variable, sources.get(id(variable), variable)) for variable in variables]

    def exchanged(x, t, **conditions):
        with keras.StatelessScope(mapping):
            return denoiser(x, t, **conditions)

    return exchanged


def averaged(optimizer):
    """The variables that an optimizer with `use_ema` trains, each with its average.

    Args:
        optimizer: a Keras optimizer, or wrappers around one; None: no optimizer.

    Returns:
        List of pairs of variables. Empty without averages, also before the first step, when they
        are 0.
    """
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    pairs = []
    for each in getattr(optimizer, "optimizers", [optimizer]):
        if not getattr(each, "use_ema", False) or not each.built:
            continue
        # On replicas a variable has no value of its own, a sum has.
        if int(ops.convert_to_numpy(each.iterations + 0)) > 0:
            pairs += zip(trained_by(each), averages(each), strict=True)
    return [(variable, average) for variable, average in pairs if average is not None]


def hashable(value):
    """A setting as a part of a key: arrays, lists and dicts as tuples of what is in them."""
    if isinstance(value, dict):
        return tuple((name, hashable(value[name])) for name in sorted(value))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value
