"""What every noise schedule has: amplitudes, their slopes, and a grid of times."""

import numpy as np
from keras import ops

from keras_ext.diffusion.spacing import knots


class Schedule:
    """How much of the data and how much noise there is at a time: x_t = alpha_t x_0 + beta_t eps.

    `alpha_t` (`alpha_bar`) and `beta_t` (`beta_bar`) are amplitudes, not variances. Time t is in
    [0, 1]: 0 is the data, 1 the noise. All methods take times as NumPy arrays or numbers, and give
    float64, or as tensors, and give float32 tensors, also inside a graph. Where beta_t is small it
    is precise, and never 1 minus something near 1.

    A subclass defines `_amplitudes(xp, t)` (alpha, beta), `_slopes(xp, t)` (d alpha / dt,
    beta d beta / dt) and `_time(xp, sigma)`, where `xp` is NumPy or `keras.ops`.

    Two schedules are equal if they are of one class and have the same config.

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> schedule = schedules.get("cosine")
    >>> schedule.grid(4)
    array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    >>> schedule.alpha_bar(0.0), schedule.beta_bar(0.0)
    (np.float64(1.0), np.float64(0.0))
    """

    steps = None
    """Number of steps of a discrete schedule, which stands at i / steps; None: continuous."""

    variance_preserving = False
    """Whether alpha_t^2 + beta_t^2 = 1."""

    @property
    def tau(self):
        """The time of the first step, 1 / steps, or 1e-3: nothing is trained below."""
        return 1.0 / (self.steps or 1000)

    def alpha_bar(self, t):
        """The amplitude of the data at times t."""
        return self._at(t, lambda xp, t: self._amplitudes(xp, t)[0])

    def beta_bar(self, t):
        """The amplitude of the noise at times t."""
        return self._at(t, lambda xp, t: self._amplitudes(xp, t)[1])

    def sigma(self, t):
        """The ratio of noise to data, beta_t / alpha_t; infinite where alpha_t is 0."""

        def ratio(xp, t):
            alpha, beta = self._amplitudes(xp, t)
            return beta / alpha

        return self._at(t, ratio)

    def drift(self, t):
        """f(t) = d log alpha_t / dt of the equation dx = f x dt + g dw."""

        def logarithmic(xp, t):
            return self._slopes(xp, t)[0] / self._amplitudes(xp, t)[0]

        return self._at(t, logarithmic)

    def diffusion2(self, t):
        """g(t)^2 = d beta_t^2 / dt - 2 f(t) beta_t^2 of the equation dx = f x dt + g dw."""

        def squared(xp, t):
            (alpha, beta), (alpha_slope, half) = self._amplitudes(xp, t), self._slopes(xp, t)
            return 2.0 * (half - alpha_slope / alpha * beta * beta)

        return self._at(t, squared)

    def slopes(self, t):
        """The pair d alpha_t / dt, d beta_t / dt.

        At time 0 the second is that just above it, as it is infinite there for some schedules.
        """

        def of_beta(xp, t):
            t = xp.maximum(t, 1e-12 if xp is np else 1e-6)
            return self._slopes(xp, t)[1] / self._amplitudes(xp, t)[1]

        return self._at(t, lambda xp, t: self._slopes(xp, t)[0]), self._at(t, of_beta)

    def t_of_sigma(self, sigma):
        """The time at which beta_t / alpha_t is sigma; 0 for what is below the ratio at time 0.

        Raises:
            ValueError: if a sigma that is not a tensor is negative or above that at time 1.
        """
        if ops.is_tensor(sigma):
            return ops.clip(self._time(ops, ops.cast(sigma, "float32")), 0.0, 1.0)
        sigma = np.asarray(sigma, "float64")
        last = self.sigma(1.0)
        # A rounding above the last is the last.
        if not np.all((sigma >= 0) & (sigma <= last * (1 + 1e-9))):
            raise ValueError(
                f"Expected sigma between 0 and that at time 1, {last}. Received: sigma={sigma}"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.clip(self._time(np, sigma), 0.0, 1.0)[()]

    def levels(self, times):
        """Amplitudes on the knots of a grid, where time 0 is the data itself: (1, 0).

        Some schedules leave a little noise at time 0; samplers end without it.

        Args:
            times: (n,) NumPy array.

        Returns:
            alpha and beta, (n,) float64 each.
        """
        alpha, beta = self.alpha_bar(times), self.beta_bar(times)
        return np.where(times == 0, 1.0, alpha), np.where(times == 0, 0.0, beta)

    def grid(self, steps, spacing="trailing", start=1.0, end=0.0):
        """The times of the steps + 1 knots of a sampler: hop i goes from knot i to knot i + 1.

        Args:
            steps: int, number of hops, at most that of a discrete schedule.
            spacing: str, or a list of the steps + 1 times. With `tau`, 1 / steps of the schedule, or
                1e-3 for a continuous one:

                - "trailing": equal hops of time.
                - "leading": the same, moved towards the data: each knot but the last is tau above
                  the next of "trailing". It does not begin at `start` unless hops are tau long, as
                  in programs that take every n-th step from the first; for comparison only.
                - "linspace", "quadratic", "logsnr", "karras": knots from `start` to tau at equal
                  distances of t, t^(1/2), log sigma, sigma^(1/7), and the data. If `end` is not 0
                  they go from `start` to `end`. Where sigma is infinite at `start`, the distances
                  of the last two are measured from 1e-3 below.
            start: float, the first time.
            end: float, the last time, exactly.

        Returns:
            (steps + 1,) float64, strictly decreasing.

        Raises:
            ValueError: if there are more steps than a discrete schedule has, times are not between
                0 and 1 or do not decrease, or for an unknown spacing.
        """
        return knots(self, steps, spacing, start, end)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self).__name__, repr(self.get_config())))

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def _at(self, t, function):
        if ops.is_tensor(t):
            return function(ops, ops.cast(t, "float32"))
        t = np.asarray(t, "float64")
        if not np.all((t >= 0) & (t <= 1)):
            raise ValueError(f"Expected times between 0, data, and 1, noise. Received: t={t}")
        with np.errstate(divide="ignore", invalid="ignore"):
            return function(np, t)[()]
