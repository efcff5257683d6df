"""Samplers that are compiled once and kept, for a denoiser whose weights may be exchanged."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.compiled import compiled
from keras_ext.diffusion.sample_result import finished
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


def run_kept(
    model,
    function,
    denoiser,
    schedule,
    x,
    steps,
    seed=None,
    conditions=None,
    use_ema=True,
    jit_compile=None,
    **settings,
):
    """What a sampler gives for a model, which keeps it compiled.

    Args:
        model: `keras.Model` with `network` and `kept_samplers`, a `KeptSamplers`. After
            `compile(run_eagerly=True)` nothing is compiled.
        function: a sampler.
        denoiser: function `(x, t, **conditions)` that calls the network; always the same for the
            same names of conditions and settings.
        schedule: a `Schedule`, or whatever the sampler takes in its place, always the same; None for
            a sampler that takes none.
        x: (b, ...), what the sampler begins with.
        steps: int, or a list of times.
        seed: int, (2,) integers, or None.
        conditions: dict of further arguments of the denoiser, or None.
        use_ema: bool, whether to take the averages of the weights, where there are any.
        jit_compile: bool, whether to compile with XLA. None: as `compile` was told.
        **settings: further arguments of the sampler, and `check` of `compiled`.

    Returns:
        `SampleResult`.

    Raises:
        ValueError: as the sampler does.
    """
    # JAX keeps what is trained apart from the variables until an epoch ends.
    getattr(model, "jax_state_sync", lambda: None)()
    pairs = averaged(model.optimizer) if use_ema and model.compiled else []
    variables, conditions = model.network.variables, conditions or {}
    if model.compiled and model.run_eagerly:
        denoiser = with_values(denoiser, variables, pairs)
        settings = {**settings, "conditions": conditions}
        settings.pop("check", None)
        if "seed" in inspect.signature(function).parameters:
            settings["seed"] = seed
        before = (denoiser,) if schedule is None else (denoiser, schedule)
        return finished(*function.__wrapped__(*before, x, steps, **settings))
    if jit_compile is None:
        jit_compile = model.compiled and bool(model.jit_compile)
    settings = {"jit_compile": jit_compile, **settings}
    note = sorted(conditions)
    sample = model.kept_samplers.get(
        function, denoiser, schedule, steps, variables, pairs, note, **settings
    )
    return sample(x, seed, conditions)


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
