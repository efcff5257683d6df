import keras
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.training.chunked_encoder import ChunkedEncoder


@keras.saving.register_keras_serializable(package="keras_ext")
class CachedContrastiveModel(keras.Model):
    """Trains an encoder on batches as large as the loss wants, holding one chunk at a time.

    A contrastive or ranking loss sees all examples of a batch at once, so that gradients of parts
    of the batch do not add up to its gradient (accumulating them trains on small batches). But the
    loss sees only vectors h, which are small. So a training step

    1. encodes the batch chunk by chunk and keeps nothing but the vectors;
    2. takes the loss of all of them, and its gradient G = dL/dh;
    3. encodes each chunk again and adds up the gradients of the weights

        dL/dtheta = sum_chunks d/dtheta sum(h_chunk * G_chunk),   G a constant;

    4. applies the optimizer once.

    This is the gradient of the whole batch. The memory is that of one chunk, the vectors and what
    the loss needs; the time is about 4/3, for two passes forward and one backward.

    All of it happens in the call: `compile`, `fit`, any loss of the vectors, sample weights,
    metrics, regularisers of weights, loss scaling, accumulation and averaging in the optimizer are
    those of Keras, and `jit_compile` works. `evaluate` and `predict` go chunk by chunk, too.

    - **Dropout works.** The second pass begins with the states of the random generators of the
      first, and draws the same numbers. (The post below holds that the method and dropout do not go
      together, for want of this.) Chunks draw one after the other: the numbers are those of
      encoding the chunks in turn, all chunks of the first view before those of the second.
    - The last chunk is filled with copies of the last example, which get no gradient.
    - `BatchNormalization` takes its statistics from chunks, the copies included. Its moving
      averages are updated in the first pass only.
    - No gradient flows to the inputs.

    Args:
        encoder: `keras.Model` that has its weights, from a structure of tensors with a leading axis
            of rows to vectors (rows, d); or a list of such models, one for each view. The same one
            may come again. Different ones may share layers, but then only `save_weights` keeps
            them: Keras cannot load such a model.
        chunk_size: int of at least 1, examples of a view in a chunk. Time is best where a chunk
            just keeps the machine busy; memory grows with it.
        head: layer or None, called on the vectors (b, m, d) of the whole batch, such as
            `keras_ext.layers.LearnableTemperature` or `PairClassifier`. Defaults to None.
        **kwargs: of `keras.Model`. `dtype` defaults to the policy of the encoder.

    Call arguments:
        views: list or tuple of m structures, each of tensors with a leading axis of b examples; the
            other axes may differ between views.
        training: bool.

    Returns:
        The vectors (b, m, d) in the dtype of the encoder, or what the head makes of them.

    Raises:
        ValueError: for a chunk size below 1, an encoder without weights, another number of views
            than of encoders, or views of different numbers of examples; if encoders give no vectors
            (rows, d) of one width, add losses of activities, or change in a call what is not their
            state (random numbers without a `keras.random.SeedGenerator` of the layer).

    Example:

    >>> import numpy as np
    >>> ids = keras.Input((None,), dtype="int32")
    >>> tokens = keras.layers.Embedding(100, 16)(ids)
    >>> encoder = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(tokens))
    >>> model = CachedContrastiveModel(encoder, chunk_size=2)
    >>> def triplet_loss(y_true, y_pred):
    ...     anchor, positive, negative = keras.ops.unstack(y_pred, 3, axis=1)
    ...     return keras.ops.softplus(keras.ops.sum(anchor * (negative - positive), axis=-1))
    >>> model.compile("adam", triplet_loss)
    >>> views = [np.ones((5, 7)), np.ones((5, 9)), np.zeros((5, 4))]
    >>> history = model.fit(views, np.zeros(5), verbose=0)
    >>> model.predict(views, verbose=0).shape
    (5, 3, 16)

    Source: Luyu Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup, 2021, https://arxiv.org/abs/2101.06983; Jianlin Su, 2021,
    https://kexue.fm/archives/8471
    """

    def __init__(self, encoder, chunk_size, head=None, **kwargs):
        first = encoder[0] if isinstance(encoder, (list, tuple)) and encoder else encoder
        kwargs.setdefault("dtype", getattr(first, "dtype_policy", None))
        super().__init__(autocast=False, **kwargs)
        self.chunked_encoder = ChunkedEncoder(encoder, chunk_size, name="chunked_encoder")
        self.head = head

    @property
    def encoder(self):
        """The model that is trained, or the list of them."""
        return self.chunked_encoder.encoder

    def build(self, input_shape):
        shape = self.chunked_encoder.compute_output_shape(input_shape)
        self.chunked_encoder.build(input_shape)
        if self.head is not None and not self.head.built:
            self.head.build(shape)

    def call(self, views, training=None):
        vectors = self.chunked_encoder(views, training=training)
        return vectors if self.head is None else self.head(vectors)

    def compute_output_shape(self, input_shape):
        shape = self.chunked_encoder.compute_output_shape(input_shape)
        return shape if self.head is None else self.head.compute_output_shape(shape)

    def compute_output_spec(self, views, training=None):
        spec = self.chunked_encoder.compute_output_spec(views)
        return spec if self.head is None else self.head.compute_output_spec(spec)

    def get_config(self):
        encoder = self.encoder
        if isinstance(encoder, (list, tuple)):
            _check_no_shared_variables(encoder)
            # An encoder that comes again is the index of the first of its views.
            first = [next(j for j, x in enumerate(encoder) if x is each) for each in encoder]
            encoder = [
                serialize_keras_object(encoder[j]) if j == i else j for i, j in enumerate(first)
            ]
        else:
            encoder = serialize_keras_object(encoder)
        return {
            **super().get_config(),
            "encoder": encoder,
            "chunk_size": self.chunked_encoder.chunk_size,
            "head": serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = config["encoder"]
        if isinstance(encoder, list):
            made = []
            for each in encoder:
                again = isinstance(each, int)
                made.append(made[each] if again else deserialize_keras_object(each, custom_objects))
            encoder = made
        else:
            encoder = deserialize_keras_object(encoder, custom_objects)
        head = deserialize_keras_object(config["head"], custom_objects)
        return super().from_config({**config, "encoder": encoder, "head": head}, custom_objects)


def _check_no_shared_variables(encoders):
    """Raises where different encoders have variables in common: Keras writes and cannot read them."""
    owners = {}
    for encoder in encoders:
        for variable in encoder.variables:
            if owners.setdefault(id(variable), encoder) is not encoder:
                raise ValueError(
                    "Expected encoders that share no layers: Keras cannot load such models. Keep "
                    "them with `save_weights`, or pass one encoder for all views. "
                    f"Received: {variable.path} in several encoders"
                )
