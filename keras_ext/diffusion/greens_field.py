"""A flow from a Green's function: a kernel around each point of the data, and how it moves."""

import math

import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import checked_noise
from keras_ext.diffusion.greens_check import check_kernel
from keras_ext.diffusion.noise import seed_pair
from keras_ext.diffusion.poisson_noise import dimensions, log_density_of_noise, poisson_noise
from keras_ext.diffusion.predictions import aligned


class GreensField:
    """What `greens_field` and `characteristics` give.

    Time t is a number or (b,), 0 data and 1 noise.

    Args:
        pair: function `(x0, seed, t) -> (x, ratio)`.
        ratio: function `(x, x0, t) -> (b, ...)`, or None.
        log_density: function `(x, x0, t) -> (b,)`, or None.
        check_more: function `(x0, seed, tolerance)` that raises, or None.
    """

    def __init__(self, pair, ratio=None, log_density=None, check_more=None):
        self._pair, self._ratio, self._log_density = pair, ratio, log_density
        self._check_more = check_more

    def sample(self, x0, seed, t):
        """x_t given data x0 (b, ...), drawn from G_1: (b, ...) float32."""
        return self.training_pair(x0, seed, t)[0]

    def training_pair(self, x0, seed, t):
        """x_t given data x0 (b, ...), and the target of the regression, the ratio there.

        A network that minimises E |network(x_t, t) - target|^2 gives the velocity of the flow.

        Args:
            x0: (b, ...) floats.
            seed: int, (2,) integers, or None for a random one.
            t: float or (b,), times above 0.

        Returns:
            (b, ...) float32 each.
        """
        x0 = checked_noise(x0, "x0")
        return self._pair(x0, seed_pair(seed), times(t, x0))

    def target(self, x, x0, t):
        """The ratio G_>1 / G_1 at x, of data x0: (b, ...) float32.

        Raises:
            ValueError: for curves without their inverse.
        """
        x0 = ops.cast(x0, "float32")
        return self._known("_ratio")(ops.cast(x, "float32"), x0, times(t, x0))

    def field(self, data):
        """The velocity of the flow of a data set, without a network.

            velocity(x, t) = sum_i G_1(x; x_i) ratio(x; x_i) / sum_i G_1(x; x_i)

        The shares of the sum are computed of log-densities, so that they do not underflow.

        Args:
            data: (n, ...) floats. A call with b samples computes b n kernels, all in memory.

        Returns:
            Function `(x, t) -> (b, ...)` of tensors or arrays, for times above 0.

        Raises:
            ValueError: without a log-density.
        """
        data = checked_noise(data, "data")
        ratio, log_density = self._known("_ratio"), self._known("_log_density")
        count = data.shape[0]

        def velocity(x, t):
            x = ops.cast(x, "float32")
            each = ops.repeat(x, count, axis=0)  # (b n, ...)
            t = ops.repeat(times(t, x), count, axis=0)
            x0 = ops.tile(data, (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1))
            logits = ops.reshape(log_density(each, x0, t), (-1, count))
            weights = ops.exp(logits - ops.logsumexp(logits, axis=-1, keepdims=True))
            ratios = ops.reshape(ratio(each, x0, t), (-1, count, math.prod(x.shape[1:])))
            return ops.reshape(ops.einsum("bn,bnd->bd", weights, ratios), ops.shape(x))

        return velocity

    def check(self, shape=(2,), count=2048, seed=0, tolerance=0.01):
        """Whether this is a flow at all, tried at random points and times.

            d log G_1 / dt + ratio . grad log G_1 + div ratio = 0   (nothing is lost on the way)
            integral of G_1 dx = 1, of which `sample` draws
            G_1 becomes a point at t = 0

        and for curves that they begin at x0 and end at x1, and that the inverse is one; of curves
        without an inverse that is all.

        Args:
            shape: tuple, that of one sample; one of few numbers is enough.
            count: int, points for each condition.
            seed: int.
            tolerance: float, the largest deviation that is let pass, in units of the terms.

        Returns:
            Dict of what was found: "continuity" (largest), "mass" (of the integral, from 1) and its
            standard error "mass_error", "start" (median distance from x0 at time 1e-4 over that at
            time 1).

        Raises:
            ValueError: that names the condition and says by how much it fails.
        """
        rng = np.random.default_rng(seed)
        x0 = ops.convert_to_tensor(rng.normal(0.0, 0.5, (count, *shape)).astype("float32"))
        if self._check_more is not None:
            self._check_more(x0, seed_pair(seed), tolerance)
            if self._log_density is None:
                return {}
        kernel = self.sample, self._known("_ratio"), self._known("_log_density")
        return check_kernel(*kernel, x0, seed, tolerance)

    def _known(self, name):
        function = getattr(self, name)
        if function is None:
            raise ValueError(
                "This takes the density of the kernel. Expected `log_density` of greens_field, or "
                f"`inverse` of characteristics. Received: {name[1:]}=None"
            )
        return function


def greens_field(sample, ratio, log_density=None):
    """A flow whose density is a mean of kernels G_1(t; x, x_0), one around each point of the data.

        dG_1 / dt + div G_>1 = 0,  integral of G_1 dx = 1,  G_1 -> delta(x - x_0) for t -> 0

    Then p_t = E G_1 is the density of x_t, whatever the data, and what moves it is

        velocity(x, t) = E G_>1 / E G_1 = E[G_>1 / G_1 | x_t = x]

    so that a network learns it by a regression on the ratio G_>1 / G_1, with x_t drawn from G_1; see
    `training_pair`. `check` says whether the three conditions hold.

    Args:
        sample: function `(x0, seed, t) -> (b, ...)`, x_t drawn from G_1, of seed (2,) uint32 and t
            (b,) float32.
        ratio: function `(x, x0, t) -> (b, ...)`, G_>1 / G_1, in `keras.ops`.
        log_density: function `(x, x0, t) -> (b,)`, log G_1 in nats, in `keras.ops`; None: there is no
            `field` and no `check`.

    Returns:
        `GreensField`, with the methods `sample`, `training_pair`, `target`, `field` and `check`.

    Example:

    >>> from keras_ext.diffusion.noise import standard_normal
    >>> def half_squares(x, x0, t):
    ...     return 0.5 * ops.sum(((x - x0) / t[:, None]) ** 2, axis=-1)
    >>> flow = greens_field(
    ...     sample=lambda x0, seed, t: x0 + t[:, None] * standard_normal(seed, 0, x0.shape),
    ...     ratio=lambda x, x0, t: (x - x0) / t[:, None],
    ...     log_density=lambda x, x0, t: -half_squares(x, x0, t) - ops.log(2 * np.pi * t**2),
    ... )
    >>> flow.check()["continuity"] < 1e-3
    True

    Source: Jianlin Su, "Building an ODE by a Green's function" (in Chinese), 2022,
        https://kexue.fm/archives/9370
    """
    for name, function in (("sample", sample), ("ratio", ratio)):
        if not callable(function):
            raise ValueError(f"Expected {name} to be a function. Received: {name}={function!r}")
    return GreensField(
        lambda x0, seed, t: _with_ratio(sample(x0, seed, t), ratio, x0, t), ratio, log_density
    )


def poisson_kernel(D=1, schedule="edm"):
    """The Poisson kernel in d + D dimensions: the flow of `PoissonFlow`.

        x_t = alpha_t x_0 + beta_t e,  e as of `poisson_noise`,  ratio = alpha' x_0 + beta' e

    Args:
        D: float of at least 1, the number of added dimensions; inf: see `heat_kernel`.
        schedule: a `Schedule` or its name.

    Returns:
        `GreensField`.

    Example:

    >>> data = np.array([[0.0, 0.0]], "float32")
    >>> velocity = poisson_kernel(1, "ve").field(data)  # beta' = log(5000) beta
    >>> round(float(velocity(np.array([[1.0, 0.0]], "float32"), 0.5)[0, 0]), 3)
    8.517

    Source: Poisson Flow Generative Models, Yilun Xu, Ziming Liu, Max Tegmark, Tommi Jaakkola, 2022,
        https://arxiv.org/abs/2209.11178
    """
    schedule, D = schedules.get(schedule), dimensions(D)

    def noise_at(x, x0, t):
        alpha, beta = aligned(schedule.alpha_bar(t), x0), aligned(schedule.beta_bar(t), x0)
        return (x - alpha * x0) / beta

    def sample(x0, seed, t):
        noise = poisson_noise(seed, 0, ops.shape(x0), D)
        alpha, beta = aligned(schedule.alpha_bar(t), x0), aligned(schedule.beta_bar(t), x0)
        return alpha * x0 + beta * noise

    def ratio(x, x0, t):
        of_x0, of_noise = schedule.slopes(t)
        return aligned(of_x0, x0) * x0 + aligned(of_noise, x0) * noise_at(x, x0, t)

    def log_density(x, x0, t):
        size = math.prod(x.shape[1:])
        noise = ops.reshape(noise_at(x, x0, t), (-1, size))
        return log_density_of_noise(noise, D) - size * ops.log(schedule.beta_bar(t))

    return greens_field(sample, ratio, log_density)


def heat_kernel(schedule="edm"):
    """The heat kernel, a Gaussian: the flow of diffusion models.

    Args:
        schedule: a `Schedule` or its name.

    Returns:
        `GreensField`.

    Example:

    >>> heat_kernel("straight").check()["start"] < 0.01
    True
    """
    return poisson_kernel(math.inf, schedule)


def times(t, x):
    """Times of the samples, (b,) float32, of a number or of as many; at 0 kernels are points."""
    if not ops.is_tensor(t) and not np.all((np.asarray(t) > 0) & (np.asarray(t) <= 1)):
        raise ValueError(f"Expected times above 0, data, and at most 1. Received: t={t}")
    return ops.broadcast_to(ops.cast(t, "float32"), ops.shape(x)[:1])


def _with_ratio(x, ratio, x0, t):
    return x, ratio(x, x0, t)
