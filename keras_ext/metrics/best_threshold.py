import numpy as np


def best_threshold(labels, scores):
    """The threshold by which `score > threshold` tells the labels 1 from 0 best.

    Every way to divide the scores is counted, by one sort, so the accuracy is the best that there
    is. Of several thresholds with this accuracy it is the one in the widest gap, halfway between
    two scores. Where all scores are best on one side, it is the highest score or just below the
    lowest.

    Args:
        labels: (n,) of 0 and 1, or booleans.
        scores: (n,) finite numbers.

    Returns:
        A tuple (threshold, accuracy) of floats. The threshold is a number of the scores' dtype, so
        that rounding moves no score to the other side.

    Raises:
        ValueError: If there are no scores, one is not finite, a label is neither 0 nor 1, or the
            two differ in length.

    Example:

    >>> best_threshold([0, 0, 1, 0, 1], [0.0, 0.5, 0.75, 1.5, 2.5])
    (2.0, 0.8)
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape or not labels.size:
        raise ValueError(
            "Expected as many scores as labels, both of the shape (n,), and at least one. "
            f"Received: labels.shape={labels.shape}, scores.shape={scores.shape}"
        )
    if scores.dtype.kind != "f":
        scores = scores.astype("float64")
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise ValueError(f"Scores must be finite. Received: scores[{bad[0]}]={scores[bad[0]]}")
    bad = np.flatnonzero((labels != 0) & (labels != 1))
    if bad.size:
        raise ValueError(f"Labels must be 0 or 1. Received: labels[{bad[0]}]={labels[bad[0]]}")
    order = np.argsort(scores)
    scores, positive = scores[order], labels[order] == 1
    # correct[k] if the k lowest scores are called 0 and all others 1.
    negatives = np.concatenate([[0], np.cumsum(~positive)])
    positives = np.concatenate([[0], np.cumsum(positive)])
    correct = negatives + positives[-1] - positives
    gaps = np.concatenate([[0.0], scores[1:] / 2 - scores[:-1] / 2, [0.0]])  # halves: no overflow
    apart = np.concatenate([[True], scores[1:] > scores[:-1], [True]])
    correct[~apart] = -1  # equal scores are on one side
    best = np.flatnonzero(correct == correct.max())
    k = best[np.argmax(gaps[best])]
    if k == 0:
        threshold = np.nextafter(scores[0], scores.dtype.type(-np.inf))
    elif k == len(scores):
        threshold = scores[-1]
    else:
        low, high = scores[k - 1], scores[k]
        middle = low / 2 + high / 2
        threshold = middle if low <= middle < high else low
    return float(threshold), int(correct[k]) / len(scores)
