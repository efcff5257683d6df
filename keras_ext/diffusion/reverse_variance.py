"""The variance of a reverse hop that the data add, as a table over the time."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_ext.diffusion import schedules
from keras_ext.files.replaced_files import replaced_file

FORMAT = "keras_ext.diffusion.ReverseVariance 1"
TINY = 1e-300  # its logarithm is finite


@dataclass(frozen=True, eq=False)
class ReverseVariance:
    """What x0 is uncertain by given x_t, on average: sigma_bar2(t) = E tr Cov[x0 | x_t] / d.

    Made by `estimate_reverse_variance`, for the argument `variance` of `ddim` and `ddpm` and for
    `optimal_times`.

    Between its times log sigma_bar2 is interpolated linearly in log sigma, sigma = beta / alpha.
    Below the first it falls with sigma^2, as it does where eps cannot be told at all; above the last
    it stays.

    Args:
        times: (n,) float64, strictly increasing, above 0.
        values: (n,) float64 of at least 0, sigma_bar2 at these times.
        stderr: (n,) float64, standard errors of what was estimated, before clips and monotonicity.
        samples: int, calls of the denoiser for each time.
        schedule: a `Schedule`, its name or config.
        last_noise: float, the largest mean absolute value of the noise of the last hop that adds
            any, in units of the data; None: no limit. For images of 256 levels in [-1, 1] the source
            takes 2 * 2 / 255 for DDPM and 2 / 255 for DDIM: less cannot be seen.

    Raises:
        ValueError: for arrays that do not fit, times that do not increase, and values that are
            negative or not finite.

    Example:

    >>> import keras_ext
    >>> table = keras_ext.diffusion.ReverseVariance(
    ...     [0.25, 0.5, 1.0], [0.05, 0.1, 0.3], [0.01, 0.01, 0.02], 100, "cosine"
    ... )
    >>> table.sigma_bar2([0.5, 1.0])
    array([0.1, 0.3])

    Source: Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in Diffusion
        Probabilistic Models, Fan Bao, Chongxuan Li, Jun Zhu, Bo Zhang, 2022,
        https://arxiv.org/abs/2201.06503
    """

    times: np.ndarray
    values: np.ndarray
    stderr: np.ndarray
    samples: int
    schedule: object
    last_noise: float | None = None

    def __post_init__(self):
        arrays = [np.asarray(getattr(self, name), "float64") for name in ARRAYS]
        for name, array in zip(ARRAYS, arrays, strict=True):
            object.__setattr__(self, name, array)
        object.__setattr__(self, "schedule", schedules.get(self.schedule))
        times, values, _ = arrays
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1 or times.ndim != 1 or len(times) < 1:
            raise ValueError(
                "Expected times, values and stderr of one shape (n,), n at least 1. "
                f"Received: shapes {[array.shape for array in arrays]}"
            )
        if not (np.all(np.diff(times) > 0) and 0 < times[0] and times[-1] <= 1):
            raise ValueError(f"Expected times that increase, in (0, 1]. Received: times={times}")
        if not np.all(np.isfinite(values) & (values >= 0)):
            raise ValueError(f"Expected finite values of at least 0. Received: values={values}")

    def sigma_bar2(self, times):
        """E tr Cov[x0 | x_t] / d at times t.

        Args:
            times: array of numbers from 0 to 1.

        Returns:
            float64 of that shape.
        """
        at, known = self._log_sigma(times), self._log_sigma(self.times)
        below = 2.0 * np.minimum(at - known[0], 0.0)
        return np.exp(np.interp(at, known, np.log(np.maximum(self.values, TINY))) + below)

    def save(self, path):
        """Writes the table to a file, which replaces an older one whole, or is not written at all.

        Args:
            path: path of the file, best with the suffix ".npz". Folders are made.

        Raises:
            OSError: naming the file, if it cannot be written.
        """
        with replaced_file(path) as new, new.open("wb") as file:  # savez would add a suffix
            np.savez(
                file,
                format=FORMAT,
                schedule=json.dumps(keras.saving.serialize_keras_object(self.schedule)),
                samples=self.samples,
                last_noise=np.nan if self.last_noise is None else self.last_noise,
                **{name: getattr(self, name) for name in ARRAYS},
            )

    @classmethod
    def load(cls, path):
        """The table that a file holds.

        Args:
            path: path of a file that `save` wrote.

        Returns:
            `ReverseVariance`.

        Raises:
            ValueError: if the file is damaged, or another one.
            OSError: if it cannot be read.
        """
        expected = "Expected a file that ReverseVariance.save wrote"
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as held:
                held = dict(held)
            given = str(held.get("format"))
        except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"The file is damaged or of another kind ({error}). {expected}. Received: {path}"
            ) from error
        if given != FORMAT:
            raise ValueError(
                f"The file is of another kind or version. {expected}, of format {FORMAT!r}. "
                f"Received: {path} of format {given!r}"
            )
        try:
            last_noise = float(held["last_noise"])
            return cls(
                **{name: held[name] for name in ARRAYS},
                samples=int(held["samples"]),
                schedule=json.loads(str(held["schedule"])),
                last_noise=None if np.isnan(last_noise) else last_noise,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"What the file holds cannot be used ({error}). {expected}. Received: {path}"
            ) from error

    def _log_sigma(self, times):
        """log sigma; at an infinite sigma that of something very large."""
        with np.errstate(divide="ignore"):
            return np.log(np.minimum(self.schedule.sigma(np.asarray(times, "float64")), 1e30))


ARRAYS = ("times", "values", "stderr")
