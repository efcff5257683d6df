"""A sampler as one compiled function."""

import functools
import inspect

import keras

from keras_ext.diffusion.checks import checked_noise
from keras_ext.diffusion.noise import seed_pair
from keras_ext.diffusion.sample_result import SampleResult, finished


def compiled(
    sampler,
    denoiser,
    schedule=None,
    steps=None,
    *,
    jit_compile=False,
    variables=None,
    check=checked_noise,
    **settings,
):
    """Compiles a sampler, once for each shape of the noise.

    Args:
        sampler: a sampler of this room: `ddim`, `ddpm`, `ode_sample`, `sde_sample`,
            `edm_stochastic`, `ddim_encode` (whose data take the place of the noise), `flow_sample`,
            `unified_sample` (whose process takes the place of the schedule).
        denoiser: function `(x, t, **conditions)`; of `flow_sample` the velocity.
        schedule: a `Schedule` or its name; None for a sampler that takes none, `flow_sample`.
        steps: int, number of steps.
        jit_compile: bool, whether TensorFlow compiles with XLA, which needs a batch of known size.
            JAX always does.
        variables: list of Keras variables that the denoiser reads. JAX is given their values at each
            call, and would hold on to those of the first otherwise. None: the denoiser's
            `variables`, if it has some. Those of the settings, such as a `ReverseCovariance`, are
            found in any case.
        check: function that makes a tensor of what the sampler begins with, or refuses it.
        **settings: further arguments of the sampler, but no seed and no conditions.

    Returns:
        A function `(noise, seed=None, conditions=None) -> SampleResult`. `calls` is an int. It
        raises as the sampler does, also for a denoiser that gives NaN.

    Raises:
        ValueError: on a backend that is neither TensorFlow nor JAX, and for a schedule where the
            sampler takes none, or none where it takes one.

    Example:

    >>> import keras_ext
    >>> from keras_ext.diffusion import compiled, ddim
    >>> sample = compiled(ddim, lambda x, t: 0.5 * x, "cosine", steps=20, eta=1.0)
    >>> result = sample(np.ones((2, 3), "float32"), seed=1)
    >>> result.calls, tuple(result.x.shape)
    (20, (2, 3))
    """
    found = list(getattr(denoiser, "variables", []) if variables is None else variables)
    found += [v for each in settings.values() for v in getattr(each, "variables", [])]
    variables = list({id(variable): variable for variable in found}.values())
    parameters = inspect.signature(sampler).parameters
    seeded = "seed" in parameters
    without = list(parameters)[1] == "noise"
    if without != (schedule is None):
        raise ValueError(
            "Expected a schedule for a sampler that takes one, and None for one that does not. "
            f"Received: sampler={sampler.__name__}, schedule={schedule}"
        )
    before = (denoiser,) if schedule is None else (denoiser, schedule)

    def run(noise, seed, conditions):
        arguments = {**settings, "conditions": conditions, **({"seed": seed} if seeded else {})}
        result, bad = sampler.__wrapped__(*before, noise, steps, **arguments)
        return tuple(result), bad

    function = _compile(run, variables, jit_compile)

    def sample(noise, seed=None, conditions=None):
        result, bad = function(check(noise), seed_pair(seed), conditions or {})
        x, trajectory, calls = result
        return finished(SampleResult(x, trajectory, int(calls)), bad)

    return sample


def _compile(function, variables, jit_compile):
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        # A partial, as TensorFlow counts the traces of functions by their line, and would warn that
        # this one, every sampler, is traced too often.
        return tf.function(functools.partial(function), jit_compile=jit_compile, autograph=False)
    if keras.config.backend() != "jax":
        raise ValueError(
            "Expected the backend tensorflow or jax. "
            f"Received: keras.config.backend()={keras.config.backend()!r}"
        )
    import jax

    @jax.jit
    def stateless(values, *arguments):
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return function(*arguments)

    return lambda *arguments: stateless([variable.value for variable in variables], *arguments)
