import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion import interpolants
from keras_ext.diffusion.checks import known
from keras_ext.diffusion.data_checks import check_data, check_form, seems_fit
from keras_ext.diffusion.flow_model_sampling import ONE_STEP, FlowModelSampling
from keras_ext.diffusion.kept_samplers import KeptSamplers
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
from keras_ext.diffusion.straightness import check_pairs
from keras_ext.diffusion.training_loss import TIMES, training_times, validation_times


@keras.saving.register_keras_serializable(package="keras_ext")
class RectifiedFlow(FlowModelSampling, keras.Model):
    """Learns the velocity that carries noise, or one set of data, to another.

        loss = E mean (network(x_t, t) - d x_t / dt)^2,  x_t = I(x0, x1, t)

    Time 0 is the data x0, time 1 the noise x1; `sample` goes from 1 to 0. Whatever the path I and
    however x0 and x1 are coupled, the flow of the mean velocity has the distribution of x_t at each
    t. As with `DenoisingDiffusion`, all of it happens in the call, there is no loss to pass to
    `compile`, validation has always the same times and noise, and samples come from the averages of
    the weights if the optimizer has `use_ema=True`.

    - `fit(x0)`: from normal noise, drawn anew in each step. `fit(x0, labels)` for a network with
      `num_classes`.
    - `fit((x0, x1))`: between two sets. Row i of x1 belongs to row i of x0, which is what `reflow`
      gives. Two sets of which no row belongs to any other need `paired=False`: x1 is shuffled within
      each batch, so that a row meets another one each time; as rows, there have to be as many of one
      as of the other. A data set gives dicts with `x` and `x1`.
    - `reflow` makes pairs (x0, x1) of the flow itself. A second model that is trained on them has
      straighter curves, and its samples need fewer steps: `model.copy(paired=True)`.
    - Times and the state are float32 in any policy of the network.

    Args:
        network: `keras.Model` that has its weights, called with a dict of `x` (b, ...), `t` (b,)
            and, if it has an attribute `num_classes`, `label` (b,), which returns the velocity,
            (b, ...): `keras_ext.models.UNet`, `keras_ext.models.MLPDenoiser`.
        interpolant: an `Interpolant`, its name, "linear", "trigonometric", "variance_preserving" or
            "stochastic", or a function `(x0, x1, t)`, see `FunctionInterpolant`.
        time_sampling: str, "uniform", "low_discrepancy", "logit_normal", or "one_step": the time is
            always 1, for a model that makes one step of Euler's, see `distill`.
        paired: bool, whether the rows of `fit((x0, x1))` are pairs.
        cond_dropout: float in [0, 1), the share of labels that are dropped in training.
        seed: int, of the noise in training; None: a random one. A loaded model begins anew.
        **kwargs: of `keras.Model`. `dtype` defaults to the policy of the network.

    Call arguments:
        inputs: data (b, ...), a pair (x0, x1), or a dict of `x` and maybe `x1` and `label`: gives the
            loss of each sample, (b,). A dict with `t` (b,) float32, too: gives the velocity at x,
            (b, ...).
        training: bool.

    Raises:
        ValueError: for a network without weights, an unknown name, an interpolant whose ends are not
            x0 and x1 (by its values; the error says how far off it is, and where); for data that are
            integers, not finite, far too large, none, or of another shape than the network's, pairs
            of different lengths, and labels beyond the classes. Of a data set the values cannot be
            read: there the loss is NaN.

    Example:

    >>> import numpy as np
    >>> import keras_ext
    >>> network = keras_ext.models.MLPDenoiser(2, hidden_dim=16)
    >>> model = RectifiedFlow(network, seed=0)
    >>> model.compile("adam")
    >>> history = model.fit(np.zeros((64, 2), "float32"), verbose=0)
    >>> result = model.sample(5, steps=4, solver="heun", seed=0)
    >>> tuple(result.x.shape), result.calls
    ((5, 2), 8)

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003; Flow Matching
        for Generative Modeling, Yaron Lipman et al., 2022, https://arxiv.org/abs/2210.02747
    """

    def __init__(
        self,
        network,
        interpolant="linear",
        time_sampling="uniform",
        paired=True,
        cond_dropout=0.0,
        seed=None,
        **kwargs,
    ):
        kwargs.setdefault("dtype", checked_network(network).dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.kept_samplers = KeptSamplers()
        self.network = network
        self.interpolant = interpolants.get(interpolant)
        interpolants.check_ends(self.interpolant, self._some_shape())
        self.time_sampling = known("time_sampling", time_sampling, (*TIMES, ONE_STEP))
        self.paired = bool(paired)
        self.cond_dropout = checked_dropout(cond_dropout, self.num_classes)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    @property
    def num_classes(self):
        """Number of classes of the network, which is the label of no class; None: it has none."""
        return getattr(self.network, "num_classes", None)

    @property
    def sample_shape(self):
        """The shape of one sample; None where the network does not say it."""
        return sample_shape_of(self.network)

    def _some_shape(self):
        """A shape on which the ends of an interpolant can be looked at."""
        return tuple(size or 4 for size in self.sample_shape or (4,))

    def call(self, inputs, training=None):
        inputs = _as_dict(inputs)
        unknown = inputs.keys() - {"x", "x1", "t", "label"}
        if "x" not in inputs or unknown:
            raise ValueError(
                "Expected data, a pair (x0, x1), or a dict of x and, maybe, x1, label and t. "
                f"Received: {sorted(inputs)}"
            )
        x, x1, label = self._floats(inputs["x"]), inputs.get("x1"), inputs.get("label")
        if "t" in inputs:
            return self._predict(x, ops.cast(inputs["t"], "float32"), label, training)
        return self._loss_of_each(x, None if x1 is None else self._floats(x1), label, training)

    def _floats(self, x):
        x = ops.convert_to_tensor(x)
        check_form(x, self.sample_shape)
        return ops.cast(x, "float32")

    def _loss_of_each(self, x0, x1, label, training):
        count = ops.shape(x0)[0]
        fine = seems_fit(x0, label, self.num_classes)
        seed = training_seed(self.seed_generator) if training else seed_pair(0)
        if x1 is None:
            x1 = standard_normal(seed, 0, ops.shape(x0))
        else:
            fine = ops.logical_and(fine, seems_fit(x1, None, None))
            if not self.paired:
                x1 = ops.take(x1, ops.argsort(uniform(seed, 3, (count,))), axis=0)
        if training:
            label = dropped(label, self.cond_dropout, self.num_classes, seed)
        t = self._times(seed, count, training)
        z = standard_normal(seed, 4, ops.shape(x0)) if self.interpolant.noisy else None
        value = self._predict(self.interpolant(x0, x1, t, z), t, label, training)
        error = ops.cast(value, "float32") - self.interpolant.velocity(x0, x1, t, z)
        mean = ops.mean(ops.square(error), axis=tuple(range(1, len(x0.shape))))  # (b,)
        return ops.where(fine, mean, float("nan"))

    def _times(self, seed, count, training):
        """Times between the first and the last that are trained, (b,) float32."""
        if self.time_sampling == ONE_STEP:
            return ops.ones((count,), "float32")
        if training:
            t = training_times(self.time_sampling, 0.0, uniform(seed, 1, (count,)))
        else:
            t = validation_times(count, 0.0)
        first, last = self.interpolant.first, self.interpolant.last
        return first + (last - first) * t

    def _predict(self, x, t, label=None, training=False):
        t = ops.clip(t, self.interpolant.first, self.interpolant.last)
        return self.network(network_inputs(x, t, label, self.num_classes), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return mean_of_losses(self, x, y, y_pred, sample_weight)

    # Of TensorFlow (data), of JAX (state, data).
    def train_step(self, *arguments):
        return super().train_step(*arguments[:-1], self._batch(arguments[-1]))

    def test_step(self, *arguments):
        return super().test_step(*arguments[:-1], self._batch(arguments[-1]))

    def _batch(self, data):
        x, label, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return with_labels((_as_dict(x), label, sample_weight), self.num_classes)

    def fit(self, x=None, y=None, *arguments, **named):
        return checked_fit(self, super().fit, x, y, *arguments, **named)

    def evaluate(self, x=None, y=None, *arguments, **named):
        return checked_evaluate(self, super().evaluate, x, y, *arguments, **named)

    def _check_arrays(self, x, label):
        x = _as_dict(x)
        check_arrays(x, label, self.sample_shape, self.num_classes)
        if hasattr(x.get("x1"), "dtype"):
            check_pairs(x["x"], x["x1"])
            check_data(x["x1"], self.sample_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "network": serialize_keras_object(self.network),
            "interpolant": serialize_keras_object(self.interpolant),
            "time_sampling": self.time_sampling,
            "paired": self.paired,
            "cond_dropout": self.cond_dropout,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("network", "interpolant"):
            if isinstance(config[name], dict):
                config[name] = deserialize_keras_object(config[name], custom_objects)
        return super().from_config(config, custom_objects)


def _as_dict(x):
    """Data, or a pair of two sets, as a dict of `x` and `x1`."""
    if isinstance(x, dict):
        return x
    if isinstance(x, tuple | list) and len(x) == 2:
        return {"x": x[0], "x1": x[1]}
    return {"x": x}
