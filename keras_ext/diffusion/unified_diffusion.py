import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion import forward_processes
from keras_ext.diffusion.data_checks import check_form
from keras_ext.diffusion.forward_processes import tokens
from keras_ext.diffusion.kept_samplers import KeptSamplers, run_kept
from keras_ext.diffusion.model_sampling import first_state
from keras_ext.diffusion.model_training import (
    checked_evaluate,
    checked_fit,
    checked_network,
    mean_of_losses,
)
from keras_ext.diffusion.noise import seed_pair, training_seed, uniform
from keras_ext.diffusion.training_loss import training_times, validation_times
from keras_ext.diffusion.unified_sample import checked_logits, step_times, unified_sample
from keras_ext.ops.settings import number, whole

FIRST_TIME = 1e-3
"""The least time that is trained where time is continuous."""


@keras.saving.register_keras_serializable(package="keras_ext")
class UnifiedDiffusion(keras.Model):
    """Trains a network to restore what a process of any kind has degraded, and samples by it.

        loss = E loss(x_0, network(x_t, t)),  x_t = F_t(x_0, noise)

    with the mean square for floats and cross-entropy for tokens, see `forward_processes`. Noise,
    blur, pixels, fading, masks; images, vectors, text: what differs is in the process. `compile`,
    `fit`, `evaluate` and `save` are those of Keras, with its loss scaling, accumulation,
    `jit_compile`, callbacks, sample weights, replicas and JAX. There is no loss to pass to
    `compile`, and no metric.

    - **Data**: `fit(x)`, or `fit({"x": x, "noise": x1})` for a process that leads to other data.
      Floats of about [-1, 1], or token ids.
    - **Validation**: a batch has always the same times and the same noise; `predict` gives this loss
      of each sample.
    - **Averages**: if the optimizer has `use_ema=True`, samples come from the averages of the
      weights.
    - **Precision**: times, states and loss are float32 in any policy of the network.

    Args:
        network: `keras.Model` that has its weights, called with a dict of `x` (b, ...), float32 or
            int32, and `t` (b,) float32 (`x` alone if it is a functional model without such an
            input, as masks need none: x tells how many there are). Gives the data, (b, ...), or
            logits (b, ..., vocabulary_size).
        forward: a `ForwardProcess` or its name.
        steps: int, T: the times are i / T, i = 1 ... T; None: all in (0, 1).
        rule: str, the rule of the steps of `sample`; None: the default of the process.
        seed: int, of the noise in training; None: a random one. A loaded model begins anew.
        **kwargs: of `keras.Model`. `dtype` defaults to the policy of the network.

    Call arguments:
        inputs: data (b, ...), or a dict of `x` and `noise`: gives the loss of each sample, (b,). A
            dict with `t` (b,) float32: gives what the network says of degraded data `x`.
        training: bool.

    Raises:
        ValueError: for a network without weights, an unknown process or rule; for data of a wrong
            dtype or shape, or not finite, or far too large, or beyond the vocabulary. Of a data set
            the values cannot be read: there the loss is NaN.

    Example:

    >>> x = keras.Input((6,), dtype="int32", name="x")
    >>> logits = keras.layers.Dense(5)(keras.layers.Embedding(5, 8)(x))
    >>> forward = forward_processes.get("mask", vocabulary_size=5)
    >>> model = UnifiedDiffusion(keras.Model({"x": x}, logits), forward, seed=0)
    >>> model.compile("adam")
    >>> history = model.fit(np.tile(np.arange(4), (32, 2))[:, :6], verbose=0)
    >>> result = model.sample(3, steps=4, seed=0)
    >>> tuple(result.x.shape), int(np.max(result.x)) < 4, result.calls
    ((3, 6), True, 4)

    Source: https://kexue.fm/archives/9262; Structured Denoising Diffusion Models in Discrete
        State-Spaces, Jacob Austin et al., 2021, https://arxiv.org/abs/2107.03006; Cold Diffusion:
        Inverting Arbitrary Image Transforms Without Noise, Arpit Bansal et al., 2022,
        https://arxiv.org/abs/2208.09392
    """

    def __init__(self, network, forward, steps=None, rule=None, seed=None, **kwargs):
        kwargs.setdefault("dtype", checked_network(network).dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.kept_samplers = KeptSamplers()
        self.network = network
        self.forward = forward_processes.get(forward)
        self.steps = None if steps is None else whole("steps", steps)
        self.rule = self.forward.checked_rule(rule)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    @property
    def sample_shape(self):
        """The shape of one sample; None where the network does not say it."""
        return self._input_shapes().get("x")

    # === Training ===
    def call(self, inputs, training=None):
        inputs = inputs if isinstance(inputs, dict) else {"x": inputs}
        unknown = inputs.keys() - {"x", "t", "noise"}
        if "x" not in inputs or unknown:
            raise ValueError(
                f"Expected data, or a dict of x and, maybe, noise or t. Received: {sorted(inputs)}"
            )
        x = self._state(inputs["x"])
        if "t" in inputs:
            return self._predict(x, ops.cast(inputs["t"], "float32"), training)
        return self._loss_of_each(x, inputs.get("noise"), training)

    def _state(self, x):
        """Data as a tensor; dtype and shape are known in a graph, too."""
        x = ops.convert_to_tensor(x)
        if self.forward.vocabulary_size is None:
            check_form(x, self.sample_shape)
            return ops.cast(x, "float32")
        tokens.check_form(x, self.sample_shape, "x")
        return ops.cast(x, "int32")

    def _loss_of_each(self, x, noise, training):
        count, first = ops.shape(x)[0], 0.0 if self.steps else FIRST_TIME
        if training:
            seed = training_seed(self.seed_generator)
            t = training_times("low_discrepancy", first, uniform(seed, 1, (count,)))
        else:
            seed, t = seed_pair(0), validation_times(count, first)
        if self.steps:
            t = ops.ceil(t * self.steps) / self.steps
        if noise is None:
            noise = self.forward.noise(ops.shape(x), seed)
        else:
            check_noise(x, noise)
            noise = ops.cast(noise, x.dtype)
        noisy = self.forward.degrade(x, self.forward.levels(t), noise)
        losses = self.forward.loss(x, noisy, self._predict(noisy, t, training), t)
        return ops.where(self.forward.fits(x), losses, float("nan"))

    def _predict(self, x, t, training=False):
        shapes = self._input_shapes()
        inputs = {"x": x, "t": t} if not shapes or "t" in shapes else {"x": x}
        value = self.network(inputs, training=training)
        size = self.forward.vocabulary_size
        return value if size is None else checked_logits(value, x, size)

    def _input_shapes(self):
        """Name -> shape without the batch of the inputs of a functional network."""
        inputs = getattr(self.network, "inputs", None) or []
        return {each.name: tuple(each.shape[1:]) for each in inputs}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return mean_of_losses(self, x, y, y_pred, sample_weight)

    def fit(self, x=None, y=None, *arguments, **named):
        return checked_fit(self, super().fit, x, y, *arguments, **named)

    def evaluate(self, x=None, y=None, *arguments, **named):
        return checked_evaluate(self, super().evaluate, x, y, *arguments, **named)

    def _check_arrays(self, x, y):
        """Refuses what can be seen of arrays alone; of data sets the call sees dtype and shape."""
        if y is not None:
            raise ValueError(
                f"The data are the targets. Expected no targets. Received: y={y!r:.80}"
            )
        given = x if isinstance(x, dict) else {"x": x}
        arrays = [each for each in (given.get("x"), given.get("noise")) if hasattr(each, "dtype")]
        for each in arrays:
            self.forward.check_data(each, self.sample_shape)
        if len(arrays) == 2:
            check_noise(*arrays)

    # === Sampling ===
    def restorer(self):
        """What `unified_sample` takes: a function `(x, t, temperature=1.0)`.

        It divides logits by the temperature; floats have none.
        """

        def restore(x, t, temperature=None):
            value = ops.cast(self._predict(x, t), "float32")
            return value if temperature is None else value / temperature

        restore.variables = self.network.variables  # which `compiled` gives JAX at each call
        return restore

    def sample(
        self,
        n_or_start,
        steps=None,
        rule=None,
        seed=None,
        temperature=1.0,
        return_trajectory=False,
        rho=None,
        use_ema=True,
        jit_compile=None,
    ):
        """Draws samples, or restores what is degraded; see `unified_sample`.

        It is compiled at its first call for a shape, a number of steps and a rule; start, seed and
        temperature may then differ. After `compile(run_eagerly=True)` nothing is compiled.

        Args:
            n_or_start: int, number of samples, which begin with `forward.prior`; or (n, ...), x at
                time 1: degraded data, or a text of which some tokens are masked.
            steps: int, network calls, or a list of the steps + 1 times, the first of which is that
                of the start. None: those of the model, 50 for continuous time.
            rule: str; None: that of the model.
            seed: int, or None for a random one.
            temperature: float above 0, by which logits are divided before tokens are drawn: below 1
                the likely ones get likelier.
            return_trajectory: bool, whether to keep the states of all steps.
            rho: float, or one for each step, see `unified_sample`; "mix" alone.
            use_ema: bool, whether to take the averages of the weights, where there are any.
            jit_compile: bool, whether to compile with XLA. None: as `compile` was told.

        Returns:
            `SampleResult`: `x` (n, ...), `trajectory` (steps + 1, n, ...) or None, `calls`.

        Raises:
            ValueError: for no samples, a bad start, more steps than the model has, a rule that the
                process does not have, and a network that gives NaN; the error names the step.
        """
        rule = self.rule if rule is None else self.forward.checked_rule(rule)
        times = step_times((self.steps or 50) if steps is None else steps, self.steps)
        conditions = {}
        if not number("temperature", temperature) > 0:
            raise ValueError(f"Expected temperature above 0. Received: temperature={temperature}")
        if temperature != 1.0:
            if self.forward.vocabulary_size is None:
                raise ValueError(
                    "Only tokens are drawn by their probabilities. Expected temperature=1 for "
                    f"floats. Received: temperature={temperature}"
                )
            conditions["temperature"] = ops.convert_to_tensor(temperature, "float32")
        return run_kept(
            self,
            unified_sample,
            self.restorer(),
            self.forward,
            self._start(n_or_start, rule, seed),
            times,
            seed,
            conditions,
            use_ema,
            jit_compile,
            check=self.forward.checked,
            rule=rule,
            rho=rho,
            return_trajectory=return_trajectory,
        )

    def _start(self, n_or_start, rule, seed):
        def checked(start):
            start = self.forward.checked(start, "n_or_start")
            self.forward.check_start(start, rule)
            self._state(start)
            return start

        def drawn(shape):
            return self.forward.prior(shape, seed)

        return first_state("n_or_start", n_or_start, self.sample_shape, checked, drawn)

    # === Saving ===
    def get_config(self):
        return {
            **super().get_config(),
            "network": serialize_keras_object(self.network),
            "forward": serialize_keras_object(self.forward),
            "steps": self.steps,
            "rule": self.rule,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: deserialize_keras_object(config[name], custom_objects)
            for name in ("network", "forward")
        }
        return super().from_config({**config, **parts}, custom_objects)


def check_noise(x, noise):
    """Refuses noise that is not one for each sample of the data x, of the same shape."""
    sizes = zip(x.shape, noise.shape, strict=False)
    if len(x.shape) != len(noise.shape) or any(a != b and None not in (a, b) for a, b in sizes):
        raise ValueError(
            f"Expected noise of the shape of x, {tuple(x.shape)}. "
            f"Received: noise.shape={tuple(noise.shape)}"
        )
