"""Texts as rows of token ids, rows as batches for an encoder of sentences."""

import warnings

import keras
import numpy as np

from keras_ext.data import bucket_lengths, make_batches, pad_rows
from keras_ext.tasks.fitting import lengths_differ_first, numeric_mask


def token_rows(tokenizer, texts, max_length):
    """The ids of each text between the start and the end token, cut to `max_length`.

    Args:
        tokenizer: `data.Tokenizer`.
        texts: list of strings.
        max_length: int, tokens of a row, the two special ones included.

    Returns:
        List of int32 arrays, and the number of texts that were cut.
    """
    start, end = [tokenizer.start_id], [tokenizer.end_id]
    found = tokenizer.encode_ids(texts)
    rows = [np.concatenate([start, ids[: max_length - 2], end], dtype="int32") for ids in found]
    return rows, sum(len(ids) > max_length - 2 for ids in found)


def warn_of_cut(cut, texts, max_length):
    """Warns of texts that were cut, if there are any."""
    if cut:
        warnings.warn(
            f"{cut} of {texts} texts have more than max_length={max_length} tokens; what comes "
            "after is not read.",
            stacklevel=4,
        )


class ExampleBatches(keras.utils.PyDataset):
    """Examples of several texts as batches of few static shapes, for `fit`.

    All texts of a batch are padded to one length. A short last batch is filled up with rows whose
    sample weight is 0.

    Args:
        columns: list of m lists of int32 arrays, the token ids of the texts of each example.
        targets: array (examples, ...), what the loss gets as `y_true`.
        batch_size: int, examples of a batch.
        max_length: int, tokens of the longest row.
        pad_id: int, id of the padding token.
        seed: int that shuffles, anew in every epoch; None keeps the order.
        replicas: int, devices that share a batch; as many rows are added as make it divisible.
        **kwargs: `workers` and others of `keras.utils.PyDataset`.
    """

    def __init__(
        self, columns, targets, batch_size, max_length, pad_id, seed=None, replicas=1, **kwargs
    ):
        super().__init__(**kwargs)
        self.columns = columns
        self.targets = targets
        self.batch_size = batch_size
        self.rows = -(-batch_size // replicas) * replicas
        self.pad_id = pad_id
        self.seed = seed
        self.epoch = 0
        self.lengths = np.max([[len(row) for row in column] for column in columns], axis=0)
        self.buckets = bucket_lengths(max_length)
        self._plan()

    def _plan(self):
        seed = None if self.seed is None else (self.seed, self.epoch)
        batches = make_batches(
            self.lengths, np.zeros_like(self.lengths), self.batch_size, self.buckets, seed=seed
        )
        self.batches = lengths_differ_first([(length, indices) for length, _, indices in batches])

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        length, indices = self.batches[index]
        views = tuple(
            numeric_mask(pad_rows([column[i] for i in indices], self.rows, length, self.pad_id))
            for column in self.columns
        )
        targets = np.zeros((self.rows, *self.targets.shape[1:]), self.targets.dtype)
        targets[: len(indices)] = self.targets[indices]
        weights = np.zeros(self.rows, "float32")
        weights[: len(indices)] = 1.0
        return views, targets, weights

    def on_epoch_end(self):
        self.epoch += 1
        self._plan()

    def forget(self):
        """Lets go of the data, for TensorFlow keeps for good what it has read from."""
        self.columns, self.batches = [], []
        self.targets = self.targets[:0].copy()
