import numpy as np
import pytest

from keras_ext.data import plan
from keras_ext.entities.decoding import window_batches


def batches_of(trained, records, **kwargs):
    windows, spans, _ = plan(records, trained.tokenizer, trained.labels, 32, 8)
    return window_batches(windows, spans, 8, 32, trained.tokenizer.pad_id, **kwargs), windows


@pytest.mark.slow
def test_every_window_is_in_an_epoch_once_whatever_the_epoch(trained, records):
    batches, windows = batches_of(trained, records, seed=1)
    orders = []
    for _ in range(3):
        indices = np.concatenate([indices for _, indices in batches.batches])
        assert sorted(indices) == list(range(len(windows)))
        orders.append(indices.tolist())
        batches.on_epoch_end()
    assert orders[0] != orders[1]


def test_shapes_are_static_and_the_span_axis_never_varies(trained, records):
    batches, _ = batches_of(trained, records + [{"text": "Bo.", "entities": []}] * 9, seed=1)
    shapes = {batches[i][0]["token_ids"].shape for i in range(len(batches))}
    assert {shape[0] for shape in shapes} == {8}
    assert len(shapes) == 2
    assert {batches[i][1].shape for i in range(len(batches))} == {(8, 8, 3)}


def test_keras_sees_in_the_first_two_batches_that_the_length_varies(trained, records):
    for seed in range(20):
        batches, _ = batches_of(trained, records + [{"text": "Bo", "entities": []}] * 9, seed=seed)
        first, second = (batches[i][0]["token_ids"].shape for i in (0, 1))
        assert first != second


def test_the_same_seed_gives_the_same_order(trained, records):
    first, second = (batches_of(trained, records, seed=3)[0] for _ in range(2))
    for a, b in zip(first.batches, second.batches, strict=True):
        np.testing.assert_array_equal(a[1], b[1])
