"""Texts as windows, windows as batches."""

import keras
import numpy as np

from keras_ext.data import bucket_lengths, collate, make_batches, make_windows
from keras_ext.tasks.fitting import lengths_differ_first, numeric_mask


class EntityBatches(keras.utils.PyDataset):
    """Windows of text as batches of few static shapes, for `fit` and `predict`.

    Args:
        windows: list of `data.Window`.
        spans: list of int32 (m, 3) arrays, the gold spans of each window; None without labels.
        batch_size: int, rows of a batch. A short last batch is filled up with masked rows whose
            sample weight is 0.
        max_length: int, tokens of the largest batch.
        pad_id: int, id of the padding token.
        seed: int that shuffles, anew in every epoch; None keeps the order of files.
        replicas: int, devices that share a batch; as many rows are added as make it divisible.
        **kwargs: `workers` and others of `keras.utils.PyDataset`.
    """

    def __init__(
        self, windows, spans, batch_size, max_length, pad_id, seed=None, replicas=1, **kwargs
    ):
        super().__init__(**kwargs)
        self.windows = windows
        self.spans = spans
        self.batch_size = batch_size
        self.rows = -(-batch_size // replicas) * replicas
        self.pad_id = pad_id
        self.seed = seed
        self.epoch = 0
        self.lengths = np.array([len(window.ids) for window in windows], "int64")
        counts = [0] * len(windows) if spans is None else [len(found) for found in spans]
        self.counts = np.array(counts, "int64")
        self.buckets = bucket_lengths(max_length)
        self._plan()

    def _plan(self):
        seed = None if self.seed is None else (self.seed, self.epoch)
        batches = make_batches(self.lengths, self.counts, self.batch_size, self.buckets, seed=seed)
        # One number of spans for all: the shapes of two batches cannot show that it varies as well.
        count = max((count for _, count, _ in batches), default=0)
        self.batches = lengths_differ_first(
            [(length, count, indices) for length, _, indices in batches]
        )

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        length, count, indices = self.batches[index]
        inputs, *others = collate(
            self.windows, self.spans, indices, self.rows, length, count, self.pad_id
        )
        return numeric_mask(inputs), *others

    def on_epoch_end(self):
        self.epoch += 1
        self._plan()

    def forget(self):
        """Lets go of the data, for TensorFlow keeps for good what it has read from."""
        self.windows, self.spans, self.batches = [], None, []


def text_windows(tokenizer, texts, max_length, stride):
    """The windows of each text in turn.

    Args:
        tokenizer: `data.Tokenizer`.
        texts: list of strings.
        max_length: int, tokens of a window, the two special ones included.
        stride: int, tokens that consecutive windows share.

    Returns:
        List of `data.Window`; `document` is the index of the text.
    """
    special = tokenizer.start_id, tokenizer.end_id
    return [
        window
        for document, encoding in enumerate(tokenizer.encode_batch(texts))
        for window in make_windows(encoding, document, max_length, stride, *special)
    ]
