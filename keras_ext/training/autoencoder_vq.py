import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.metrics import CodePerplexity, CodeUsage
from keras_ext.ops.replicas import replica_count


@keras.saving.register_keras_serializable(package="keras_ext")
class AutoencoderVQ(keras.Model):
    """An autoencoder with codes in the middle: a VQ-VAE or FSQ-VAE, as the quantiser is.

        x -> encoder -> quantizer -> decoder -> reconstruction
        loss = loss of compile(x, reconstruction) + losses of the quantiser

    `compile`, `fit`, `evaluate` and `save` are those of Keras; `fit(x)` has x itself as the target,
    `fit(x, y)` another one. Logs have `usage`, the share of the codes that occurred in the epoch, and
    `perplexity`, exp of the entropy of their frequencies: at most the number of codes, and that if
    all are as frequent. Of a quantiser of several stages it is the mean over stages. Positions that
    the mask of the encoder's output hides are not counted.

    Where the encoder's width is not the quantiser's, a dense layer goes between them, and another
    one before the decoder: FSQ has a few channels only.

    Args:
        encoder: `keras.Model` that has its weights, from data (b, ...) to vectors (b, ..., d).
        quantizer: `keras_ext.layers.FSQ`, `VectorQuantizer`, `ResidualQuantizer`, or a layer with
            their `dim`, `num_codes`, `encode`, `decode`, `return_indices` and `return_loss`.
        decoder: `keras.Model` that has its weights, from vectors (b, ..., d) to data (b, ...).
        **kwargs: of `keras.Model`. `dtype` defaults to the policy of the encoder.

    Call arguments:
        inputs: data (b, ...); in a dict {"x": data}, as training passes it, the output is a dict, too.
        training: bool.

    Returns:
        The reconstruction (b, ...); or a dict of `reconstruction`, `indices` and the `loss` of the
        quantiser, which is not added to the losses of the model then.

    Raises:
        ValueError: for an encoder or decoder without weights or with several inputs or outputs,
            another object as the quantiser, and indices out of range in `decode`.

    Example:

    >>> import keras_ext
    >>> encoder = keras.Sequential([keras.Input((16,)), keras.layers.Reshape((4, 4))])
    >>> decoder = keras.Sequential([keras.Input((4, 4)), keras.layers.Flatten()])
    >>> model = AutoencoderVQ(encoder, keras_ext.layers.FSQ([5, 3]), decoder)
    >>> model.compile("adam")
    >>> history = model.fit(np.ones((8, 16)), verbose=0)
    >>> sorted(history.history)
    ['loss', 'perplexity', 'usage']
    >>> codes = model.encode(np.ones((8, 16)))
    >>> tuple(codes.shape), tuple(model.decode(codes).shape)
    ((8, 4), (8, 16))

    Source: Aaron van den Oord, Oriol Vinyals, Koray Kavukcuoglu, Neural Discrete Representation
    Learning, 2017, https://arxiv.org/abs/1711.00937; Fabian Mentzer et al., Finite Scalar
    Quantization: VQ-VAE Made Simple, 2023, https://arxiv.org/abs/2309.15505
    """

    def __init__(self, encoder, quantizer, decoder, **kwargs):
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            _check_network(name, network)
        _check_quantizer(quantizer)
        kwargs.setdefault("dtype", encoder.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        shape = encoder.output_shape
        inner = (*shape[:-1], quantizer.dim)
        self.project_in = self._projection(shape, inner, "project_in")
        if not quantizer.built:
            quantizer.build(inner)
        outer = (*shape[:-1], decoder.input_shape[-1])
        self.project_out = self._projection(inner, outer, "project_out")
        self.code_metrics = [
            CodeUsage(quantizer.num_codes, name="usage"),
            CodePerplexity(quantizer.num_codes, name="perplexity"),
        ]
        self.built = True

    def _projection(self, old, new, name):
        """A dense layer from one width to another; None where they are the same."""
        if old[-1] == new[-1]:
            return None
        dense = keras.layers.Dense(new[-1], dtype=self.dtype_policy, name=name)
        dense.build(old)
        return dense

    def call(self, inputs, training=None):
        detailed = isinstance(inputs, dict)
        z = self._vectors(inputs["x"] if detailed else inputs, training)
        if not detailed:
            return self._reconstructed(self.quantizer(z, training=training), training)
        # Not by `add_loss`: Keras would mix up those of several replicas.
        flags = {"training": training, "return_indices": True, "return_loss": True}
        codes, indices, loss = self.quantizer(z, **flags)
        x = self._reconstructed(codes, training)
        return {"reconstruction": x, "indices": indices, "loss": loss}

    def _vectors(self, x, training=False):
        z = self.encoder(x, training=training)
        return z if self.project_in is None else self.project_in(z)

    def _reconstructed(self, codes, training=False):
        codes = codes if self.project_out is None else self.project_out(codes)
        return self.decoder(codes, training=training)

    def encode(self, x, batch_size=None):
        """The codes of data.

        Every position has one that `decode` takes, also those that the mask of the encoder's output
        hides, where it stands for nothing. The `indices` of a call with {"x": data} are -1 there.

        Args:
            x: (b, ...) data.
            batch_size: int, how many are encoded at once; None: all. Defaults to None.

        Returns:
            (b, ...) int32; of a quantiser of several stages (b, ..., stages).
        """
        return in_batches(lambda part: self.quantizer.encode(self._vectors(part)), x, batch_size)

    def decode(self, codes, batch_size=None):
        """The data that codes stand for.

        Args:
            codes: integers, as `encode` gives them.
            batch_size: int, how many are decoded at once; None: all. Defaults to None.

        Returns:
            (b, ...).
        """

        def decoded(part):
            return self._reconstructed(self.quantizer.decode(part))

        return in_batches(decoded, codes, batch_size)

    # === Training ===
    def compile(self, optimizer="adam", loss="mse", **named):
        super().compile(optimizer, loss, **named)

    def compile_from_config(self, config):
        self.compile(**deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    # Of TensorFlow (data), of JAX (state, data).
    def train_step(self, *arguments):
        return super().train_step(*arguments[:-1], _detailed(arguments[-1]))

    def test_step(self, *arguments):
        return super().test_step(*arguments[:-1], _detailed(arguments[-1]))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y, x_again, details = _compared(x, y, y_pred)
        loss = super().compute_loss(x, y, x_again, sample_weight, training)
        return loss + details.get("loss", 0.0) / (replica_count() or 1)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, x_again, details = _compared(x, y, y_pred)
        if "indices" in details:
            for metric in self.code_metrics:
                metric.update_state(None, details["indices"])
        return super().compute_metrics(x, y, x_again, sample_weight)

    # Keras drops weights of samples that have no target.
    def fit(self, x=None, y=None, *arguments, **named):
        y = x if y is None and named.get("sample_weight") is not None else y
        return super().fit(x, y, *arguments, **named)

    def evaluate(self, x=None, y=None, *arguments, **named):
        y = x if y is None and named.get("sample_weight") is not None else y
        return super().evaluate(x, y, *arguments, **named)

    # === Saving ===
    def get_config(self):
        parts = ("encoder", "quantizer", "decoder")
        parts = {name: serialize_keras_object(getattr(self, name)) for name in parts}
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = ("encoder", "quantizer", "decoder")
        parts = {name: deserialize_keras_object(config[name], custom_objects) for name in parts}
        return super().from_config({**config, **parts}, custom_objects)


def in_batches(function, x, batch_size):
    """A function of a tensor (b, ...), called on parts of its rows."""
    x = ops.convert_to_tensor(x)
    if batch_size is None or x.shape[0] <= batch_size:
        return function(x)
    parts = [function(x[i : i + batch_size]) for i in range(0, x.shape[0], batch_size)]
    return ops.concatenate(parts)


def _detailed(data):
    """A batch whose call gives indices, too."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return {"x": x}, x if y is None else y, sample_weight


def _compared(x, y, y_pred):
    """Target, reconstruction, and what else a step has, a dict."""
    details = y_pred if isinstance(y_pred, dict) else {"reconstruction": y_pred}
    x = x["x"] if isinstance(x, dict) else x
    return x if y is None else y, details["reconstruction"], details


def _check_network(name, network):
    """Raises ValueError unless a network has its weights, one input and one output."""
    fits = isinstance(network, keras.Model) and network.built
    if not fits or len(network.inputs or ()) != 1 or len(network.outputs or ()) != 1:
        raise ValueError(
            f"Expected the {name} to be a keras.Model that has its weights, one input and one output "
            f"(a Sequential one begins with a keras.Input). Received: {name}={network!r}"
        )


def _check_quantizer(quantizer):
    """Raises ValueError unless a layer has what is called here."""
    if not all(hasattr(quantizer, name) for name in ("dim", "num_codes", "encode", "decode")):
        raise ValueError(
            "Expected a quantiser such as keras_ext.layers.FSQ or VectorQuantizer. "
            f"Received: {quantizer=}"
        )
