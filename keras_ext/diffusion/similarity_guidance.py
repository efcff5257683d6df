"""Guidance by the gradient of a similarity to a target."""

from keras import ops

from keras_ext.diffusion.autodiff import input_gradient, pulled_back
from keras_ext.diffusion.guidance import (
    Guidance,
    callable_part,
    check_schedule,
    gradient_factor,
)
from keras_ext.diffusion.predictions import aligned, to_x0


class SimilarityGuidance(Guidance):
    """A denoiser that leans towards what is similar to a target: an image, an embedding of a text.

        p(target | x) = exp(similarity(x, target)) / Z(x),
        score = score(x, t) + scale grad_x similarity

    The gradient of log Z(x) is left out, as it is not known: an approximation. (Where the similarity
    is a log density of the target given x up to a constant, there is none, and a scale of 1 is the
    conditional denoiser.) A scale of 0 is the denoiser itself.

    A similarity that knows noisy data is asked about x_t. `through_denoiser` takes one that knows
    clean data only: it is asked about x0 as predicted from x_t, and its gradient goes back through
    the denoiser, at the price of one. It stands for log E[exp(similarity(x0))], and is too certain
    where x0 is not: another approximation. In float32 it is precise for denoisers of "x0"; for those
    of "eps" and "score" the change of x0 with x is a difference of large numbers, and roundings are
    multiplied by sigma^2.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, to which all conditions go. A guided
            denoiser will do.
        similarity: function `(x, t, target) -> (b,)`, of each sample's own x and t alone. It
            computes in tensors of the backend. With `through_denoiser` x are the predicted data and
            t is 0.
        target: what `similarity` takes, for all samples or one each.
        scale: float, or (b,) floats, one for each sample.
        schedule: a `Schedule` or its name; not needed for the prediction "score" of noisy data.
        prediction: str, what the denoiser predicts; the guided one predicts the same.
        through_denoiser: bool.

    Raises:
        ValueError: for a bad scale or prediction, and a missing schedule.

    Example:

    >>> import numpy as np
    >>> from keras_ext.diffusion import SimilarityGuidance, ddim, schedules
    >>> cosine = schedules.get("cosine")
    >>> def similarity(x, t, target):
    ...     return -0.5 * ops.sum((x - target) ** 2, axis=-1)
    >>> guided = SimilarityGuidance(
    ...     lambda x, t: cosine.beta_bar(t)[:, None] * x,  # the data are standard normal
    ...     similarity, 3.0, scale=1.0, schedule=cosine, through_denoiser=True)
    >>> x = ddim(guided, cosine, np.zeros((1, 1)), 100).x
    >>> 1.0 < float(x[0, 0]) < 3.0
    True

    Source: https://kexue.fm/archives/9257; Universal Guidance for Diffusion Models, Arpit Bansal
        et al., 2023, https://arxiv.org/abs/2302.07121 (through the denoiser)
    """

    def __init__(
        self,
        denoiser,
        similarity,
        target,
        scale,
        schedule=None,
        prediction="eps",
        through_denoiser=False,
    ):
        super().__init__(denoiser, scale)
        self.similarity, self.target = callable_part("similarity", similarity), target
        self.schedule, self.prediction = check_schedule(schedule, prediction), prediction
        self.through_denoiser = through_denoiser
        if through_denoiser and self.schedule is None:
            raise ValueError("Expected a schedule with through_denoiser. Received: schedule=None")

    def __call__(self, x, t, **conditions):
        x, t = ops.convert_to_tensor(x), ops.convert_to_tensor(t)
        if not self.through_denoiser:
            value, gradient = self.predict(x, t, conditions), self._gradient(x, t)
        else:
            # Not by one gradient of p x + q value: it would not notice a denoiser without one.
            value, product = pulled_back(lambda x: self.predict(x, t, conditions), x)
            p, q = (aligned(factor, x) for factor in to_x0(self.schedule, self.prediction, t))
            of_data = self._gradient(p * x + q * value, ops.zeros_like(t))
            gradient = p * of_data + product(q * of_data)
        factor = gradient_factor(self.schedule, self.prediction, t)
        return value + aligned(self.scale * factor, x) * gradient

    def _gradient(self, x, t):
        return input_gradient(lambda x: self.similarity(x, t, self.target), x)
