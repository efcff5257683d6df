import keras
from keras import ops

from keras_ext.losses.contrastive import InBatchLoss, negative_gaps


def info_nce(y_true, y_pred, temperature=0.05, score="cosine", symmetric=False):
    """Cross-entropy of the positive among all candidates of the batch, for each anchor.

        loss_i = softplus(log(sum_{j negative} exp(s_ij / T)) - s_ii / T)
               = -log(exp(s_ii / T) / (exp(s_ii / T) + sum_{j negative} exp(s_ij / T)))

    The candidates of an anchor are the positives of all rows and the hard negatives of all rows.
    Its own positive is the positive; negative are

    - the positives of the other rows, save those of its own group;
    - its own hard negatives;
    - the hard negatives of all other rows, save those whose text belongs to its group. What is
      wrong for one of a group is wrong for all of it.

    The two forms are equal, but not in floating point. Once the positive is some 16 above the
    negatives, softmax gives it 1 in float32, and the gradient of its score is 0. The first form,
    computed here, has the gradients of all scores exact at any distance.

    An anchor without negatives gives 0, in value and in gradient.

    Args:
        y_true: (B,), (B, 1) or (B, 1 + K). The first column has the group id of each row: rows of
            one id are no negatives of each other, such as repetitions of a text, or several
            positives of one anchor. The others have, for each hard negative, the id of the group
            that its text belongs to: the text is a positive there. -1: of no group, -2: the row,
            or this hard negative, is absent. None: no row has a group, no hard negative is in one. A
            label that is no integer, such as NaN, makes the loss of its row NaN.
        y_pred: (B, 2 + K, d), vectors of an anchor, its positive and K hard negatives.
        temperature: float, T. Defaults to 0.05.
        score: "cosine" or "dot". Defaults to "cosine".
        symmetric: bool, whether the positives are anchors, too, with the anchors as candidates;
            the loss is the mean of both. Hard negatives are in the first alone. Defaults to False.

    Returns:
        float32 (B,), 0 for absent rows.

    Raises:
        ValueError: for other shapes or another score, or an array of labels that are no integers.

    Example:

    >>> import numpy as np
    >>> vectors = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 1]]], "float32")
    >>> [f"{x:.2e}" for x in np.array(info_nce(np.array([-1, -1]), vectors))]
    ['2.06e-09', '2.06e-09']
    >>> np.array(info_nce(np.array([7, 7]), vectors)).tolist()
    [0.0, 0.0]

    The hard negative of the second row is the positive of the first one:

    >>> negatives = np.array([[[0, 1]], [[1, 0]]], "float32")
    >>> vectors = np.concatenate([vectors, negatives], axis=1)
    >>> [f"{x:.2e}" for x in np.array(info_nce(np.array([-1, -1]), vectors))]
    ['6.93e-01', '6.93e-01']
    >>> [f"{x:.2e}" for x in np.array(info_nce(np.array([[0, 1], [1, 0]]), vectors))]
    ['4.12e-09', '4.12e-09']

    Source: Aaron van den Oord et al., Representation Learning with Contrastive Predictive Coding,
    2018, https://arxiv.org/abs/1807.03748
    """
    gaps = negative_gaps(y_true, y_pred, temperature, score, symmetric)
    return sum(ops.softplus(gap) for gap in gaps) / len(gaps)


@keras.saving.register_keras_serializable(package="keras_ext")
class InfoNCE(InBatchLoss):
    """Cross-entropy of the positive among all candidates of the batch: the class for `compile`.

    Computes `info_nce`, which has the formula and the source. Elsewhere it is called
    MultipleNegativesRanking.

    A sample weight multiplies the loss of the anchor of its row. A row of weight 0 is absent: its
    texts are nobody's negatives. Labels are group ids of rows, and of hard negatives where they are
    known: any integers, -1 for none, -2 for what is absent (JAX holds 32 bits of them). `fit`
    without labels means that no row has a group.

    The loss grows with the batch, and so does its memory: it needs the B x B (1 + K) scores in
    float32, and temporaries of their size.

    Args:
        temperature: float above 0. Defaults to 0.05.
        score: "cosine" or "dot". Defaults to "cosine". "dot" with a temperature of 1 takes the
            vectors of the layer `LearnableTemperature`.
        symmetric: bool, whether the positives are anchors, too. Defaults to False.
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`. Defaults to the
            mean by sample weights, which does not count absent rows.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: for a temperature not above 0 or another score.

    Example:

    >>> model = keras.Sequential([keras.Input((2, 8)), keras.layers.Dense(4)])
    >>> model.compile(loss=InfoNCE(temperature=0.1))
    >>> history = model.fit(keras.random.normal((6, 2, 8)), verbose=0)
    """

    def __init__(
        self,
        temperature=0.05,
        score="cosine",
        symmetric=False,
        reduction="mean_with_sample_weight",
        name="info_nce",
        **kwargs,
    ):
        super().__init__(temperature, score, symmetric, reduction, name, **kwargs)

    def call(self, y_true, y_pred):
        return info_nce(y_true, y_pred, self.temperature, self.score, self.symmetric)
