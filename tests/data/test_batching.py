import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_ext.data import Window, bucket_lengths, collate, make_batches


@pytest.mark.parametrize("factor", [1.05, 1.5, 2.0, 10.0])
@pytest.mark.parametrize("smallest", [1, 16, 20, 100])
@pytest.mark.parametrize("max_length", [1, 16, 17, 50, 128, 511, 512])
def test_buckets_ascend_to_the_largest_length(max_length, smallest, factor):
    lengths = bucket_lengths(max_length, smallest, factor)
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == max_length
    assert lengths[0] == min(smallest, max_length)
    assert all(length % 8 == 0 for length in lengths[1:-1])


def test_common_buckets_are_few_and_waste_little():
    assert bucket_lengths(128) == [16, 32, 48, 80, 128]
    assert len(bucket_lengths(512)) <= 9


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(3, 64), st.integers(0, 20)), max_size=80),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(0, 99)),
)
def test_every_window_is_in_one_batch_that_it_fits(items, batch_size, seed):
    lengths, counts = [n for n, _ in items], [k for _, k in items]
    batches = make_batches(lengths, counts, batch_size, [16, 32, 48, 64], seed)
    together = [int(i) for _, _, indices in batches for i in indices]
    assert sorted(together) == list(range(len(items)))
    shapes = {}
    for length, k, indices in batches:
        assert all(lengths[i] <= length and counts[i] <= k for i in indices)
        assert k % 8 == 0
        assert shapes.setdefault(length, k) == k
    short = [length for length, _, indices in batches if len(indices) < batch_size]
    assert len(short) <= 1
    assert len(batches) == -(-len(items) // batch_size)
    again = make_batches(lengths, counts, batch_size, [16, 32, 48, 64], seed=7)
    assert sorted({b[:2] for b in again}) == sorted(shapes.items())  # nothing compiles anew


def test_a_seed_mixes_windows_and_batches_and_gives_the_same_again():
    lengths, counts = [8] * 40 + [30] * 40, [1] * 80
    one, same, other, plain = (
        [
            (n, indices.tolist())
            for n, _, indices in make_batches(lengths, counts, 4, [16, 32], seed)
        ]
        for seed in (1, 1, 2, None)
    )
    assert one == same
    assert one != other
    assert {frozenset(i) for _, i in one} != {frozenset(i) for _, i in other}
    assert [n for n, _ in one] != sorted(n for n, _ in one)
    assert plain == [(16 if i < 10 else 32, list(range(4 * i, 4 * i + 4))) for i in range(20)]


def test_few_windows_of_many_lengths_share_one_batch():
    batches = make_batches([5, 20, 40, 60], [0, 0, 9, 0], 8, [16, 32, 48, 64])
    assert [(n, k, sorted(i.tolist())) for n, k, i in batches] == [(64, 16, [0, 1, 2, 3])]


def test_no_windows_give_no_batches():
    assert make_batches([], [], 4, [16]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([17], [0], 4, [16]), r"fits no bucket.*lengths\[0\]=17"),
        (([5], [0, 1], 4, [16]), r"len\(span_counts\)=2"),
        (([5], [0], 0, [16]), "batch_size=0"),
        (([5], [0], 4, [32, 16]), "ascending"),
    ],
)
def test_batches_that_cannot_be_made_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_batches(*arguments)


@pytest.mark.parametrize("arguments", [(128, 16, 1.0), (0, 16, 2.0), (16, 0, 2.0)])
def test_impossible_buckets_are_errors(arguments):
    with pytest.raises(ValueError, match="factor above 1"):
        bucket_lengths(*arguments)


def windows():
    return [Window(0, 0, np.arange(2, 2 + n), np.zeros((n, 2), "int32")) for n in (3, 5, 2)]


def test_a_batch_holds_its_windows_and_masked_rows_of_no_weight():
    spans = [np.array([[1, 1, 2]]), np.array([[0, 1, 1], [2, 1, 3]]), np.zeros((0, 3), "int32")]
    inputs, labels, weight = collate(windows(), spans, np.array([1, 2]), 3, length=6, k=8, pad_id=9)
    assert inputs["token_ids"].tolist() == [[2, 3, 4, 5, 6, 9], [2, 3, 9, 9, 9, 9], [9] * 6]
    assert inputs["padding_mask"].sum(axis=1).tolist() == [5, 2, 0]
    np.testing.assert_array_equal(inputs["padding_mask"], inputs["token_ids"] != 9)
    assert not inputs["segment_ids"].any()
    assert labels[0].tolist() == [[0, 1, 1], [2, 1, 3]] + [[-1] * 3] * 6
    assert np.all(labels[1:] == -1)
    assert weight.tolist() == [1, 1, 0]


def test_types_and_shapes_are_static():
    for indices in ([], [0], [0, 1, 2]):
        inputs, labels, weight = collate(windows(), [np.zeros((0, 3))] * 3, indices, 3, 8, 16, 0)
        found = {name: (x.shape, x.dtype.name) for name, x in inputs.items()}
        assert found == {
            "token_ids": ((3, 8), "int32"),
            "segment_ids": ((3, 8), "int32"),
            "padding_mask": ((3, 8), "bool"),
        }
        assert (labels.shape, labels.dtype.name) == ((3, 16, 3), "int32")
        assert (weight.shape, weight.dtype.name) == ((3,), "float32")
    assert collate(windows(), None, [0], 3, 8, 16, 0)[1] is None


def test_what_does_not_fit_is_an_error():
    spans = [np.zeros((9, 3))] * 3
    with pytest.raises(ValueError, match="too many windows.*=3"):
        collate(windows(), None, [0, 1, 2], 2, 8, 8, 0)
    with pytest.raises(ValueError, match="window 1 is too long.*Received: 5"):
        collate(windows(), None, [1], 2, 4, 8, 0)
    with pytest.raises(ValueError, match="window 0 has too many spans.*Received: 9"):
        collate(windows(), spans, [0], 2, 8, 8, 0)
