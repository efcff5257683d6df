"""The mean of the dropout that a masked language model is, put into the table."""

import keras
import ml_dtypes
import numpy as np
import pytest
from gradients import to_numpy
from keras import ops

from keras_ext.layers import MaskTokens, fold_mlm_mask_embedding
from keras_ext.models import BertEncoder

RNG = np.random.default_rng(0)


def table_of(dtype="float64", rows=12):
    return RNG.normal(size=(rows, 4)).astype(dtype)


def test_the_numbers_of_bert():
    table = table_of()
    # The post's own formula averages all rows.
    expected = 0.865 * table + 0.12 * table[3] + 0.015 * table.mean(0)
    folded = fold_mlm_mask_embedding(table, 3, exclude_ids=())
    np.testing.assert_allclose(folded, expected, rtol=1e-14)
    assert folded.dtype == "float64"


def test_any_rate_and_split_row_by_row():
    table, (q, a, b, c) = table_of(), (0.4, 0.5, 0.2, 0.3)
    folded = fold_mlm_mask_embedding(table, 11, q, (a, b, c), exclude_ids=(0, 5))
    mean = np.mean([table[i] for i in range(12) if i not in (0, 5)], axis=0)
    for i in range(12):
        row = (1 - q + q * b) * table[i] + q * a * table[11] + q * c * mean
        np.testing.assert_allclose(folded[i], table[i] if i in (0, 5) else row, rtol=1e-14)
    np.testing.assert_array_equal(fold_mlm_mask_embedding(table, 11, 0.0), table)
    np.testing.assert_allclose(fold_mlm_mask_embedding(table, 11, 1.0, (0, 1, 0)), table)


def test_it_is_the_mean_of_what_the_masked_model_saw():
    table = table_of("float32", rows=6)
    ids = np.tile(np.arange(1, 6), (300, 200))
    layer = MaskTokens(mask_id=5, vocabulary_size=6, rate=0.4, seed=0)
    seen = to_numpy(layer(ids, training=True)[0])
    folded = fold_mlm_mask_embedding(table, 5, select=0.4)
    for i in range(1, 6):
        mean = table[seen[ids == i]].mean(0)
        np.testing.assert_allclose(mean, folded[i], atol=0.02)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_half_precision_is_rounded_once(dtype):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    table = table_of(dtype)
    folded = fold_mlm_mask_embedding(table, 3)
    expected = fold_mlm_mask_embedding(table.astype("float32"), 3).astype(dtype)
    assert folded.dtype == table.dtype
    np.testing.assert_array_equal(folded.astype("float32"), expected.astype("float32"))
    tensor = ops.convert_to_tensor(table)
    assert fold_mlm_mask_embedding(tensor, 3).dtype == table.dtype


@pytest.mark.parametrize("tied", [False, True])
def test_the_table_of_an_encoder_is_changed_in_place(tied):
    encoder = BertEncoder(12, 1, 2, 4, 8, max_sequence_length=8, with_mlm=tied)
    layer = encoder.get_layer("Embedding-Token")
    before = to_numpy(layer.embeddings)
    inputs = {"token_ids": np.array([[4, 7]]), "segment_ids": np.zeros((1, 2))}
    inputs["padding_mask"] = np.ones((1, 2), bool)
    scores = encoder(inputs)
    assert fold_mlm_mask_embedding(layer, 3) is layer
    np.testing.assert_allclose(
        to_numpy(layer.embeddings), fold_mlm_mask_embedding(before, 3), rtol=1e-6
    )
    if tied:  # the scores are of the same table: they change, as the docs say
        assert np.abs(to_numpy(encoder(inputs)["mlm"]) - to_numpy(scores["mlm"])).max() > 1e-4


def test_what_is_refused():
    table = table_of()
    for arguments, said in [
        ({"mask_id": 12}, "Expected ids below 12"),
        ({"mask_id": 3, "exclude_ids": (0, 12)}, r"exclude_ids=\(0, 12\)"),
        ({"mask_id": 3, "exclude_ids": range(12)}, "not all of them excluded"),
        ({"mask_id": 3, "select": 1.5}, r"select in \[0, 1\]"),
        ({"mask_id": 3, "split": (1, 1, 1)}, "three probabilities"),
    ]:
        with pytest.raises(ValueError, match=said):
            fold_mlm_mask_embedding(table, **arguments)
    with pytest.raises(ValueError, match="table of floats"):
        fold_mlm_mask_embedding(np.ones((12, 3), "int8"), 3)
    with pytest.raises(ValueError, match="table of floats"):
        fold_mlm_mask_embedding(table[0], 3)
    lora = keras.layers.Embedding(12, 4)
    lora.build()
    lora.enable_lora(2)
    for layer in (keras.layers.Embedding(12, 4), keras.layers.Dense(3), lora):
        with pytest.raises(ValueError, match="Expected a built keras.layers.Embedding"):
            fold_mlm_mask_embedding(layer, 3)
