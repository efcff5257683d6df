"""Which candidates are negatives: from texts to losses, against a loop over texts."""

import numpy as np
import pytest
from gradients import value_and_gradient
from keras import ops

from keras_ext.losses import FlatNCE, InfoNCE, Matryoshka
from keras_ext.losses.flat_nce import flat_nce
from keras_ext.losses.info_nce import info_nce
from keras_ext.sentences.training import text_groups

CLASSES = {info_nce: InfoNCE, flat_nce: FlatNCE}


def alike(rows):
    """For each row the texts that mean the same as its anchor: what rows that share one have."""
    groups = [set(row[:2]) for row in rows]
    for _ in rows:
        groups = [set().union(*(other for other in groups if other & group)) for group in groups]
    return groups


def left(row):
    """The negatives of a row that are not its own anchor or positive."""
    return [text for text in row[2:] if text not in row[:2]]


def reference(function, rows, vectors, symmetric=False, temperature=0.5):
    """The definition, in loops over texts and float64."""
    losses = []
    for row, group in zip(rows, alike(rows), strict=True):
        (anchor, positive), others = row[:2], [other for other in rows if other is not row]
        candidates = [text for other in others for text in (other[1], *left(other))]
        negatives = left(row) + [text for text in candidates if text not in group]
        directions = [(anchor, positive, negatives)]
        if symmetric:
            negatives = [other[0] for other in others if other[0] not in group]
            directions.append((positive, anchor, negatives))
        parts = []
        for query, right, negatives in directions:
            scores = [vectors[query] @ vectors[text] / temperature for text in negatives]
            if not scores:
                parts.append(0.0)
                continue
            gap = np.logaddexp.reduce(scores) - vectors[query] @ vectors[right] / temperature
            parts.append(np.logaddexp(0.0, gap) if function is info_nce else gap)
        losses.append(np.mean(parts))
    return np.array(losses)


def random_rows(rng, hard, texts=12, rows=6):
    """Rows of texts that stand in several rows and columns."""
    return [rng.integers(0, texts, 2 + hard).tolist() for _ in range(rows)]


def units(rng, texts=12):
    vectors = rng.normal(size=(texts, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("hard", [0, 1, 2])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("function", [info_nce, flat_nce])
def test_no_text_is_a_negative_of_those_it_is_a_positive_of(function, symmetric, hard):
    rng, seen = np.random.default_rng(0), set()
    loss = CLASSES[function](0.5, symmetric=symmetric, reduction="none")
    for _ in range(30):
        rows, vectors = random_rows(rng, hard), units(rng)
        labels = text_groups(list(zip(*rows, strict=True)))
        batch = vectors[np.array(rows)].astype("float32")
        expected = reference(function, rows, vectors, symmetric)
        for value in (function(labels, batch, 0.5, symmetric=symmetric), loss(labels, batch)):
            np.testing.assert_allclose(ops.convert_to_numpy(value), expected, rtol=1e-5, atol=1e-5)
        places = labels.reshape(6, -1)
        named = (places[:, 1:] >= 0).any(axis=1)
        own = places[:, 1:] == places[:, :1]
        seen |= {"left out"} if (places[:, 1:] == -2).any() else set()
        seen |= {"of another"} if (named & ~own.any(axis=1)).any() else set()
        seen |= {"own by others"} if (own & (places[:, :1] >= 0)).any() else set()
    assert seen == ({"left out", "of another", "own by others"} if hard else set())


def test_the_negative_of_another_row_that_is_the_own_positive():
    rows = [("a", "p", "n"), ("b", "q", "p")]
    labels = text_groups(list(zip(*rows, strict=True)))
    directions = dict(zip("apnbq", [0, 0, 2, 1, 1], strict=True))  # perfect vectors
    vectors = np.eye(3, dtype="float32")[[[directions[text] for text in row] for row in rows]]
    value, (gradient,) = value_and_gradient(lambda x: info_nce(labels, x), vectors)
    np.testing.assert_allclose(value, np.array([2.0, 3.0]) * np.exp(-20.0), rtol=1e-5)
    assert np.abs(gradient).max() < 1e-6
    unknown = ops.convert_to_numpy(info_nce(labels[:, 0], vectors))
    np.testing.assert_allclose(unknown[0], np.log(2.0), rtol=1e-5)  # p against itself


def test_groups_of_negatives():
    columns = [["a", "b", "c", "d"], ["p", "q", "q", "r"], ["q", "p", "b", "d"], ["z"] * 4]
    labels = text_groups(columns)
    assert (labels.shape, labels.dtype) == ((4, 3), np.int32)
    first, second = labels[0, 0], labels[1, 0]
    assert len({first, second, -1}) == 3  # the first is alone and has an id: its p is a negative
    assert labels.tolist() == [
        [first, second, -1],
        [second, first, -1],
        [second, second, -1],  # b and c are one by q, yet here b is to be wrong for c
        [-1, -2, -1],  # an anchor as its own negative
    ]


def test_absent_negatives_are_nowhere():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 4, 3)).astype("float32")
    labels = np.array([[0, -1, -2], [0, 5, -2], [5, 0, -2], [-1, -1, -2]])
    expected, (expected_gradient,) = value_and_gradient(
        lambda x: info_nce(labels[:, :2], x, 0.5), vectors[:, :3]
    )
    vectors[:, 3] = np.nan
    value, (gradient,) = value_and_gradient(lambda x: info_nce(labels, x, 0.5), vectors)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, :3], expected_gradient, atol=1e-6)
    assert not gradient[:, 3].any()
    whole = ops.convert_to_numpy(InfoNCE(0.5, reduction="none")(labels, vectors))
    np.testing.assert_allclose(whole, expected, rtol=1e-6)


def test_rows_of_weight_zero_are_absent_with_their_negatives():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 3, 3)).astype("float32")
    labels, weights = np.array([[0, 1], [1, 0], [0, -1], [2, 0]]), np.array([1.0, 0.0, 1.0, 2.0])
    kept, loss = weights > 0, InfoNCE(0.5, symmetric=True)
    expected = float(loss(labels[kept], vectors[kept], weights[kept]))
    vectors[1] = np.nan
    assert float(loss(labels, vectors, weights)) == pytest.approx(expected, rel=1e-6)


def test_large_ids_are_the_same_in_all_columns():
    """In float32, to which Keras casts labels, the two are one number."""
    small = np.array([[0, 1, -2], [1, -1, 0], [-1, 0, 1]])
    large = np.where(small < 0, small, small + 2**24).astype("int32")
    vectors = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")
    loss = InfoNCE(0.5, reduction="none")
    expected = ops.convert_to_numpy(info_nce(small, vectors, 0.5))
    np.testing.assert_allclose(ops.convert_to_numpy(loss(large, vectors)), expected, rtol=1e-6)
    merged = ops.convert_to_numpy(info_nce(large.astype("float32"), vectors, 0.5))
    assert abs(merged - expected).max() > 1e-2


def test_matryoshka_passes_the_groups_on():
    labels = np.array([[0, 1], [1, 0], [-1, 0]])
    vectors = np.random.default_rng(0).normal(size=(3, 3, 2)).astype("float32")
    loss = Matryoshka(InfoNCE(0.5), dims=[2, 1])
    parts = [info_nce(labels, vectors[..., :size], 0.5) for size in (2, 1)]
    expected = sum(ops.convert_to_numpy(part).mean() for part in parts)
    assert float(loss(labels, vectors)) == pytest.approx(expected, rel=1e-6)


def test_as_many_columns_as_the_rows_have_candidates():
    for shape in ((3, 2), (3, 4), (3, 3, 1)):
        with pytest.raises(ValueError, match="group id.*Received: y_true.shape"):
            info_nce(np.zeros(shape, "int32"), np.zeros((3, 4, 2), "float32"))
