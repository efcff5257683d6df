"""Poisson flow: diffusion whose noise is that of an electric field in added dimensions."""

import math

import keras
from keras import ops

from keras_ext.diffusion.checks import known
from keras_ext.diffusion.continuous_schedules import EDMSchedule
from keras_ext.diffusion.denoising_diffusion import DenoisingDiffusion
from keras_ext.diffusion.model_sampling import FIRST_NOISE
from keras_ext.diffusion.ode_steps import SOLVERS
from keras_ext.diffusion.poisson_levels import own_levels, own_times
from keras_ext.diffusion.poisson_noise import dimensions, poisson_noise
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import number

# The standard deviation of the data is about that; their root mean square is below the second.
STD, LARGEST = 0.5, 2.0


@keras.saving.register_keras_serializable(package="keras_ext")
class PoissonFlow(DenoisingDiffusion):
    """Trains a network on the field of charges at the data, and draws samples along its lines.

    The data are charges in the plane of no height in d + D dimensions. At height r = sigma D^(1/2)
    their field lines obey

        dx / d sigma = (x - E[x_0 | x]) / sigma,  density of x given x_0 ~ (r^2 + |x - x_0|^2)^-(d+D)/2

    The mean is what the model learns, by a regression on single data, which is unbiased, and
    needs no sum over a large batch:

        loss = E w mean (x_0' - x_0)^2,  x = x_0 + sigma e,  e as of `poisson_noise`
        x_0' = 1/4 / (1/4 + v) x + (1/4 v / (1/4 + v))^(1/2) network(x / c, t),  v = sigma^min(D, 2)
        w = 1 / v + 4

    D = 1 is the field of the original method. As D grows the noise becomes Gaussian, and D = inf is
    the model of "Elucidating the Design Space": what the network predicts, and the weight of its
    error, is of size 1 for data whose standard deviation is near 1/2. (v is the mean square of what
    e adds to data, which for D below 2 is that of the few that are far off.)

    All else is as in `DenoisingDiffusion`: data, `compile`, `fit`, labels, averages of the weights,
    validation, precision. Time t in [0, 1] is that of `EDMSchedule`, 0 data, at which sigma is
    `low`, and 1 noise. What differs:

    - **Heavy tails**: c^2 = 1 + (|x|^2 + r^2) / (d + D), the mean square of all d + D coordinates,
      so that |x / c|^2 is at most d + D however far a point is; for D = inf c^2 is 1 + sigma^2. The
      x in x_0' is held to a root mean square of (4 + r^2)^(1/2).
    - **What sampling begins with** is the kernel around 0 at sigma = `high`, without the longest
      share 1 - `quantile`, 1 % of the probability, which is not drawn. With D = inf nothing is cut.
    - **Each sample has a grid of its own**: far from the data a line is straight, and |x| / sigma
      stays as it is, so that a point that begins at |x| = 1000 sigma would be on its way still at
      sigma = 0.001. It begins further down its line, at k x and k sigma, no farther away than the
      others, and all its levels, the last one too, are k times the common ones:

          k = min(1, ((d + D) / (D + |x / sigma|^2))^(1/2))

      Below sigma = `low` the network is told `low`: far from the data, where such a point is then,
      their mean no longer depends on sigma. See `own_levels`.
    - **Sampling** is by the solvers of `ode_sample`. Samplers with fresh noise, bounds and
      likelihoods are those of Gaussian noise.

    Args:
        network: `keras.Model` that has its weights, see `DenoisingDiffusion`.
        D: float of at least 1, or inf: number of added dimensions. The larger, the lighter the tails.
        low: float, sigma at time 0. Samplers end by what the network makes of the data there.
        high: float, sigma at time 1, large beside the data.
        rho: float, see `EDMSchedule`.
        quantile: float in (0, 1], of the lengths of what sampling begins with.
        time_sampling: str, "uniform", "low_discrepancy" or "logit_normal".
        cond_dropout: float in [0, 1), the share of labels that are dropped in training.
        seed: int, of the noise in training; None: a random one.
        **kwargs: of `keras.Model`.

    Call arguments:
        inputs: data (b, ...), or a dict of `x` and `label`: gives the loss of each sample, (b,). A
            dict with `t` (b,) float32, too: gives x_0', (b, ...).
        training: bool.

    Raises:
        ValueError: for D below 1, a quantile that is not in (0, 1], and see `DenoisingDiffusion`.

    Example:

    >>> import keras_ext
    >>> import numpy as np
    >>> network = keras_ext.models.MLPDenoiser(2, hidden_dim=16)
    >>> model = PoissonFlow(network, D=1, seed=0)
    >>> model.compile("adam")
    >>> history = model.fit(np.zeros((64, 2), "float32"), verbose=0)
    >>> result = model.sample(5, steps=4, seed=0)
    >>> tuple(result.x.shape), result.calls
    ((5, 2), 9)

    Source: Poisson Flow Generative Models, Yilun Xu, Ziming Liu, Max Tegmark, Tommi Jaakkola, 2022,
        https://arxiv.org/abs/2209.11178; PFGM++: Unlocking the Potential of Physics-Inspired
        Generative Models, Yilun Xu et al., 2023, https://arxiv.org/abs/2302.04265
    """

    def __init__(
        self,
        network,
        D=1,
        low=0.001,
        high=80.0,
        rho=7.0,
        quantile=0.99,
        time_sampling="uniform",
        cond_dropout=0.0,
        seed=None,
        **kwargs,
    ):
        schedule = EDMSchedule(low, high, rho)
        super().__init__(
            network, schedule, "x0", "edm", time_sampling, cond_dropout, seed, **kwargs
        )
        self.D = dimensions(D)
        self.quantile = number("quantile", quantile)
        if not 0.0 < self.quantile <= 1.0:
            raise ValueError(f"Expected quantile in (0, 1]. Received: quantile={quantile}")

    def _noise(self, seed, draw, shape):
        quantile = self.quantile if draw == FIRST_NOISE else 1.0
        return poisson_noise(seed, draw, shape, self.D, quantile)

    def _weight(self, t):
        return 1.0 / self._variance(t) + 1.0 / STD**2

    def _scaled(self, x, t):
        size, share = math.prod(x.shape[1:]), 1.0 / self.D
        height = ops.square(self.schedule.beta_bar(t))
        mean = (share * size * _mean_square(x) + height) / (share * size + 1.0)
        return x * aligned(ops.rsqrt(1.0 + mean), x)

    def _predict(self, x, t, label=None, training=False, k=None):
        t = t if k is None else own_times(self.schedule, t, k)
        value = ops.cast(super()._predict(x, t, label, training), "float32")
        variance = self._variance(t)
        kept = STD**2 / (STD**2 + variance)
        if self.D != math.inf:
            longest = LARGEST**2 + self.D * ops.square(self.schedule.beta_bar(t))
            held = ops.sqrt(longest / ops.maximum(_mean_square(x), 1e-12))
            x = x * aligned(ops.minimum(held, 1.0), x)
        return aligned(kept, x) * x + aligned(ops.sqrt(kept * variance), x) * value

    def _variance(self, t):
        return self.schedule.beta_bar(t) ** min(self.D, 2.0)

    def sample(self, n_or_noise, steps=50, solver="heun", seed=None, **settings):
        """Draws samples.

        Args:
            n_or_noise: int, number of samples; or (n, ...) floats, x at time `start` to begin with.
                Of samples that begin before time 1 no line is known to be straight: they have all
                the common grid.
            steps: int; "heun" calls the network twice a step.
            solver: str, one of those of `ode_sample`.
            seed: int, or None for a random one.
            **settings: `label`, `guidance`, `return_trajectory`, `clip_x0`, `use_ema` and
                `jit_compile` of `DenoisingDiffusion.sample`, and `spacing`, `start`, `end`,
                `denoise` and `tolerance` of `ode_sample`.

        Returns:
            `SampleResult`: `x` (n, ...) float32, `trajectory` (steps + 1, n, ...), from k x on, or
            None, `calls`.

        Raises:
            ValueError: for an unknown solver, and see `DenoisingDiffusion.sample`.
        """
        known("solver", solver, SOLVERS)
        settings = {"start": 1.0, **settings}
        return super().sample(n_or_noise, solver, steps, seed=seed, **settings)

    def _first_state(self, n_or_noise, seed, t):
        x, own = super()._first_state(n_or_noise, seed, t)
        if self.D == math.inf or t < 1.0:
            return x, own
        k = own_levels(x / self.schedule.high, self.D)
        return aligned(k, x) * x, {"k": k}

    def _of_batches(self, function, *arguments, **settings):
        if self.D != math.inf:
            raise ValueError(
                "Bounds and likelihoods are those of Gaussian noise. Expected D=inf. "
                f"Received: D={self.D}"
            )
        return super()._of_batches(function, *arguments, **settings)

    def get_config(self):
        config = super().get_config()
        for name in ("schedule", "prediction", "loss_weight"):
            del config[name]
        return {**config, **self.schedule.get_config(), "D": self.D, "quantile": self.quantile}


def _mean_square(x):
    """(b,): of the numbers of each sample."""
    return ops.mean(ops.square(x), axis=tuple(range(1, len(x.shape))))
