import keras
import numpy as np
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import known
from keras_ext.diffusion.data_checks import check_form, seems_fit
from keras_ext.diffusion.kept_samplers import KeptSamplers
from keras_ext.diffusion.model_sampling import ModelSampling
from keras_ext.diffusion.model_training import (
    check_arrays,
    checked_dropout,
    checked_evaluate,
    checked_fit,
    checked_network,
    dropped,
    mean_of_losses,
    network_inputs,
    sample_shape_of,
    with_labels,
)
from keras_ext.diffusion.noise import seed_pair, standard_normal, training_seed, uniform
from keras_ext.diffusion.predictions import aligned, check_prediction
from keras_ext.diffusion.training_loss import (
    TIMES,
    WEIGHTS,
    error_weight,
    target,
    training_times,
    validation_times,
)


@keras.saving.register_keras_serializable(package="keras_ext")
class DenoisingDiffusion(ModelSampling, keras.Model):
    """Trains a network to tell noise from data, and draws samples from it.

        loss = E w(t) mean (network(x_t, t) - target)^2,  x_t = alpha_t x + beta_t eps

    with the target and the weights of `prediction` and `loss_weight`. `compile`, `fit`, `evaluate`
    and `save` are those of Keras: all of the above happens in the call, so that loss scaling and
    guards, accumulation, `jit_compile`, callbacks, sample weights, replicas and JAX work. There is
    no loss to pass to `compile`, and no metric.

    - **Data**: floats of about [-1, 1], or of a standard deviation of about 1: `fit(x)`, or
      `fit(x, labels)`, `fit({"x": x, "label": labels})` or a data set of these for a network with
      `num_classes`. The label `num_classes` stands for no class; in training it takes the place of
      a share `cond_dropout` of the labels, which guidance needs.
    - **Validation**: a batch has always the same times and the same noise, so that epochs can be
      compared, to the last digit; `predict` gives this loss of each sample.
    - **Averages**: if the optimizer has `use_ema=True`, samples and bounds come from the averages of
      the weights, also in the middle of training, which they do not touch. (Where `fit` ends Keras
      itself puts the averages in place of the weights. Not beside the callback `SwapEMAWeights`
      with `swap_on_epoch`, which hides them.) A `.keras` file holds both.
    - **Range**: training keeps the least and the largest number of the data, the weight
      `data_range`, between which samplers hold what they predict of the data: at time 1 an error of
      "eps" is one of `sigma(1)`, 20,000 for "cosine", times as much of the data.
    - **Precision**: times, schedule, targets and loss are float32 in any policy of the network.
    - A schedule that does not preserve the variance may make x_t large: there the network is given
      x_t / (alpha_t^2 + beta_t^2)^(1/2). `denoiser()` takes x_t itself.

    Args:
        network: `keras.Model` that has its weights, called with a dict of `x` (b, ...), `t` (b,)
            and, if it has an attribute `num_classes`, `label` (b,), which returns what it predicts,
            (b, ...): `keras_ext.models.UNet`, `keras_ext.models.MLPDenoiser`.
        schedule: a `Schedule` or its name.
        prediction: str, what the network learns to predict: "eps", "x0", "v", "velocity" or
            "score".
        loss_weight: str, "simple", "snr", "min_snr", "edm" or "vlb"; see `error_weight` for the
            formulas. All but "simple" weigh errors of the data, which is much for "eps" and "edm"
            at large noise.
        time_sampling: str, "uniform", "low_discrepancy" or "logit_normal". A loss weight says
            nothing of how often a time is drawn.
        cond_dropout: float in [0, 1), the share of labels that are dropped in training.
        seed: int, of the noise in training; None: a random one. A loaded model begins anew.
        **kwargs: of `keras.Model`. `dtype` defaults to the policy of the network.

    Call arguments:
        inputs: data (b, ...), or a dict of `x` and `label`: gives the loss of each sample, (b,). A
            dict with `t` (b,) float32, too: gives what the network predicts, (b, ...).
        training: bool.

    Raises:
        ValueError: for a network without weights, an unknown name, a prediction that the schedule
            leaves undefined, dropped labels without classes; for data that are integers, not
            finite, far too large, none, or of another shape than the network's, and for labels
            beyond the classes. Of a data set the values cannot be read: there the loss is NaN.

    Example:

    >>> import keras_ext
    >>> network = keras_ext.models.MLPDenoiser(2, hidden_dim=16, num_classes=3)
    >>> model = DenoisingDiffusion(network, schedule="cosine", cond_dropout=0.1, seed=0)
    >>> model.compile("adam")
    >>> x, labels = np.zeros((64, 2), "float32"), np.arange(64) % 3
    >>> history = model.fit(x, labels, verbose=0)
    >>> result = model.sample(5, sampler="heun", steps=4, label=2, guidance=3.0, seed=0)
    >>> tuple(result.x.shape), result.calls
    ((5, 2), 9)

    Source: Denoising Diffusion Probabilistic Models, Jonathan Ho, Ajay Jain, Pieter Abbeel, 2020,
        https://arxiv.org/abs/2006.11239; Classifier-Free Diffusion Guidance, Jonathan Ho, Tim
        Salimans, 2022, https://arxiv.org/abs/2207.12598
    """

    def __init__(
        self,
        network,
        schedule="cosine",
        prediction="eps",
        loss_weight="simple",
        time_sampling="uniform",
        cond_dropout=0.0,
        seed=None,
        **kwargs,
    ):
        kwargs.setdefault("dtype", checked_network(network).dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.kept_samplers = KeptSamplers()
        self.network = network
        self.schedule = schedules.get(schedule)
        check_prediction(self.schedule, prediction, np.array([1.0]))
        self.prediction = prediction
        self.loss_weight = known("loss_weight", loss_weight, WEIGHTS)
        self.time_sampling = known("time_sampling", time_sampling, TIMES)
        self.cond_dropout = checked_dropout(cond_dropout, self.num_classes)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.data_range = self.add_weight(
            (2,),
            unseen_range,
            trainable=False,
            dtype="float32",
            autocast=False,
            name="data_range",
            aggregation="only_first_replica",
        )
        self.built = True

    @property
    def num_classes(self):
        """Number of classes of the network, which is the label of no class; None: it has none."""
        return getattr(self.network, "num_classes", None)

    @property
    def sample_shape(self):
        """The shape of one sample; None where the network does not say it."""
        return sample_shape_of(self.network)

    # === Training ===
    def call(self, inputs, training=None):
        inputs = inputs if isinstance(inputs, dict) else {"x": inputs}
        unknown = inputs.keys() - {"x", "t", "label"}
        if "x" not in inputs or unknown:
            raise ValueError(
                f"Expected data, or a dict of x and, maybe, label and t. Received: {sorted(inputs)}"
            )
        x, label = ops.convert_to_tensor(inputs["x"]), inputs.get("label")
        check_form(x, self.sample_shape)
        x = ops.cast(x, "float32")
        if "t" in inputs:
            return self._predict(x, ops.cast(inputs["t"], "float32"), label, training)
        return self._loss_of_each(x, label, training)

    def _loss_of_each(self, x, label, training):
        count, first = ops.shape(x)[0], self.schedule.tau
        fine = seems_fit(x, label, self.num_classes)
        if training:
            low, high = ops.min(x), ops.max(x)
            known_range = ops.stack(
                [ops.minimum(self.data_range[0], low), ops.maximum(self.data_range[1], high)]
            )
            self.data_range.assign(known_range)
            seed = training_seed(self.seed_generator)
            draws = uniform(seed, 1, (count,))
            t = training_times(self.time_sampling, first, draws)
            label = dropped(label, self.cond_dropout, self.num_classes, seed)
        else:
            seed, t = seed_pair(0), validation_times(count, first)
        eps = self._noise(seed, 0, ops.shape(x))
        alpha, beta = aligned(self.schedule.alpha_bar(t), x), aligned(self.schedule.beta_bar(t), x)
        value = self._predict(alpha * x + beta * eps, t, label, training)
        error = ops.cast(value, "float32") - target(self.schedule, self.prediction, x, eps, t)
        mean = ops.mean(ops.square(error), axis=tuple(range(1, len(x.shape))))  # (b,)
        return ops.where(fine, mean * self._weight(t), float("nan"))

    def _weight(self, t):
        """What the squared error of the prediction weighs at times t."""
        return error_weight(self.schedule, self.prediction, self.loss_weight, t)

    def _noise(self, seed, draw, shape):
        """The noise of training, eps, and that which sampling begins with."""
        return standard_normal(seed, draw, shape)

    def _scaled(self, x, t):
        """The noisy data as the network is given them."""
        if self.schedule.variance_preserving:
            return x
        alpha, beta = self.schedule.alpha_bar(t), self.schedule.beta_bar(t)
        return x * aligned(ops.rsqrt(ops.square(alpha) + ops.square(beta)), x)

    def _predict(self, x, t, label=None, training=False):
        inputs = network_inputs(self._scaled(x, t), t, label, self.num_classes)
        return self.network(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return mean_of_losses(self, x, y, y_pred, sample_weight)

    # Of TensorFlow (data), of JAX (state, data).
    def train_step(self, *arguments):
        return super().train_step(*arguments[:-1], self._with_labels(arguments[-1]))

    def test_step(self, *arguments):
        return super().test_step(*arguments[:-1], self._with_labels(arguments[-1]))

    def _with_labels(self, data):
        """A batch whose labels are part of its inputs, where the call finds them."""
        return with_labels(data, self.num_classes)

    def fit(self, x=None, y=None, *arguments, **named):
        return checked_fit(self, super().fit, x, y, *arguments, **named)

    def evaluate(self, x=None, y=None, *arguments, **named):
        return checked_evaluate(self, super().evaluate, x, y, *arguments, **named)

    def _check_arrays(self, x, label):
        check_arrays(x, label, self.sample_shape, self.num_classes)

    # === Saving ===
    def get_config(self):
        return {
            **super().get_config(),
            "network": serialize_keras_object(self.network),
            "schedule": serialize_keras_object(self.schedule),
            "prediction": self.prediction,
            "loss_weight": self.loss_weight,
            "time_sampling": self.time_sampling,
            "cond_dropout": self.cond_dropout,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: deserialize_keras_object(config[name], custom_objects)
            for name in ("network", "schedule")
            if name in config
        }
        return super().from_config({**config, **parts}, custom_objects)


def unseen_range(shape, dtype=None):
    """The least and the largest of no numbers."""
    return ops.convert_to_tensor([np.inf, -np.inf], dtype)
