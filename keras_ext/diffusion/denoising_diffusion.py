import contextlib

import keras
import numpy as np
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import known
from keras_ext.diffusion.data_checks import check_data, check_form, check_labels, seems_fit
from keras_ext.diffusion.kept_samplers import KeptSamplers, averaged
from keras_ext.diffusion.model_sampling import ModelSampling
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
from keras_ext.ops.settings import number


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
        if not isinstance(network, keras.Model) or not network.built:
            raise ValueError(
                "Expected a network that is a keras.Model and has its weights. "
                f"Received: network={network!r}"
            )
        kwargs.setdefault("dtype", network.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.kept_samplers = KeptSamplers()
        self.network = network
        self.schedule = schedules.get(schedule)
        check_prediction(self.schedule, prediction, np.array([1.0]))
        self.prediction = prediction
        self.loss_weight = known("loss_weight", loss_weight, WEIGHTS)
        self.time_sampling = known("time_sampling", time_sampling, TIMES)
        self.cond_dropout = number("cond_dropout", cond_dropout)
        if not 0.0 <= self.cond_dropout < 1.0 or (cond_dropout and self.num_classes is None):
            raise ValueError(
                "Expected cond_dropout in [0, 1), and 0 for a network without `num_classes`. "
                f"Received: cond_dropout={cond_dropout}, num_classes={self.num_classes}"
            )
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.mean_loss = keras.losses.MeanAbsoluteError()
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
        inputs = getattr(self.network, "inputs", None) or []
        return next((tuple(x.shape[1:]) for x in inputs if x.name == "x"), None)

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
            if label is not None and self.cond_dropout:
                label = ops.reshape(ops.cast(label, "int32"), (-1,))
                dropped = uniform(seed, 2, (count,)) < self.cond_dropout
                label = ops.where(dropped, self.num_classes, label)
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
        inputs = {"x": self._scaled(x, t), "t": t}
        if self.num_classes is not None:
            if label is None:
                label = ops.full(ops.shape(x)[:1], self.num_classes, "int32")
            inputs["label"] = ops.reshape(ops.cast(label, "int32"), (-1,))
        elif label is not None:
            check_labels(label, None)
        return self.network(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.loss is not None:
            raise ValueError(
                "The loss is that of `loss_weight`. Expected compile(optimizer) without a loss. "
                f"Received: loss={self.loss!r}"
            )
        # The losses are not negative: Keras' mean of them, with weights, on replicas.
        y_pred = y_pred[:, None]  # (b, 1)
        loss = self.mean_loss(ops.zeros_like(y_pred), y_pred, sample_weight)
        return loss + super().compute_loss(x, y, y_pred) if self.losses else loss

    # Of TensorFlow (data), of JAX (state, data).
    def train_step(self, *arguments):
        return super().train_step(*arguments[:-1], self._with_labels(arguments[-1]))

    def test_step(self, *arguments):
        return super().test_step(*arguments[:-1], self._with_labels(arguments[-1]))

    def _with_labels(self, data):
        """A batch whose labels are part of its inputs, where the call finds them."""
        x, label, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs = dict(x) if isinstance(x, dict) else {"x": x}
        if label is not None:
            inputs["label"] = label
        if self.num_classes is not None and "label" not in inputs:
            raise ValueError(
                "Expected labels: the network has classes. (The label num_classes stands for none.)"
                f" Received: num_classes={self.num_classes}, label=None"
            )
        return inputs, None, sample_weight

    def fit(self, x=None, y=None, *arguments, **named):
        self._check_arrays(x, y)
        if self.compiled and not self.optimizer.built:
            # Else Keras makes the slots while it traces, and traces again.
            strategy = getattr(self, "distribute_strategy", None)  # TensorFlow's
            with strategy.scope() if strategy else contextlib.nullcontext():
                self.optimizer.build(self.trainable_variables)
        history = super().fit(x, y, *arguments, **named)
        if keras.config.backend() == "jax":
            # Keras has made the averages the weights: one array in two places, which the next
            # evaluation would delete.
            for _, average in averaged(self.optimizer):
                average.assign(ops.copy(average))
        return history

    def evaluate(self, x=None, y=None, *arguments, **named):
        self._check_arrays(x, y)
        return super().evaluate(x, y, *arguments, **named)

    def _check_arrays(self, x, label):
        """Refuses what can be seen of arrays alone; of data sets the call sees dtype and shape."""
        if isinstance(x, dict):
            x, label = x.get("x"), x.get("label", label)
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            check_data(x, self.sample_shape)
            if label is not None:
                label = label if hasattr(label, "dtype") else np.asarray(label)
                check_labels(label, self.num_classes, x.shape[0])

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
