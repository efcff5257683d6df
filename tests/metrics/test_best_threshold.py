import numpy as np
import pytest

from keras_ext.metrics.best_threshold import best_threshold


def accuracy(labels, scores, threshold):
    return np.mean((scores > threshold) == labels)


def brute_force(labels, scores):
    """The best accuracy over all midpoints and both ends."""
    levels = np.unique(scores.astype("float64"))
    thresholds = [-np.inf, *(levels[1:] + levels[:-1]) / 2, np.inf]
    return max(accuracy(labels, scores.astype("float64"), t) for t in thresholds)


@pytest.mark.parametrize("digits", [0, 1, 9])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_is_the_best_of_all_thresholds_with_and_without_ties(digits, dtype):
    rng = np.random.default_rng(digits)
    for size in (1, 2, 3, 5, 40, 41):
        for slope in (-1.0, 0.0, 1.0, 4.0):
            labels = rng.integers(0, 2, size)
            scores = (slope * labels + rng.normal(size=size)).round(digits).astype(dtype)
            threshold, best = best_threshold(labels, scores)
            assert best == brute_force(labels, scores)
            assert accuracy(labels, scores, threshold) == best
            assert accuracy(labels, scores, scores.dtype.type(threshold)) == best
            assert np.isfinite(threshold)


def test_it_is_halfway_in_the_widest_of_the_best_gaps():
    assert best_threshold([0, 1, 0, 1], [0.0, 1.0, 2.0, 5.0]) == (3.5, 0.75)
    assert best_threshold([0, 1, 0, 1], [0.0, 4.0, 5.0, 6.0]) == (2.0, 0.75)


def test_equal_scores_are_never_divided():
    assert best_threshold([0, 1, 0, 1], [1.0, 1.0, 1.0, 1.0])[1] == 0.5
    assert best_threshold([0, 1, 1], [2.0, 2.0, 2.0])[1] == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_neighbouring_numbers_are_told_apart(dtype):
    one = np.array(1.0, dtype)
    scores = np.array([one, np.nextafter(one, np.array(2.0, dtype))])
    for pair in (scores, -scores[::-1]):
        threshold, best = best_threshold([0, 1], pair)
        assert best == accuracy([0, 1], pair, threshold) == 1.0


def test_one_sided_labels_have_a_finite_threshold():
    for labels, scores in (([1, 1], [0.5, 0.5]), ([0, 0], [0.5, 2.0]), ([1, 0], [0.0, 1.0])):
        threshold, best = best_threshold(labels, scores)
        assert np.isfinite(threshold)
        assert accuracy(labels, np.array(scores), threshold) == best >= 0.5


def test_huge_scores_do_not_overflow():
    scores = np.array([-3e38, 3e38], "float32")
    assert best_threshold([False, True], scores) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "at least one"),
        ([0, 1], [0.5], "as many scores"),
        ([[0, 1]], [[0.5, 0.6]], "as many scores"),
        ([0, 1], [0.5, np.nan], r"Received: scores\[1\]=nan"),
        ([0, 1], [-np.inf, 0.5], r"Received: scores\[0\]=-inf"),
        ([0, 2], [0.5, 0.6], r"Labels must be 0 or 1. Received: labels\[1\]=2"),
        ([0.5, 1], [0.5, 0.6], "Labels must be 0 or 1"),
        ([np.nan, 1], [0.5, 0.6], "Labels must be 0 or 1"),
    ],
)
def test_bad_input_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        best_threshold(labels, scores)
