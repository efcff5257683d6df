"""The half of `DenoisingDiffusion` that draws samples and says how likely data are."""

import inspect

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import checked_noise, known
from keras_ext.diffusion.classifier_free_guidance import ClassifierFreeGuidance
from keras_ext.diffusion.data_checks import check_data, check_form, check_labels
from keras_ext.diffusion.ddim import ddim, ddpm
from keras_ext.diffusion.kept_samplers import run_kept
from keras_ext.diffusion.log_likelihood import log_likelihood
from keras_ext.diffusion.nll_bound import bound_of_each
from keras_ext.diffusion.noise import seed_pair, standard_normal
from keras_ext.diffusion.ode import ode_sample
from keras_ext.diffusion.ode_steps import SOLVERS
from keras_ext.diffusion.sde import edm_stochastic, sde_sample
from keras_ext.ops.settings import number, whole

FIRST_NOISE = 2**31 - 1
"""The draw of the noise that sampling begins with: steps count theirs from 0."""

LARGEST_SIGMA = 80.0
SAMPLERS = {
    "ddim": (ddim, {}),
    "ddpm": (ddpm, {}),
    "sde": (sde_sample, {}),
    "edm_stochastic": (edm_stochastic, {}),
    **{solver: (ode_sample, {"solver": solver}) for solver in SOLVERS},
}
"""Name -> function, and the arguments that the name stands for."""


class ModelSampling:
    """The methods `sample`, `nll_bound`, `log_likelihood` and `denoiser`.

    The model has `network`, `schedule`, `prediction`, `num_classes`, `sample_shape`, and
    `kept_samplers`.
    """

    def denoiser(self):
        """What all samplers and `log_likelihood` take: a function `(x, t, label=None)`.

        With the weights as they are; `keras.StatelessScope` gives them other values.
        """
        return ModelDenoiser(self)

    def sample(
        self,
        n_or_noise,
        sampler="ddim",
        steps=50,
        label=None,
        guidance=None,
        seed=None,
        return_trajectory=False,
        clip_x0="data",
        use_ema=True,
        jit_compile=None,
        **settings,
    ):
        """Draws samples.

        A sampler is compiled at its first call with these settings, a shape and a number of steps;
        labels, the scale of guidance, seed and noise may then differ. After
        `compile(run_eagerly=True)` nothing is compiled.

        Args:
            n_or_noise: int, number of samples; or (n, ...) floats, the noise to begin with.
            sampler: str, "ddim", "ddpm", "sde" (`sde_sample`), "edm_stochastic", or a solver of
                `ode_sample`: "euler", "heun", "midpoint", "rk4", "rk45", "dpmpp_2m", "ab2", "ab3",
                "ab4".
            steps: int.
            label: int or (n,) ints, the classes, or None for none.
            guidance: float, scale of classifier-free guidance, `ClassifierFreeGuidance`, which
                takes 2 n rows in a call of the network: 0 ignores the label, 1 is the same as None
                (and costs as little), more shows more of the class and less variety.
            seed: int, or None for a random one.
            return_trajectory: bool, whether to keep the states of all steps.
            clip_x0: pair of floats between which the predicted data are held; "data": those of the
                training data; None: they are not held.
            use_ema: bool, whether to take the averages of the weights, where there are any.
            jit_compile: bool, whether to compile with XLA. None: as `compile` was told.
            **settings: further arguments of the sampler, such as `eta` and `spacing`. The solvers'
                `start` defaults to the time, at most 1, at which sigma is 80, as there is nothing
                but noise before, and their steps would be spent on it.

        Returns:
            `SampleResult`: `x` (n, ...) float32, `trajectory` (steps + 1, n, ...) or None, `calls`.

        Raises:
            ValueError: for no samples, noise of another shape, an unknown sampler, no steps, a label
                beyond the classes, guidance without a label, and a network that gives NaN; the
                error names the step.
        """
        function, chosen = SAMPLERS[known("sampler", sampler, SAMPLERS)]
        if isinstance(clip_x0, str):
            known("clip_x0", clip_x0, ["data"])
            low, high = ops.convert_to_numpy(self.data_range).tolist()
            clip_x0 = (low, high) if low <= high else None  # None: it was not trained
        settings |= {**chosen, "return_trajectory": return_trajectory, "clip_x0": clip_x0}
        if function in (ode_sample, edm_stochastic):
            settings = {"start": first_time(self.schedule), **settings}
        first = self._first_time(function, steps, settings)
        noise, own = self._first_state(n_or_noise, seed, first)
        conditions = label_conditions(label, self.num_classes, noise.shape[0], guidance) | own
        options = use_ema, jit_compile
        return self._run(function, noise, steps, seed, conditions, options, **settings)

    def nll_bound(
        self,
        data,
        label=None,
        steps=100,
        width=None,
        seed=None,
        batch_size=256,
        use_ema=True,
        jit_compile=None,
    ):
        """An upper bound on -log p of each sample, in nats; see `keras_ext.diffusion.nll_bound`.

        Args:
            data: (n, ...) floats.
            label: int or (n,) ints, the classes, or None for none.
            steps: int, network calls for a sample; without `width` one more is made.
            width: float, how far levels of the data are apart, 2 / 255 for 8 bits scaled to
                [-1, 1]: then bound / (d log 2) are bits per dimension. None: the bound is one of a
                density.
            seed: int, or None for a random one.
            batch_size: int, samples in a call.
            use_ema: bool, whether to take the averages of the weights, where there are any.
            jit_compile: bool, whether to compile with XLA. None: as `compile` was told.

        Returns:
            (n,) float32 NumPy array.

        Raises:
            ValueError: for bad data, labels or steps, and a network that gives NaN.
        """
        options = use_ema, jit_compile
        return self._of_batches(
            bound_of_each, data, label, steps, seed, batch_size, options, width=width
        )

    def log_likelihood(
        self,
        data,
        label=None,
        steps=50,
        seed=None,
        batch_size=256,
        use_ema=True,
        jit_compile=None,
        **settings,
    ):
        """log p of each sample along the ODE, in nats; see `keras_ext.diffusion.log_likelihood`.

        Args:
            data: (n, ...) floats; integers by way of `dequantize`.
            label: int or (n,) ints, the classes, or None for none.
            steps: int, of four network calls each.
            seed: int, or None for a random one, of the probes.
            batch_size: int, samples in a call.
            use_ema: bool, whether to take the averages of the weights, where there are any.
            jit_compile: bool, whether to compile with XLA. None: as `compile` was told.
            **settings: further arguments of `keras_ext.diffusion.log_likelihood`: `divergence`,
                "exact" by default, which takes d backward passes a call for d numbers in a sample,
                `probes`, `start`. `end` defaults to the first time that was trained.

        Returns:
            (n,) float32 NumPy array.

        Raises:
            ValueError: for bad data, labels or steps, and a network that gives NaN.
        """
        settings = {"end": self.schedule.tau, **settings}
        options = use_ema, jit_compile
        return self._of_batches(
            log_likelihood, data, label, steps, seed, batch_size, options, **settings
        )

    def _of_batches(self, function, data, label, steps, seed, batch_size, options, **settings):
        """What a function gives of each sample, batch by batch."""
        check_data(data, self.sample_shape)
        count, size = data.shape[0], whole("batch_size", batch_size)
        label = label_conditions(label, self.num_classes, count).get("label")
        first, second = ops.convert_to_numpy(seed_pair(seed)).tolist()
        values = []
        for start in range(0, count, size):
            conditions = {} if label is None else {"label": label[start : start + size]}
            batch = (first, (second + start // size) % 2**32)  # each has noise of its own
            some = data[start : start + size]
            result = self._run(function, some, steps, batch, conditions, options, **settings)
            values.append(ops.convert_to_numpy(result.x))
        return np.concatenate(values)

    def _run(self, function, x, steps, seed, conditions, options, **settings):
        settings["prediction"] = self.prediction
        return run_sampler(
            self, function, self.schedule, x, steps, seed, conditions, options, **settings
        )

    def _first_state(self, n_or_noise, seed, t):
        """Noise at time t, and what `_predict` is told of each sample beside label and time, a dict."""
        scale = float(self.schedule.beta_bar(t))
        return first_noise(n_or_noise, self.sample_shape, seed, scale, self._noise), {}

    def _first_time(self, function, steps, settings):
        """The first knot of a sampler's grid."""
        parameters = inspect.signature(function).parameters
        given = {
            name: settings.get(name, parameters[name].default)
            for name in ("spacing", "start", "end")
            if name in parameters
        }
        return self.schedule.grid(steps, **given)[0]


def run_sampler(model, function, schedule, x, steps, seed, conditions, options, **settings):
    """Runs a sampler with the network of a model, compiled and kept.

    Args:
        model: has `network`, `num_classes`, `kept_samplers` and `_predict`.
        function: a sampler.
        schedule: a `Schedule`; None if the sampler takes none.
        x: (b, ...) floats, the state to begin with.
        steps: int.
        seed: int, or None for a random one.
        conditions: what `label_conditions` gives.
        options: pair `use_ema`, `jit_compile`.
        **settings: further arguments of the sampler.

    Returns:
        `SampleResult`.
    """
    denoiser = ModelDenoiser(model)
    if "guidance" in conditions:
        denoiser = guided(denoiser, {"label": model.num_classes})
    return run_kept(
        model, function, denoiser, schedule, x, steps, seed, conditions, *options, **settings
    )


def first_noise(n_or_noise, shape, seed, scale=1.0, noise=standard_normal):
    """The noise to begin with.

    Args:
        n_or_noise: int, number of samples; or (n, ...) floats, which are taken as they are.
        shape: tuple, that of one sample, or None.
        seed: int, or None for a random one.
        scale: float, the amplitude.
        noise: function `(seed, draw, shape)` that draws it.

    Returns:
        (n, ...) float32.

    Raises:
        ValueError: for no samples, noise of another shape, and a number without a shape.
    """

    def checked(given):
        given = checked_noise(given)
        check_form(given, shape)
        return given

    def drawn(sizes):
        return scale * noise(seed_pair(seed), FIRST_NOISE, sizes)

    return first_state("n_or_noise", n_or_noise, shape, checked, drawn)


def first_state(name, given, shape, checked, drawn):
    """What sampling begins with: what was given, or as many as were asked for.

    Args:
        name: str, the name of the argument.
        given: int, number of samples; or (n, ...), the state itself.
        shape: tuple, that of one sample, or None.
        checked: function that makes a tensor of a state, or refuses it.
        drawn: function of a shape that draws a state.

    Returns:
        (n, ...) tensor.

    Raises:
        ValueError: for no samples, a number without a shape, and as `checked` does.
    """
    if len(getattr(given, "shape", ())) > 0 or isinstance(given, list | tuple):
        return checked(given)
    count = whole(name, given)
    if shape is None or None in shape:
        raise ValueError(
            "The network does not say the shape of a sample. Expected an array of shape (n, ...). "
            f"Received: {name}={given}, shape of a sample {shape}"
        )
    return drawn((count, *shape))


def label_conditions(label, num_classes, count, guidance=None):
    """The arguments of the denoiser beside x and t.

    Args:
        label: int or (n,) ints, or None for none.
        num_classes: int, or None.
        count: int, number of samples.
        guidance: float, or None.

    Returns:
        dict of `label`, (n,) int32, and `guidance`, a scalar, where there are any.

    Raises:
        ValueError: for bad labels, and guidance without a label.
    """
    if label is None:
        if guidance is not None:
            raise ValueError(
                "Guidance is towards a class. Expected a label. "
                f"Received: guidance={guidance}, label=None"
            )
        return {}
    label = label if hasattr(label, "dtype") else np.asarray(label)
    if len(label.shape) == 0:
        label = np.full((count,), ops.convert_to_numpy(label))
    check_labels(label, num_classes, count)
    conditions = {"label": ops.reshape(ops.cast(label, "int32"), (-1,))}
    if guidance is not None and number("guidance", guidance) != 1.0:
        conditions["guidance"] = ops.convert_to_tensor(np.float32(guidance))
    return conditions


def first_time(schedule):
    """The time at which solvers begin: 1, or where sigma is `LARGEST_SIGMA` if it gets larger."""
    if schedule.sigma(1.0) <= LARGEST_SIGMA:
        return 1.0
    return float(schedule.t_of_sigma(LARGEST_SIGMA))


class ModelDenoiser:
    """A model's network as samplers call it, with the variables that JAX is given at each call.

    Args:
        model: a `DenoisingDiffusion`.
    """

    def __init__(self, model):
        self.model = model

    @property
    def variables(self):
        """Those of the network."""
        return self.model.network.variables

    def __call__(self, x, t, label=None, **own):
        return self.model._predict(x, t, label, **own)


def guided(denoiser, nulls):
    """`ClassifierFreeGuidance` whose scale is a condition too, so that another compiles nothing."""

    def guided_denoiser(x, t, guidance, **conditions):
        return ClassifierFreeGuidance(denoiser, guidance, nulls)(x, t, **conditions)

    return guided_denoiser
