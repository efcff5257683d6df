"""Solvers of du / dsigma = eps as tables of linear steps."""

import numpy as np

from keras_ext.diffusion.hops import bayes_hops
from keras_ext.diffusion.linear_steps import LinearSteps

# Explicit methods whose stages each use the one before: places, factors of it, weights.
TABLEAUX = {
    "heun": ((0.0, 1.0), (1.0,), (0.5, 0.5)),
    "midpoint": ((0.0, None), (None,), (0.0, 1.0)),  # geometric: sigma^2 = sigma_r sigma_q
    "rk4": ((0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
ORDERS = {"euler": 1, "ab2": 2, "ab3": 3, "ab4": 4}
SOLVERS = ("euler", *TABLEAUX, "rk45", "dpmpp_2m", *(name for name in ORDERS if name != "euler"))


def solver_rows(schedule, times, solver):
    """The table of a solver between the knots of a grid.

    A hop from where nothing of the data is left (sigma infinite) and a hop to the data (sigma 0) are
    one Euler step, x_q = alpha_q x0 + beta_q eps: sigma does not go in small steps there.

    Args:
        schedule: a `Schedule`.
        times: (steps + 1,) float64.
        solver: str, one of `SOLVERS` but "rk45".

    Returns:
        `LinearSteps`.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> schedule = schedules.get("cosine")
    >>> len(solver_rows(schedule, schedule.grid(4, "karras"), "heun").times)
    7
    """
    alpha, beta = schedule.levels(times)
    if solver == "dpmpp_2m":
        return _multistep_x0(times, alpha, beta)
    if solver in ORDERS:
        return _adams_bashforth(times, alpha, beta, ORDERS[solver])
    return runge_kutta(
        schedule, solver, (times[:-1], alpha[:-1], beta[:-1]), (times[1:], alpha[1:], beta[1:])
    )


def runge_kutta(schedule, solver, froms, tos, churned=None):
    """The table of a method with stages.

    The state is x, u_r = x_r / alpha_r at the beginning of the step, and what the stages have added
    up so far. A row ends with x = alpha u at the place of the next stage.

    Args:
        schedule: a `Schedule`.
        solver: str, one of `TABLEAUX`.
        froms: times, alpha and beta at which steps begin, (n,) float64 each.
        tos: the same where they end.
        churned: (n, 2) float64, or None: by what x is multiplied after each step, and the noise
            that is added then.

    Returns:
        `LinearSteps`.
    """
    places, factors, weights = TABLEAUX[solver]
    times, mixes, noises, step = [], [], [], []
    churned = np.tile([1.0, 0.0], (len(froms[0]), 1)) if churned is None else churned
    for i, (t, a, b, t_q, a_q, b_q) in enumerate(zip(*froms, *tos, strict=True)):
        scale, noise = churned[i]
        if a == 0 or b_q == 0:
            kappa, gamma, _ = bayes_hops((a, b), (a_q, b_q))
            rows = [(t, [[scale * kappa, 0, 0, scale * gamma], [0] * 4, [0] * 4])]
        else:
            sigma, sigma_q = b / a, b_q / a_q
            middle = (np.sqrt(sigma * sigma_q) - sigma) / (sigma_q - sigma)
            stages = [middle if place is None else place for place in places]
            knots = [
                _stage(schedule, sigma, sigma_q, p, (t, a, b), (t_q, a_q, b_q)) for p in stages
            ]
            rows = []
            for j, (time, alpha, beta) in enumerate(knots):
                eps = np.array([1 / beta, 0, 0, -alpha / beta])
                base = np.array([1 / a, 0, 0, 0] if j == 0 else [0, 1, 0, 0], "float64")
                added = (sigma_q - sigma) * weights[j] * eps
                added = added + np.array([0, 0, 1, 0]) * (j > 0)
                if j + 1 == len(knots):
                    out = scale * a_q * (base + added)
                else:
                    factor = middle if factors[j] is None else factors[j]
                    out = knots[j + 1][1] * (base + factor * (sigma_q - sigma) * eps)
                rows.append((time, [out, base, added]))
        for j, (time, mix) in enumerate(rows):
            times.append(time)
            mixes.append(np.array(mix, "float64"))
            noises.append([noise * (j + 1 == len(rows)), 0.0, 0.0])
            step.append(i)
    return LinearSteps(np.array(times), np.array(mixes), np.array(noises), np.array(step))


def _stage(schedule, sigma, sigma_q, place, start, end):
    """Time, alpha and beta at which a stage is."""
    if place in (0.0, 1.0):
        return end if place else start
    time = schedule.t_of_sigma(sigma + place * (sigma_q - sigma))
    return time, schedule.alpha_bar(time), schedule.beta_bar(time)


def _adams_bashforth(times, alpha, beta, order):
    """u_q = u_r + the integral of the polynomial through the last eps; fewer at the beginning.

    The state is x and the order - 1 last eps, the newest first.
    """
    count = len(times) - 1
    mix = np.zeros((count, order, order + 1))
    known = []  # sigmas of the eps that are kept
    for i in range(count):
        a, b, a_q, b_q = alpha[i], beta[i], alpha[i + 1], beta[i + 1]
        eps = np.zeros(order + 1)
        eps[0], eps[-1] = 1 / b, -a / b
        if a == 0 or b_q == 0:
            kappa, gamma, _ = bayes_hops((a, b), (a_q, b_q))
            mix[i, 0, 0], mix[i, 0, -1] = kappa, gamma
        else:
            known = [b / a, *known][:order]
            weights = _integrals(np.array(known), b_q / a_q)
            mix[i, 0] = a_q * weights[0] * eps
            mix[i, 0, 0] += a_q / a
            mix[i, 0, 1 : len(known)] = a_q * weights[1:]
        if order > 1:
            mix[i, 1] = eps
            for j in range(2, order):
                mix[i, j, j - 1] = 1.0
    noise = np.zeros((count, order))
    return LinearSteps(times[:-1], mix, noise, np.arange(count))


def _integrals(nodes, end):
    """Weights of values at nodes whose sum is the integral of their polynomial from nodes[0] on."""
    length = end - nodes[0]
    powers = np.arange(len(nodes))
    places = (nodes - nodes[0]) / length
    return length * np.linalg.solve(places[None, :] ** powers[:, None], 1.0 / (powers + 1))


def _multistep_x0(times, alpha, beta):
    """DPM-Solver++ 2M: the Euler step with x0 taken further from that of the step before."""
    kappa, gamma, _ = bayes_hops((alpha[:-1], beta[:-1]), (alpha[1:], beta[1:]))
    with np.errstate(divide="ignore"):
        logsnr = np.log(alpha) - np.log(beta)
    hops = np.diff(logsnr)
    weight = np.zeros(len(kappa))
    inner = np.isfinite(hops[1:]) & np.isfinite(hops[:-1])
    weight[1:][inner] = hops[1:][inner] / (2.0 * hops[:-1][inner])
    mix = np.zeros((len(kappa), 2, 3))
    mix[:, 0] = np.stack([kappa, -gamma * weight, gamma * (1.0 + weight)], axis=-1)
    mix[:, 1, 2] = 1.0
    return LinearSteps(times[:-1], mix, np.zeros((len(kappa), 2)), np.arange(len(kappa)))


def with_last(rows, times, schedule):
    """The rows, and a last hop from the end of the grid to the data: x = x0."""
    if times[-1] == 0:
        return rows
    width = rows.noise.shape[1]
    mix = np.zeros((1, width, width + 1))
    mix[0, 0, -1] = 1.0
    return LinearSteps(
        np.append(rows.times, times[-1]),
        np.concatenate([rows.mix, mix]),
        np.concatenate([rows.noise, np.zeros((1, width))]),
        np.append(rows.step, rows.step[-1] + 1),
    )
