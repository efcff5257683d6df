"""How well scores follow labels, of NumPy arrays."""

import warnings

import numpy as np


def spearman(labels, scores):
    """Spearman's rank correlation; equal values share the mean of their ranks.

    It asks only whether the order is right, so no scale of the scores matters.

    Args:
        labels: (n,) numbers.
        scores: (n,) numbers.

    Returns:
        A float in [-1, 1]. NaN if all labels or all scores are equal, for less than two rows, and
        if a number is NaN.

    Raises:
        ValueError: If the two differ in length, or are not vectors.

    Example:

    >>> round(spearman([0, 1, 2, 2], [-0.5, 0.1, 0.7, 0.9]), 4)
    0.9487
    """
    from scipy.stats import spearmanr  # here: it takes longer than all else of `import keras_ext`

    return _correlation(spearmanr, labels, scores)


def pearson(labels, scores):
    """Pearson's correlation: how near labels and scores are to a straight line.

    Args:
        labels: (n,) numbers.
        scores: (n,) numbers.

    Returns:
        A float in [-1, 1]. NaN if all labels or all scores are equal, for less than two rows, and
        if a number is NaN.

    Raises:
        ValueError: If the two differ in length, or are not vectors.

    Example:

    >>> round(pearson([0, 1, 2, 2], [-0.5, 0.1, 0.7, 0.9]), 4)
    0.9909
    """
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, scores)


def _correlation(function, labels, scores):
    labels, scores = (np.asarray(x, "float64") for x in (labels, scores))
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            "Expected as many scores as labels, both of the shape (n,). Received: "
            f"labels.shape={labels.shape}, scores.shape={scores.shape}"
        )
    if len(labels) < 2 or np.isnan(labels).any() or np.isnan(scores).any():
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that equal values have no correlation: NaN says it
        return float(function(labels, scores).statistic)
