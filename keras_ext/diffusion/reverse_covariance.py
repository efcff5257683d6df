"""The variance of the data given the noisy data, learnt for each element and each state."""

import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import known
from keras_ext.diffusion.linear_steps import call, clipped
from keras_ext.diffusion.model_training import check_savable, mean_of_losses, untrained
from keras_ext.diffusion.noise import standard_normal, training_seed, uniform
from keras_ext.diffusion.predictions import aligned, check_prediction, convert_prediction

KINDS = ("npr", "sn")


@keras.saving.register_keras_serializable(package="keras_ext")
class ReverseCovariance(keras.Model):
    """Learns the diagonal of Cov[x0 | x_t], for the argument `variance` of `ddim` and `ddpm`.

    A head is trained beside a denoiser, which stays as it is. With r^2 = alpha^2 + beta^2, x0' what
    the denoiser predicts and v = (alpha eps - beta x0) / r, v' likewise, it learns

        "npr"   softplus(head) = E[(v - v')^2 | x_t],  Cov = beta^2 / r^2 softplus(head)
        "sn"    softplus(head) = E[v^2 | x_t],         Cov = beta^2 / r^2 (softplus(head) - v'^2)

    each as the mean squared error to (v - v')^2 or v^2. "npr" is the best variance around whatever
    the denoiser predicts. "sn" supposes that this is the mean of the data; where its difference is
    negative the variance is 0.

    The sources have eps in place of v. Given x_t one is a multiple of the other plus what is known,
    so for the mean both give the same; but where nearly all is noise, Cov is a very large multiple
    of a very small difference of terms in eps, and of an ordinary one in v. (For "npr" only the
    scale differs: (v - v')^2 = r^2 / alpha^2 (eps - eps')^2.)

    `compile(optimizer)` and `fit(data)` train it, the loss is its own. A batch is an array of the
    data, or a dict of them as `x` and of the conditions. Called, the model gives the loss of each
    sample (b,), at random times and with random noise: `evaluate(data)` is its mean. (Keras drops
    sample weights that come without y, so give some y with them, which is not looked at.)

    Args:
        head: network, called as `head({"x": x / r, "t": t, **conditions})` with x (b, ...) and
            t (b,), both float32, and giving (b, ...): a `keras_ext.models.UNet` or `MLPDenoiser`, smaller
            than the denoiser.
        denoiser: function `(x, t, **conditions) -> (b, ...)`. A Keras model has its weights; it is
            called with `training=False`, and saved with this model.
        schedule: a `Schedule` or its name.
        kind: str, "npr" or "sn".
        prediction: str, what the denoiser predicts: "eps", "x0", "v", "velocity" or "score".
        clip_x0: pair of floats, as the sampler is given, or None: predicted data are held between,
            and variances below ((b - a) / 2)^2.
        seed: int or None, of times and noise.
        **kwargs: of `keras.Model`.

    Raises:
        ValueError: for an unknown kind or prediction, and when it is saved, if the denoiser is
            nothing that Keras can save.

    Example:

    >>> import keras_ext
    >>> head = keras_ext.models.MLPDenoiser(2, hidden_dim=8, num_layers=1)
    >>> model = keras_ext.diffusion.ReverseCovariance(head, lambda x, t: 0.5 * x, "cosine")
    >>> model.compile("adam")
    >>> history = model.fit(np.ones((8, 2), "float32"), verbose=0)
    >>> noise = keras.random.normal((4, 2), seed=0)
    >>> keras_ext.diffusion.ddpm(lambda x, t: 0.5 * x, "cosine", noise, 5, variance=model).calls
    10

    Source: Estimating the Optimal Covariance with Imperfect Mean in Diffusion Probabilistic Models,
        Fan Bao, Chongxuan Li, Jiacheng Sun, Jun Zhu, Bo Zhang, 2022,
        https://arxiv.org/abs/2206.07309
    """

    def __init__(
        self,
        head,
        denoiser,
        schedule,
        kind="npr",
        prediction="eps",
        clip_x0=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # levels and targets are float32
        self.head, self.denoiser = head, denoiser
        self.schedule = schedules.get(schedule)
        self.kind, self.prediction = known("kind", kind, KINDS), prediction
        check_prediction(self.schedule, prediction)
        self.clip_x0 = None if clip_x0 is None else tuple(float(each) for each in clip_x0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        shapes = input_shape if isinstance(input_shape, dict) else {"x": input_shape}
        if isinstance(self.head, keras.Layer) and not self.head.built:
            self.head.build({**shapes, "t": tuple(shapes["x"][:1])})

    def call(self, inputs, training=None):
        conditions = dict(inputs) if isinstance(inputs, dict) else {"x": inputs}
        x0 = ops.cast(conditions.pop("x"), "float32")
        seed = training_seed(self.seed_generator)
        t = self._times(uniform(seed, 1, ops.shape(x0)[:1]))
        eps = standard_normal(seed, 0, ops.shape(x0))
        alpha, beta = self._levels(t, x0)
        x = alpha * x0 + beta * eps
        target = (alpha * eps - beta * x0) / _length(alpha, beta)
        if self.kind == "npr":
            value = self._denoised(x, t, conditions)
            found = convert_prediction(value, x, t, self.schedule, self.prediction, "x0")
            found = clipped(ops.stop_gradient(found), self.clip_x0)
            target = (found - x0) * _length(alpha, beta) / beta
        error = self._moment(x, t, conditions, training) - ops.square(target)
        return ops.mean(ops.square(error), axis=tuple(range(1, len(x0.shape))))

    def compute_output_shape(self, input_shape):
        shape = input_shape["x"] if isinstance(input_shape, dict) else input_shape
        return tuple(shape[:1])

    def compute_output_spec(self, inputs, training=None):
        shape = inputs["x"].shape if isinstance(inputs, dict) else inputs.shape
        return keras.KerasTensor(tuple(shape[:1]), "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return mean_of_losses(self, x, y, y_pred, sample_weight)

    def covariance(self, x, t, x0, **conditions):
        """The variance of each element of the data given x.

        Args:
            x: (b, ...) float32, the noisy data.
            t: (b,) float32, times above 0.
            x0: (b, ...) float32, the predicted data.
            **conditions: those of the denoiser.

        Returns:
            (b, ...) float32 of at least 0.
        """
        x, t = ops.cast(x, "float32"), ops.cast(t, "float32")
        alpha, beta = self._levels(t, x)
        length = _length(alpha, beta)
        moment = self._moment(x, t, conditions, False)
        if self.kind == "sn":
            v = (alpha * (x - alpha * x0) / beta - beta * x0) / length
            moment = ops.maximum(moment - ops.square(v), 0.0)
        found = ops.square(beta / length) * moment
        if self.clip_x0 is not None:
            found = ops.minimum(found, 0.25 * (self.clip_x0[1] - self.clip_x0[0]) ** 2)
        return found

    # The denoiser's variables are saved with the others, and none of those that are trained.

    @property
    def trainable_variables(self):
        return self.head.trainable_variables if self.trainable else []

    @property
    def non_trainable_variables(self):
        return untrained(self, self.denoiser)

    @property
    def trainable_weights(self):
        return self.head.trainable_weights if self.trainable else []

    @property
    def non_trainable_weights(self):
        taken = {id(weight) for weight in self.trainable_weights}
        return [weight for weight in self.weights if id(weight) not in taken]

    def get_config(self):
        check_savable("denoiser", self.denoiser)
        return {
            **super().get_config(),
            "head": serialize_keras_object(self.head),
            "denoiser": serialize_keras_object(self.denoiser),
            "schedule": serialize_keras_object(self.schedule),
            "kind": self.kind,
            "prediction": self.prediction,
            "clip_x0": self.clip_x0,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: deserialize_keras_object(config[name], custom_objects)
            for name in ("head", "denoiser", "schedule")
        }
        return cls(**{**config, **parts})

    def _times(self, draws):
        """Random times: those of the schedule's steps, or from `tau` to 1."""
        steps = self.schedule.steps
        if steps is not None:
            return (ops.floor(draws * steps) + 1.0) / steps
        return 1.0 - draws * (1.0 - self.schedule.tau)

    def _levels(self, t, x):
        """The amplitudes at times t, along the axes of x."""
        alpha, beta = self.schedule.alpha_bar(t), self.schedule.beta_bar(t)
        return aligned(alpha, x), aligned(beta, x)

    def _denoised(self, x, t, conditions):
        if isinstance(self.denoiser, keras.Layer):
            conditions = {**conditions, "training": False}
        return call(self.denoiser, x, t, conditions)

    def _moment(self, x, t, conditions, training):
        """What the head says of E[(v - v')^2 | x] or E[v^2 | x], (b, ...) float32."""

        def head(x, t, **conditions):
            conditions = {name: ops.convert_to_tensor(each) for name, each in conditions.items()}
            x = x / _length(*self._levels(t, x))  # of a size that a network can be given
            return self.head({"x": x, "t": t, **conditions}, training=training)

        return ops.softplus(call(head, x, t, conditions))


def _length(alpha, beta):
    return ops.sqrt(ops.square(alpha) + ops.square(beta))
