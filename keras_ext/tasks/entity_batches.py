"""Texts as windows, windows as batches, batches through the model."""

import keras
import numpy as np

from keras_ext.data import bucket_lengths, collate, make_batches, make_windows


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
        **kwargs: `workers` and others of `keras.utils.PyDataset`.
    """

    def __init__(self, windows, spans, batch_size, max_length, pad_id, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.windows = windows
        self.spans = spans
        self.batch_size = batch_size
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
        # Keras on TensorFlow learns from the first two batches which dimensions vary: the length
        # must differ there if it ever does, and the number of spans must not vary at all.
        count = max((count for _, count, _ in batches), default=0)
        self.batches = [(length, count, indices) for length, _, indices in batches]
        for place, batch in enumerate(self.batches):
            if batch[0] != self.batches[0][0]:
                self.batches.insert(1, self.batches.pop(place))
                break

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        length, count, indices = self.batches[index]
        return collate(
            self.windows, self.spans, indices, self.batch_size, length, count, self.pad_id
        )

    def on_epoch_end(self):
        self.epoch += 1
        self._plan()


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


def score_windows(model, windows, batch_size, max_length, pad_id):
    """Runs a model over windows, batch by batch.

    Args:
        model: the model of a task.
        windows: list of `data.Window`.
        batch_size: int, the largest number of rows of a batch.
        max_length: int, tokens of the largest batch.
        pad_id: int, id of the padding token.

    Yields:
        Indices of windows, and the model's float32 output for them, one row a window.

    Raises:
        ValueError: if an output is not finite.
    """
    # A few texts make a batch of few rows; powers of two keep the number of shapes small.
    rows = min(batch_size, 1 << max(len(windows) - 1, 0).bit_length())
    data = EntityBatches(windows, None, rows, max_length, pad_id)
    for number, (_, _, indices) in enumerate(data.batches):
        inputs, _, _ = data[number]
        scores = np.asarray(model.predict_on_batch(inputs), "float32")[: len(indices)]
        for index, row in zip(indices, scores, strict=True):
            if not np.isfinite(row).all():
                raise ValueError(
                    "The model gives scores that are not finite; its weights are damaged. "
                    f"Received: text {windows[index].document}"
                )
        yield indices, scores
