import keras
import numpy as np
from keras import ops

from keras_ext.ops.settings import number, whole

LEVEL_DIM = 8


@keras.saving.register_keras_serializable(package="keras_ext")
class AMEDPredictor(keras.Model):
    """Where in a step of `amed_sample` the denoiser is asked, and how far its answer is followed.

        rho = 0.01 + 0.98 sigmoid(z_1),  c = 1 + scale_direction tanh(z_2),  a = 1 + scale_time tanh(z_3)

    The knot within the step from sigma_r to sigma_q is s = sigma_q^rho sigma_r^(1 - rho), the length
    of the move along its direction is multiplied by c, and the denoiser is asked at a s. Without
    `features_dim` z is a table, three numbers a step; else

        z = W [W_f swish(F features), W_l swish(L levels)]

    with a bias in each product, and the sines and cosines of log(sigma_r) / 4 and log(sigma_q) / 4
    as levels. Both begin as z = 0, the geometric mean, so that "dpm2" begins as the solver
    "midpoint" of `ode_sample`. `AMEDTrainer` trains it. All is float32, in any global policy.

    Args:
        steps: int, number of steps for which it is made.
        features_dim: int, length of the features that a user's `features_fn(x, t)` gives of each
            sample; None: no features, the same numbers for all samples.
        scale_direction: float of at least 0 and below 1; 0: c = 1.
        scale_time: float of at least 0 and below 1; 0: a = 1.
        hidden_dim: int, width of the layer on the features.
        **kwargs: of `keras.Model`.

    Inputs, a dict:
        step: (b,) int, from 0.
        features: (b, features_dim) float32; only with `features_dim`.
        sigma: (b, 2) float32, the levels at both ends of the step; only with `features_dim`.

    Returns:
        (b, 3) float32: rho, c and a.

    Raises:
        ValueError: for numbers out of their ranges, and where features are missing.

    Example:

    >>> import numpy as np
    >>> predictor = AMEDPredictor(3)
    >>> np.array(predictor({"step": np.array([0, 2])})).tolist()
    [[0.5, 1.0, 1.0], [0.5, 1.0, 1.0]]

    Source: Fast ODE-based Sampling for Diffusion Models in Around 5 Steps, Zhenyu Zhou, Defang Chen,
        Can Wang, Chun Chen, 2023, https://arxiv.org/abs/2312.00094
    """

    def __init__(
        self,
        steps,
        features_dim=None,
        scale_direction=0.5,
        scale_time=0.2,
        hidden_dim=128,
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        self.steps = whole("steps", steps)
        self.features_dim = None if features_dim is None else whole("features_dim", features_dim)
        self.scale_direction = _scale("scale_direction", scale_direction)
        self.scale_time = _scale("scale_time", scale_time)
        self.hidden_dim = whole("hidden_dim", hidden_dim)
        # Made here, so that what compiles a sampler or a training step knows all variables.
        if self.features_dim is None:
            self.table = self.add_weight((self.steps, 3), "zeros", name="table")
        else:
            self.of_features = self._dense(self.features_dim, self.hidden_dim, "swish")
            self.narrow = self._dense(self.hidden_dim, 4)
            self.of_levels = self._dense(2 * LEVEL_DIM, 2 * LEVEL_DIM, "swish")
            self.head = self._dense(2 * LEVEL_DIM + 4, 3, kernel_initializer="zeros")
        self.built = True

    def call(self, inputs):
        if self.features_dim is None:
            # A product: the gradient of a look-up is sparse, and optimizers would square it sample by
            # sample in place of their sum.
            z = ops.matmul(ops.one_hot(inputs["step"], self.steps), self.table)
        elif "features" in inputs and "sigma" in inputs:
            features = self.narrow(self.of_features(ops.cast(inputs["features"], "float32")))
            levels = self.of_levels(_waves(ops.cast(inputs["sigma"], "float32")))
            z = self.head(ops.concatenate([features, levels], axis=-1))
        else:
            raise ValueError(
                f"Expected features and sigma beside the step. Received: {sorted(inputs)}"
            )
        z = ops.cast(z, "float32")
        # Not up to 0 and 1, where two knots would be one: multistep solvers divide by what is between.
        rho = 0.01 + 0.98 * ops.sigmoid(z[:, 0])
        c, a = ops.tanh(z[:, 1]), ops.tanh(z[:, 2])
        scaled = [1.0 + self.scale_direction * c, 1.0 + self.scale_time * a]
        return ops.stack([rho, *scaled], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape["step"][0], 3)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((inputs["step"].shape[0], 3), "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "steps": self.steps,
            "features_dim": self.features_dim,
            "scale_direction": self.scale_direction,
            "scale_time": self.scale_time,
            "hidden_dim": self.hidden_dim,
        }

    def _dense(self, inputs, units, activation=None, **choices):
        layer = keras.layers.Dense(units, activation, dtype=self.dtype_policy, **choices)
        layer.build((None, inputs))
        return layer


def _waves(sigma):
    """(b, 2 LEVEL_DIM): sines and cosines of log(sigma) / 4 of both levels."""
    frequencies = ops.convert_to_tensor((2.0 ** np.arange(LEVEL_DIM // 2)).astype("float32"))
    angles = 0.25 * ops.log(sigma)[:, :, None] * frequencies
    waves = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
    return ops.reshape(waves, (-1, 2 * LEVEL_DIM))


def _scale(name, value):
    value = number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"Expected 0 <= {name} < 1. Received: {name}={value}")
    return value


def check_predictor(predictor, steps, features_fn):
    """Refuses a predictor that does not go with a grid or with the features that there are.

    Args:
        predictor: `AMEDPredictor`.
        steps: int, number of steps; None: any.
        features_fn: function `(x, t) -> (b, features_dim)`, or None.

    Raises:
        ValueError: if it does not.

    Example:

    >>> check_predictor(AMEDPredictor(3), 3, None)
    """
    if not isinstance(predictor, AMEDPredictor):
        raise ValueError(f"Expected an AMEDPredictor. Received: predictor={predictor!r}")
    if steps not in (None, predictor.steps):
        raise ValueError(
            f"The predictor is for another number of steps. Expected steps={predictor.steps}. "
            f"Received: steps={steps}"
        )
    if (features_fn is None) != (predictor.features_dim is None):
        raise ValueError(
            "Expected features_fn for a predictor with features_dim, and none for one without. "
            f"Received: features_fn={features_fn}, features_dim={predictor.features_dim}"
        )
