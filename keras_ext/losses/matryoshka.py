import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class Matryoshka(keras.losses.Loss):
    """A loss on the first components of vectors, for several numbers of them: a vector that can
    be cut.

        loss = sum_k loss_weights_k * loss(y, x[..., :dims_k])

    It is the sum, as in the paper and in sentence-transformers, not the mean: with weights of 1
    its value is about as many times that of `loss` as there are sizes.

    A cut vector has another length, so a score that is sensitive to it, such as "dot" on the
    output of `LearnableTemperature`, loses its meaning; the cosine does not.

    Args:
        loss: the loss of vectors, an instance of `keras.losses.Loss`. It gets labels and sample
            weights as they come.
        dims: list of distinct positive ints, the numbers of components; the width itself is one of
            them only if it is in the list.
        loss_weights: list of a number for each of `dims`. None: 1 each. Defaults to None.
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`; "of_loss": as
            `loss` says. Defaults to "of_loss".
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Call arguments:
        y_true: the labels of `loss`. Vectors as wide as those of `y_pred`, with as many axes, are
            cut, too.
        y_pred: (..., d), the vectors in whatever layout `loss` has.

    Raises:
        ValueError: for a loss that is no `keras.losses.Loss`, for `dims` that are not distinct and
            positive, for another number of weights, and when called, for a dimension above d.

    Example:

    >>> model = keras.Sequential([keras.Input((2, 8)), keras.layers.Dense(4)])
    >>> from keras_ext.losses import InfoNCE
    >>> model.compile(loss=Matryoshka(InfoNCE(), dims=[4, 2]))
    >>> history = model.fit(keras.random.normal((6, 2, 8)), verbose=0)

    Source: Aditya Kusupati et al., Matryoshka Representation Learning, 2022,
    https://arxiv.org/abs/2205.13147
    """

    def __init__(
        self, loss, dims, loss_weights=None, reduction="of_loss", name="matryoshka", **kwargs
    ):
        loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss
        if not isinstance(loss, keras.losses.Loss):
            raise ValueError(f"Expected an instance of keras.losses.Loss. Received: {loss=}")
        dims = list(dims)
        if not dims or len(set(dims)) < len(dims) or min(dims) < 1:
            raise ValueError(f"Dimensions are distinct and positive. Received: {dims=}")
        if loss_weights is not None and len(loss_weights) != len(dims):
            raise ValueError(
                f"Expected a weight for each of {len(dims)} dimensions. Received: {loss_weights=}"
            )
        reduction = loss.reduction if reduction == "of_loss" else reduction
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.loss = loss
        self.dims = dims
        self.loss_weights = loss_weights if loss_weights is None else list(loss_weights)
        # One reduction, not two: the loss of a part gives what is returned.
        self.part_loss = type(loss).from_config({**loss.get_config(), "reduction": reduction})

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Not the call of Keras, which casts labels and weighs what may be no loss of a row.
        return self._sum(
            lambda y, x: self.part_loss(y, x, sample_weight=sample_weight), y_true, y_pred
        )

    def call(self, y_true, y_pred):
        return self._sum(self.part_loss.call, y_true, y_pred)

    def _sum(self, loss, y_true, y_pred):
        y_pred = ops.convert_to_tensor(y_pred)
        width = y_pred.shape[-1]
        if max(self.dims) > width:
            raise ValueError(
                f"Vectors of {width} components have no first {max(self.dims)}. "
                f"Received: dims={self.dims}, y_pred.shape={tuple(y_pred.shape)}"
            )
        shape = getattr(y_true, "shape", ())
        vectors = len(shape) == len(y_pred.shape) and shape[-1] == width
        return sum(
            weight * loss(y_true[..., :size] if vectors else y_true, y_pred[..., :size])
            for size, weight in zip(
                self.dims, self.loss_weights or [1.0] * len(self.dims), strict=True
            )
        )

    def get_config(self):
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "dims": self.dims,
            "loss_weights": self.loss_weights,
        }
