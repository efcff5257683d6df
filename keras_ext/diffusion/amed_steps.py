"""Steps of du / dsigma = eps with a knot in between that is learnt."""

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import known
from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.model_sampling import first_time
from keras_ext.diffusion.predictions import aligned, check_prediction, convert_prediction

SOLVERS = ("euler", "dpm2", "dpmpp", "ipndm")
SINGLE_STEP = ("euler", "dpm2")
PAST = {"euler": 0, "dpm2": 0, "dpmpp": 1, "ipndm": 2}
"""Solver -> how many values from before a hop it looks at."""


class AMEDSteps:
    """The steps between the knots of a grid, in u = x / alpha and sigma = beta / alpha.

    A step from sigma_r to sigma_q has a knot s in between, and calls the denoiser at both ends of
    the hop to s:

        s = sigma_q^rho sigma_r^(1 - rho)
        u_s = hop from u_r along eps(u_r, sigma_r)
        u_q = hop along a eps(u_s, a s) = (u_s - x0(u_s, a s)) / s, whose length is multiplied by c

    The second hop begins at u_s, but for "dpm2" at u_r. A hop is Euler's, u + (sigma' - sigma) eps,
    that of DPM-Solver++ 2M ("dpmpp"), or that of Adams and Bashforth for unequal steps, of order 3
    ("ipndm").

    The state of a step is u and what is kept of the hops before: pairs of the sigma (b,) and the
    value (b, ...) there, the newest first.

    Args:
        denoiser: function `(x, t, **conditions)`.
        schedule: a `Schedule`.
        times: (steps + 1,) float64, the knots.
        solver: str, one of `SOLVERS`.
        prediction: str, what the denoiser predicts.
        conditions: dict of further arguments of the denoiser, or None.

    Raises:
        ValueError: for an unknown solver or prediction, and knots at which sigma is 0 or infinite.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> schedule = schedules.get("edm")
    >>> steps = AMEDSteps(lambda x, t: x, schedule, schedule.grid(3, "karras", 1.0, 1e-3), "dpm2")
    >>> steps.table.shape
    (3, 5)
    """

    def __init__(self, denoiser, schedule, times, solver, prediction="eps", conditions=None):
        self.solver = known("solver", solver, SOLVERS)
        check_prediction(schedule, prediction, times)
        self.denoiser, self.schedule, self.prediction = denoiser, schedule, prediction
        self.times, self.conditions = times, conditions
        alpha, beta = schedule.levels(times)
        with np.errstate(divide="ignore"):
            self.alpha, self.sigma = alpha, beta / alpha
        if self.sigma[-1] == 0 or np.isinf(self.sigma[0]):
            raise ValueError(
                "The knot within a step is a geometric mean of noise levels. Expected end > 0, and "
                f"start where sigma is finite. Received: start={times[0]}, end={times[-1]}"
            )
        earlier = np.arange(len(times) - 1) > 0  # whether there are steps before
        columns = [times[:-1], alpha[:-1], self.sigma[:-1], self.sigma[1:], earlier]
        self.table = np.stack(columns, axis=-1).astype("float32")

    def row(self, i):
        """Time, alpha, sigma and the next sigma of a step, and 1 if there is one before, else 0."""
        row = ops.take(ops.convert_to_tensor(self.table), i, axis=0)
        return tuple(row[j] for j in range(self.table.shape[1]))

    def nothing_past(self, u):
        """What is kept before the first step: as much as after, of no weight."""
        sigma, value = ops.ones_like(ops.reshape(u, (ops.shape(u)[0], -1))[:, 0]), ops.zeros_like(u)
        # Sigmas that differ from all others: one divides by differences.
        first = 2.0 * float(self.sigma[0])
        return tuple((sigma * (first + first * k), value) for k in range(PAST[self.solver]))

    def eps(self, u, t, alpha):
        """What the denoiser says of the noise: (b, ...) float32; t and alpha scalars or (b,)."""
        x = aligned(alpha, u) * u
        t = ops.broadcast_to(ops.cast(t, "float32"), ops.shape(u)[:1])
        value = call(self.denoiser, x, t, self.conditions)
        return convert_prediction(value, x, t, self.schedule, self.prediction, "eps")

    def step(self, u, past, direction, scalars, row):
        """One step.

        Args:
            u: (b, ...) float32, where it begins.
            past: see above.
            direction: (b, ...) float32, eps there.
            scalars: (b, 3) float32, rho, c and a.
            row: what `row` gives of the step.

        Returns:
            u_q and u_s, (b, ...) float32 each, and the new past.
        """
        _, _, sigma, sigma_q, earlier = row
        rho, c, a = (scalars[:, j] for j in range(3))
        sigma, sigma_q = (each * ops.ones_like(rho) for each in (sigma, sigma_q))
        s = ops.exp(rho * ops.log(sigma_q) + (1.0 - rho) * ops.log(sigma))
        moved, past = self._hop(direction, u, sigma, s, past, (earlier, earlier))
        u_s = u + moved
        time = self.schedule.t_of_sigma(a * s)
        # (u_s - x0) / s: so c and a do not make up for each other.
        eps = aligned(a, u) * self.eps(u_s, time, self.schedule.alpha_bar(time))
        if self.solver == "dpm2":
            return u + aligned(c * (sigma_q - sigma), u) * eps, u_s, past
        moved, past = self._hop(eps, u_s, s, sigma_q, past, (1.0, earlier))
        return u_s + aligned(c, u) * moved, u_s, past

    def _hop(self, eps, u, sigma, to, past, seen):
        """By how much u moves, and the new past.

        Args:
            eps: (b, ...), the direction at u.
            u: (b, ...).
            sigma: (b,), where the hop begins.
            to: (b,), where it ends.
            past: see above.
            seen: for each of the past 1, or 0 if there is none yet.
        """
        h = to - sigma
        if self.solver == "dpmpp":
            return _dpmpp(eps, u, sigma, to, past, seen)
        if self.solver == "ipndm":
            return _adams_bashforth(eps, sigma, h, past, seen), ((sigma, eps), past[0])
        return aligned(h, u) * eps, past


def _dpmpp(eps, u, sigma, to, past, seen):
    """Euler's hop with x0 taken further from that of the hop before, in steps of log sigma."""
    x0 = u - aligned(sigma, u) * eps
    ((before, x0_before),) = past
    weight = seen[0] * ops.log(sigma / to) / (2.0 * ops.log(before / sigma))
    further = x0 + aligned(weight, u) * (x0 - x0_before)
    return aligned((to - sigma) / sigma, u) * (u - further), ((sigma, x0),)


def _adams_bashforth(eps, sigma, h, past, seen):
    """The integral over h of the polynomial through the last three eps, by divided differences."""
    (first, eps_1), (second, eps_2) = past
    near, far = first - sigma, second - sigma
    slope = (eps_1 - eps) / aligned(near, eps)
    slope_before = (eps_2 - eps_1) / aligned(far - near, eps)
    curvature = (slope_before - slope) / aligned(far, eps)
    line, square = seen[0] * h**2 / 2.0, seen[1] * (h**3 / 3.0 - near * h**2 / 2.0)
    return aligned(h, eps) * eps + aligned(line, eps) * slope + aligned(square, eps) * curvature


def analytic_eps(u, sigma):
    """eps of data that are standard normal: u sigma / (1 + sigma^2), which is nearly so for all."""
    return u * (sigma / (1.0 + sigma**2))


def start_or_largest(schedule, start, spacing="karras"):
    """The first time of a grid: the one that was given, or else 1, or where sigma is 80.

    Args:
        schedule: a `Schedule`.
        start: float or None.
        spacing: str, or a list of times, whose first is the one.

    Returns:
        float.
    """
    if start is not None or not isinstance(spacing, str):
        return 1.0 if start is None else start
    return first_time(schedule)


def features_at(features_fn, predictor, x, t):
    """The features of each sample, (b, features_dim) float32, or None without a function."""
    if features_fn is None:
        return None
    t = ops.broadcast_to(ops.cast(t, "float32"), ops.shape(x)[:1])
    features = ops.cast(ops.convert_to_tensor(features_fn(x, t)), "float32")
    if len(features.shape) != 2 or features.shape[1] != predictor.features_dim:
        raise ValueError(
            f"Expected features_fn to give (b, features_dim), features_dim={predictor.features_dim}. "
            f"Received: shape={tuple(features.shape)}"
        )
    return features


def scalars_of(predictor, features, i, row, count):
    """What a predictor says of a step.

    Args:
        predictor: `AMEDPredictor`.
        features: (b, features_dim) float32, or None.
        i: int or int scalar, the step.
        row: what `AMEDSteps.row` gives of it.
        count: int or int scalar, number of samples.

    Returns:
        (b, 3) float32.
    """
    inputs = {"step": ops.broadcast_to(ops.cast(i, "int32"), (count,))}
    if features is not None:
        inputs["features"] = features
        inputs["sigma"] = ops.broadcast_to(ops.stack([row[2], row[3]])[None], (count, 2))
    return predictor(inputs)


def written(stored, i, value):
    """Tensors (n, ...) with a value in place i."""
    place = ops.reshape(ops.cast(i, "int32"), (1, 1))
    return ops.scatter_update(stored, place, value[None])
