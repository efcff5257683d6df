"""What the losses of a batch of pairs share: groups, negatives, and how far they are behind."""

import keras
from keras import ops

from keras_ext.losses.ranking import check_temperature
from keras_ext.losses.share_of_replica import share_of_replica
from keras_ext.ops import dot_scores, mask_scores, unit_vectors
from keras_ext.ops.labels import check_integers, lossless_tensor, nan_unless_integers, ranks
from keras_ext.ops.replicas import gather_over_replicas

NO_GROUP = -1
ABSENT = -2


def negative_gaps(y_true, y_pred, temperature, score, symmetric):
    """How far the negatives of each anchor together are above its positive.

        gap_i = log(sum_{j negative} exp(s_ij / T)) - s_ii / T,  -1e30 where there are none

    Args:
        y_true: (B,), (B, 1) or (B, 1 + K), the group ids of rows and of their hard negatives, as in
            `info_nce`; or None.
        y_pred: (B, 2 + K, d), anchor, positive and K hard negatives.
        temperature: float, T.
        score: "cosine" or "dot".
        symmetric: bool, whether the positives are anchors, too.

    Returns:
        A list of float32 (B,): the gaps of the anchors and, if `symmetric`, of the positives.

    Raises:
        ValueError: for another shape or another score, or an array of labels that are no integers.
    """
    check_score(score)
    check_integers(y_true)
    vectors = ops.cast(y_pred, "float32")
    if len(vectors.shape) != 3 or (vectors.shape[1] or 2) < 2:
        raise ValueError(
            "Vectors are (batch, 2 + hard negatives, dimension): anchor, positive, and hard "
            f"negatives as there are. Received: y_pred.shape={tuple(vectors.shape)}"
        )
    batch, texts, width = ops.shape(vectors)
    ids = candidate_ids(no_groups(vectors) if y_true is None else y_true, vectors)  # (B, 1 + K)
    shown = nan_unless_integers(ids, axis=1)
    groups = ids[:, 0]
    present = ops.logical_and((groups != ABSENT)[:, None], ids != ABSENT)
    # Not only masked: 0 times the NaN of an absent text would be NaN in the gradient.
    kept = ops.concatenate([present[:, :1], present], axis=1)
    vectors = ops.where(kept[..., None], vectors, 0.0)
    if score == "cosine":
        vectors = unit_vectors(vectors)
    anchors = vectors[:, 0] / temperature
    candidates = ops.reshape(vectors[:, 1:], (-1, width))  # (B (1 + K), d)
    alike = ops.logical_and(groups[:, None, None] == ids, groups[:, None, None] != NO_GROUP)
    hard = ops.arange(1, texts) > 1  # (1 + K,)
    # Of its own row an anchor has all hard negatives, whatever their ids, and never the positive.
    mask = ops.where(ops.eye(batch, dtype="bool")[..., None], hard, ops.logical_not(alike))
    mask = ops.logical_and(mask, ops.logical_and(present[:, :1, None], present))
    negative = mask[..., 0]  # (B, B)
    mask = ops.reshape(mask, (batch, -1))
    scores = ops.matmul(anchors, ops.transpose(candidates))  # (B, B (1 + K))
    positive = dot_scores(anchors, vectors[:, 1])  # (B,)
    gaps = [(ops.logsumexp(mask_scores(scores, mask), axis=1) - positive) * shown]
    if symmetric:
        backward = mask_scores(scores[:, :: texts - 1], negative)  # (B, B)
        gaps.append((ops.logsumexp(backward, axis=0) - positive) * shown)
    return gaps


def check_score(score):
    """Raises unless a score is one of inner products."""
    if score not in ("cosine", "dot"):
        raise ValueError(f"The score is 'cosine' or 'dot'. Received: {score=}")


def no_groups(y_pred):
    """int32 (B,): -1 for each row."""
    return ops.full((ops.shape(y_pred)[0],), NO_GROUP, dtype="int32")


def id_matrix(y_true):
    """Ids (B,), (B, 1) or (B, 1 + K) with two axes.

    Raises:
        ValueError: for another shape.
    """
    ids = lossless_tensor(y_true)
    if len(ids.shape) not in (1, 2):
        raise ValueError(
            "Labels are the group id of each row, (batch,) or (batch, 1), or those of each row and "
            "of its hard negatives, (batch, 1 + hard negatives). "
            f"Received: y_true.shape={tuple(ids.shape)}"
        )
    return ids[:, None] if len(ids.shape) == 1 else ids


def candidate_ids(y_true, vectors):
    """The id of each candidate: of the group of its row, and of its hard negatives.

    Args:
        y_true: (B,), (B, 1) or (B, 1 + K), ids.
        vectors: (B, 2 + K, d).

    Returns:
        Tensor (B, 1 + K): -1 for hard negatives whose ids are not given.

    Raises:
        ValueError: for another shape.
    """
    ids = id_matrix(y_true)
    given, texts = ids.shape[1], vectors.shape[1]
    if given == 1:
        unknown = (ops.shape(vectors)[0], ops.shape(vectors)[1] - 2)
        return ops.concatenate([ids, ops.full(unknown, NO_GROUP, dtype=ids.dtype)], axis=1)
    if None not in (given, texts) and given != texts - 1:
        raise ValueError(
            "Expected a group id of each row, or those of each row and of its hard negatives, "
            f"(batch, {texts - 1}). Received: y_true.shape={tuple(ids.shape)}, "
            f"y_pred.shape={tuple(vectors.shape)}"
        )
    return ids


def group_ranks(y_true, sample_weight=None):
    """Ids of any size as numbers below their count, for Keras casts labels to float32.

    Args:
        y_true: (B,), (B, 1) or (B, 1 + K), ids; -1: of no group, -2: absent.
        sample_weight: a number, (B,) or (B, 1); or None.

    Returns:
        float32 (B, 1 + K) or (B, 1): the rank of an id among all of the batch; -1 and -2 where it
        is that; -2 in rows whose weight is 0; NaN for what is no integer.
    """
    ids = id_matrix(y_true)
    found = ops.cast(ranks(ids), "float32")
    for kept in (NO_GROUP, ABSENT):
        found = ops.where(ids == kept, float(kept), found)
    found = found * nan_unless_integers(ids[..., None], axis=-1)
    if sample_weight is None:
        return found
    weights = ops.reshape(ops.convert_to_tensor(sample_weight), (-1, 1))
    return ops.where(weights == 0, float(ABSENT), found)


class InBatchLoss(keras.losses.Loss):
    """A loss whose negatives are the other rows of the batch. `call` is that of a subclass."""

    def __init__(self, temperature, score, symmetric, reduction, name, **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)
        check_temperature(temperature)
        check_score(score)
        self.temperature = temperature
        self.score = score
        self.symmetric = symmetric

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred, sample_weight = gather_over_replicas((y_true, y_pred, sample_weight))
        if y_true is None:
            y_true = no_groups(y_pred)
        # Keras casts labels to float32, where ids above 2**24 become one another.
        loss = super().__call__(group_ranks(y_true, sample_weight), y_pred, sample_weight)
        return share_of_replica(loss, self.reduction)

    def get_config(self):
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "score": self.score,
            "symmetric": self.symmetric,
        }
