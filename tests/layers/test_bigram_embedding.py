import numpy as np
import pytest

from keras_ext.layers.bigram_embedding import BigramEmbedding


def rows_of(token_ids, buckets):
    """The formula in 64 bits."""
    ids = np.asarray(token_ids, "int64")
    following = np.concatenate([ids[:, 1:], 0 * ids[:, :1]], axis=1)
    return (round(0.618 * buckets) * ids + following) % buckets


@pytest.mark.parametrize("buckets", [1, 2, 7, 1000, 50000, 999_983, 2**20])
def test_rows_are_those_of_64_bit_arithmetic(buckets):
    ids = np.random.default_rng(0).integers(0, 2**31 - 1, (4, 50)).astype("int32")
    ids[0] = 2**31 - 1
    ids[1] %= 30000
    ids[2] = buckets - 1
    rows = np.array(BigramEmbedding(buckets, 1).hash_pairs(ids))
    assert rows.dtype == "int32"
    np.testing.assert_array_equal(rows, rows_of(ids, buckets))


def test_output_holds_the_rows_of_the_table():
    layer = BigramEmbedding(20, 3)
    ids = np.array([[4, 5, 4, 5], [9, 0, 0, 7]])
    output = np.array(layer(ids))
    np.testing.assert_array_equal(output, layer.get_weights()[0][rows_of(ids, 20)])


def test_a_padded_position_counts_as_id_0_whatever_it_holds():
    layer = BigramEmbedding(1000, 3)
    mask = np.array([[True, True, False]])
    padded = np.array(layer(np.array([[4, 5, 77]]), mask=mask))
    np.testing.assert_array_equal(padded, np.array(layer(np.array([[4, 5, 0]]))))
    np.testing.assert_array_equal(padded[:, :2], np.array(layer(np.array([[4, 5]]))))


def test_pairs_of_frequent_ids_spread_evenly():
    first, second = np.meshgrid(np.arange(1, 201), np.arange(1, 201))
    pairs = np.stack([first.ravel(), second.ravel()], axis=1)
    rows = np.array(BigramEmbedding(50000, 1).hash_pairs(pairs))[:, 0]
    assert np.bincount(rows).max() <= 3  # 40000 pairs; at random the fullest row has about 7


@pytest.mark.parametrize("buckets", [0, -1, 2**20 + 1])
def test_buckets_out_of_range_are_refused(buckets):
    with pytest.raises(ValueError, match=f"between 1 and 1048576. Received: buckets={buckets}"):
        BigramEmbedding(buckets, 4)
