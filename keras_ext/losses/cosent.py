import keras
from keras import ops

from keras_ext.losses.ranking import check_temperature, present_rows, ranking_logsumexp
from keras_ext.losses.share_of_replica import share_of_replica
from keras_ext.ops import score_function
from keras_ext.ops.labels import lossless_tensor, ranks
from keras_ext.ops.replicas import gather_over_replicas

LAYOUTS = ("pairs", "interleaved")


@keras.saving.register_keras_serializable(package="keras_ext")
class CoSENT(keras.losses.Loss):
    """Trains vectors so that pairs of texts score in the order of their labels.

        s_i = score(u_i, v_i)
        L = log(1 + sum over y_i < y_j of w_i w_j exp((s_i - s_j) / T))

    One number for the whole batch, of `ranking_logsumexp`: O(B log B) time and O(B) memory beyond
    the vectors. Only the order of the labels counts: scores of 0 to 5, yes and no, and the classes
    of natural language inference (contradiction 0, neutral 1, entailment 2) all are labels. Equal
    labels make no pair of pairs; a batch with one label only has loss 0 and gradient 0.

    Vectors come in one of two layouts:

    - `pairs`: y_pred (B, 2, d), y_true (B,) or (B, 1). It can be shuffled.
    - `interleaved`: y_pred (2 B, d), rows 2 i and 2 i + 1 are a pair, and y_true (2 B,) or (2 B, 1)
      has its label twice, as in bert4keras. Label and weight are those of the first row. The number
      of rows is even: do not let `fit` shuffle rows, and let each batch hold whole pairs. Where the
      two labels of a pair differ, rows were shuffled, and the loss is NaN.

    Weights: `sample_weight` has one number w_i for each label, and multiplies pair by pair of
    pairs: a pair of weight 2 beside one of weight 3 counts 6 times. All weights times c is not the
    loss times c. A pair of weight 0, or with a NaN label, is absent, even where its vectors are
    NaN. `class_weight` becomes sample weights in Keras, by the labels rounded to integers.

    What a loss of the whole batch entails:

    - It grows with the batch: compare validation losses only at one batch size.
    - Under `tf.distribute` the vectors of all replicas are gathered: the loss is that of one device.
    - Accumulating gradients over small batches is not the large batch, since pairs of different
      batches are not compared; `CachedContrastiveModel` is.

    In sentence-transformers, `CoSENT()` is CoSENTLoss and `CoSENT(score="angle")` is AnglELoss.

    Args:
        temperature: float above 0, T, the inverse of the published scale. Defaults to 0.05, for
            scores of a cosine's size. For inner products, which are larger, take 1.
        score: "cosine", "dot" or "angle" (see `ops.score_function`); or a function of two tensors
            (B, d) that gives (B,). To be saved and loaded, the function is registered with
            `keras.saving.register_keras_serializable`. Defaults to "cosine".
        layout: "pairs" or "interleaved". Defaults to "pairs".
        name: name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`. There is one number to reduce:
            any reduction returns it as a scalar, `"none"` and None as (1,).

    Raises:
        ValueError: for another layout or score, or a temperature not above 0; when called, for shapes
            that are not of the layout, such as an odd number of rows. Where TensorFlow did not
            know that number when it traced, as in `fit`, an odd one is its InvalidArgumentError,
            of the node `rows_of_pairs_must_be_even`.

    Example:

    >>> model = keras.Sequential([keras.Input((2, 8)), keras.layers.Dense(4)])
    >>> model.compile(loss=CoSENT())
    >>> labels = np.array([0.0, 2.5, 5.0, 2.5, 1.0, 4.0])
    >>> history = model.fit(keras.random.normal((6, 2, 8)), labels, verbose=0)

    Source: Jianlin Su, CoSENT, 2022, https://kexue.fm/archives/8847. Score "angle": Xianming Li and
    Jing Li, AnglE-optimized Text Embeddings, 2023, https://arxiv.org/abs/2309.12871
    """

    def __init__(self, temperature=0.05, score="cosine", layout="pairs", name="cosent", **kwargs):
        super().__init__(name=name, **kwargs)
        check_temperature(temperature)
        if layout not in LAYOUTS:
            raise ValueError(f"The layout is one of {LAYOUTS}. Received: {layout=}")
        if isinstance(score, dict):
            score = keras.saving.deserialize_keras_object(score)
        self.temperature = temperature
        self.score = score
        self.layout = layout
        self.score_function = score_function(score)

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred, sample_weight = gather_over_replicas((y_true, y_pred, sample_weight))
        y_true = lossless_tensor(y_true)
        if "int" in keras.backend.standardize_dtype(y_true.dtype):
            y_true = ranks(y_true)  # Keras casts labels to float32, where some would be equal
        # A weight is no factor of the loss: it goes in with the labels.
        if sample_weight is not None:
            y_true = (y_true, sample_weight)
        return share_of_replica(super().__call__(y_true, y_pred), self.reduction)

    def call(self, y_true, y_pred):
        """The loss, (1,). `y_true` is the labels, or a tuple of labels and weights."""
        labels, weights = y_true if isinstance(y_true, tuple) else (y_true, 1.0)
        vectors = self._pairs(ops.cast(y_pred, "float32"))  # (B, 2, d)
        labels, torn = self._by_pair(labels, y_pred), self._torn(labels)
        weights = ops.convert_to_tensor(weights)
        if weights.shape == ():
            weights = ops.full_like(labels, weights, dtype="float32")
        else:
            weights = self._by_pair(weights, y_pred)
        # Not only in the sum: 0 times the NaN of an absent row would be NaN in the gradient.
        present = present_rows(labels, weights)
        vectors = ops.where(present[:, None, None], vectors, 0.0)
        scores = self.score_function(vectors[:, 0], vectors[:, 1])
        loss = ranking_logsumexp(labels, scores, self.temperature, weights)
        return ops.reshape(ops.where(torn, float("nan"), loss), (1,))

    def _pairs(self, vectors):
        """The vectors of either layout as (B, 2, d)."""
        shape = vectors.shape
        if self.layout == "pairs":
            if len(shape) != 3 or shape[1] not in (None, 2):
                raise ValueError(
                    "In the layout 'pairs', vectors are (batch, 2, dimension). "
                    f"Received: y_pred.shape={tuple(shape)}"
                )
            return vectors
        if len(shape) != 2 or (shape[0] or 0) % 2:
            raise ValueError(
                "In the layout 'interleaved', vectors are (rows, dimension), two rows to a pair, "
                "so the number of rows is even. If it is that of a last, short batch, drop it or "
                f"take an even batch size. Received: y_pred.shape={tuple(shape)}"
            )
        with keras.name_scope("rows_of_pairs_must_be_even"):  # stands in TensorFlow's own error
            return ops.reshape(vectors, (-1, 2, ops.shape(vectors)[1]))

    def _by_pair(self, values, y_pred):
        """Labels or weights, (rows,) or (rows, 1), as (B,)."""
        values = ops.convert_to_tensor(values)
        shape, rows = values.shape, y_pred.shape[0]
        column = len(shape) == 1 or (len(shape) == 2 and shape[1] in (None, 1))
        if not column or (None not in (shape[0], rows) and shape[0] != rows):
            raise ValueError(
                "Labels and weights are one number for each row of the vectors, (rows,) or "
                f"(rows, 1). Received: shape={tuple(shape)}, y_pred.shape={tuple(y_pred.shape)}"
            )
        values = ops.reshape(values, (-1,))
        return values[::2] if self.layout == "interleaved" else values

    def _torn(self, labels):
        """Whether the two rows of a pair have different labels, so that they are no pair."""
        if self.layout == "pairs":
            return False
        with keras.name_scope("rows_of_pairs_must_be_even"):
            first, second = ops.unstack(ops.reshape(labels, (-1, 2)), 2, axis=1)
        differ = first != second
        if "float" in keras.backend.standardize_dtype(first.dtype):
            absent = ops.logical_and(ops.isnan(first), ops.isnan(second))
            differ = ops.logical_and(differ, ops.logical_not(absent))
        return ops.any(differ)

    def get_config(self):
        score = self.score
        score = keras.saving.serialize_keras_object(score) if callable(score) else score
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "score": score,
            "layout": self.layout,
        }

    @classmethod
    def from_config(cls, config):
        if "scale" in config:  # as earlier versions saved it
            config = {**config, "temperature": 1.0 / config["scale"]}
            del config["scale"]
        return super().from_config(config)
