import keras
from keras import ops

from keras_ext.losses.contrastive import InBatchLoss, negative_gaps
from keras_ext.ops import is_masked


def flat_nce(y_true, y_pred, temperature=0.05, score="cosine", symmetric=False):
    """Contrastive loss whose gradient does not fade as the positive comes first, for each anchor.

        loss_i = log(sum_{j negative} exp(s_ij / T)) - s_ii / T

    This is the decoupled contrastive loss, InfoNCE with the positive left out of the sum. With
    xi_i = exp(loss_i), the paper's loss is xi_i / constant(xi_i): the number 1, with this gradient.
    The value here is the one above, which says how far training is; it is negative once the
    positive is above all negatives, and has no lower bound but that of the scores.

    With p_i, the share of the positive in the softmax of InfoNCE,

        gradient of loss_i = gradient of InfoNCE / (1 - p_i)

    so it is InfoNCE in which each anchor weighs 1 / (1 - p_i). An anchor without negatives gives
    0, in value and in gradient.

    Args:
        y_true: (B,), (B, 1) or (B, 1 + K), the group ids of rows and of hard negatives, as in
            `info_nce`.
        y_pred: (B, 2 + K, d), vectors of an anchor, its positive and K hard negatives.
        temperature: float, T. Defaults to 0.05.
        score: "cosine" or "dot". Defaults to "cosine".
        symmetric: bool, whether the positives are anchors, too. Defaults to False.

    Returns:
        float32 (B,), 0 for absent rows.

    Raises:
        ValueError: for other shapes or another score, or an array of labels that are no integers.

    Example:

    >>> import numpy as np
    >>> vectors = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 1]]], "float32")
    >>> np.array(flat_nce(np.array([-1, -1]), vectors)).round(4).tolist()
    [-20.0, -20.0]

    Source: Junya Chen et al., Simpler, Faster, Stronger: Breaking The log-K Curse On Contrastive
    Learners With FlatNCE, 2021, https://arxiv.org/abs/2107.01152; Chun-Hsiao Yeh et al., Decoupled
    Contrastive Learning, 2021, https://arxiv.org/abs/2110.06848; https://kexue.fm/archives/8586
    """
    gaps = negative_gaps(y_true, y_pred, temperature, score, symmetric)
    return sum(ops.where(is_masked(gap), 0.0, gap) for gap in gaps) / len(gaps)


@keras.saving.register_keras_serializable(package="keras_ext")
class FlatNCE(InBatchLoss):
    """Contrastive loss whose gradient does not fade: the class for `compile`.

    Computes `flat_nce`, which has the formula and the source. Labels, sample weights and memory
    are those of `InfoNCE`.

    Args:
        temperature: float above 0. Defaults to 0.05.
        score: "cosine" or "dot". Defaults to "cosine".
        symmetric: bool, whether the positives are anchors, too. Defaults to False.
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`. Defaults to the
            mean by sample weights, which does not count absent rows.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: for a temperature not above 0 or another score.

    Example:

    >>> model = keras.Sequential([keras.Input((2, 8)), keras.layers.Dense(4)])
    >>> model.compile(loss=FlatNCE(symmetric=True))
    >>> history = model.fit(keras.random.normal((6, 2, 8)), verbose=0)
    """

    def __init__(
        self,
        temperature=0.05,
        score="cosine",
        symmetric=False,
        reduction="mean_with_sample_weight",
        name="flat_nce",
        **kwargs,
    ):
        super().__init__(temperature, score, symmetric, reduction, name, **kwargs)

    def call(self, y_true, y_pred):
        return flat_nce(y_true, y_pred, self.temperature, self.score, self.symmetric)
