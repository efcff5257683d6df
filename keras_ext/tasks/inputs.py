"""What users pass to a task as plain lists, and what its model gets: batches of few shapes."""

from collections.abc import Mapping
from os import PathLike

import keras
import numpy as np

from keras_ext.data import bucket_lengths, check_records, make_batches


def as_texts(texts, name="texts"):
    """Texts in any form as a list of strings.

    Args:
        texts: a string or a dict with `"text"`; or many of them, in order: a list, a tuple, an
            array or a column of strings, a generator.
        name: what the argument is called, for messages.

    Returns:
        A list of str, and whether it was one text alone.

    Raises:
        ValueError: for anything else; the message names what was found, and where.
    """
    if isinstance(texts, (str, Mapping)):
        return [_text(texts, name)], True
    return [_text(text, f"{name}[{i}]") for i, text in enumerate(_many(texts, name, "text"))], False


def text_list(texts, name):
    """`as_texts` where one text alone would be a mistake."""
    texts, alone = as_texts(texts, name)
    if alone:
        raise ValueError(f"Expected a list of texts. Received: {name}={texts[0]!r:.80}")
    return texts


def as_records(records, name="records"):
    """Records in any form, one alone too, as `data.check_records` gives them.

    Args:
        records: a record, or many of them: a list, a tuple, a generator.
        name: what the argument is called, for messages.

    Raises:
        ValueError: for anything else, such as a path or a string; and as `data.check_records`.
    """
    if isinstance(records, Mapping):
        records = [records]
    return check_records(_many(records, name, "record"), name)


def as_callbacks(callbacks):
    """Callbacks as a list: None and one alone are accepted, as Keras does.

    Raises:
        ValueError: for what is not a callback, such as its class.
    """
    found = [] if callbacks is None else keras.tree.flatten(callbacks)
    for callback in found:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                "Expected Keras callbacks, made objects, in a list or one alone. Received: "
                f"callbacks={callbacks!r:.200}"
            )
    return found


class Batches(keras.utils.PyDataset):
    """Examples of texts as batches of few static shapes, in a new order in every epoch.

    Args:
        lengths: list of ints, the tokens of the longest text of each example.
        batch_size: int, examples of a batch.
        max_length: int, tokens of the longest batch.
        collate: function of the indices of examples, a number of rows and a length; gives
            `(inputs, labels, sample_weight)`, NumPy arrays of these shapes in which the rows that
            are left over have the weight 0.
        seed: int that shuffles, anew in every epoch; None keeps the order.
        replicas: int, devices that share a batch; as many rows are added as make it divisible.
        **kwargs: `workers` and others of `keras.utils.PyDataset`.
    """

    def __init__(self, lengths, batch_size, max_length, collate, seed=None, replicas=1, **kwargs):
        super().__init__(**kwargs)
        self.lengths = np.array(lengths, "int64")
        self.batch_size = batch_size
        self.rows = -(-batch_size // replicas) * replicas
        self.buckets = bucket_lengths(max_length)
        self.collate = collate
        self.seed = seed
        self.epoch = 0
        self._plan()

    def _plan(self):
        seed = None if self.seed is None else (self.seed, self.epoch)
        spans = np.zeros_like(self.lengths)
        batches = make_batches(self.lengths, spans, self.batch_size, self.buckets, seed=seed)
        self.batches = lengths_differ_first([(length, indices) for length, _, indices in batches])

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        length, indices = self.batches[index]
        inputs, labels, sample_weight = self.collate(indices, self.rows, length)
        return keras.tree.map_structure(numeric, inputs), labels, sample_weight

    def made(self):
        """Yields the indices of the examples of each batch, and the batch."""
        for number, (_, indices) in enumerate(self.batches):
            yield indices, self[number]

    def on_epoch_end(self):
        self.epoch += 1
        self._plan()

    def forget(self):
        """Lets go of the data, for TensorFlow keeps for good what it has read from."""
        self.batches, self.collate = [], None


def lengths_differ_first(batches):
    """Batches in an order that shows Keras on TensorFlow that their length varies, if it does.

    It learns from the first two which dimensions do.

    Args:
        batches: list of tuples that begin with the length.

    Returns:
        The list, in which the second has another length than the first, where one has.
    """
    for place, batch in enumerate(batches):
        if batch[0] != batches[0][0]:
            return [batches[0], batch, *batches[1:place], *batches[place + 1 :]]
    return batches


def numeric(array):
    """An input of an encoder as numbers: its padding mask as integers.

    Keras on TensorFlow takes the mean of the batches of several replicas to see their shapes, and
    booleans have none. The model makes a boolean mask of it again.
    """
    return array.astype("int32") if array.dtype == bool else array


def warm_up(model, shapes):
    """Runs a model once on each shape, so that no text waits for a trace or a compilation.

    Args:
        model: `keras.Model` on a dict of `token_ids`, `segment_ids` and `padding_mask`.
        shapes: tuples of rows and tokens, each once.

    Returns:
        int, the number of shapes.
    """
    shapes = sorted(shapes)
    for shape in shapes:
        # Padding, but for one token each.
        ids, mask = np.zeros(shape, "int32"), np.zeros(shape, bool)
        mask[:, 0] = True
        inputs = {"token_ids": ids, "segment_ids": ids, "padding_mask": mask}
        model.predict_on_batch(keras.tree.map_structure(numeric, inputs))
    return len(shapes)


def warm_up_lengths(lengths, max_length):
    """The lengths of batches in which texts of some lengths are read.

    Args:
        lengths: list of numbers of tokens, the special ones included; None for all lengths.
        max_length: int, tokens of the longest batch.

    Returns:
        A sorted list of different ints.

    Raises:
        ValueError: for lengths that are not between 1 and max_length.
    """
    buckets = bucket_lengths(max_length)
    if lengths is None:
        return list(buckets)
    lengths = [int(length) for length in lengths]
    if not lengths or not 1 <= min(lengths) <= max(lengths) <= max_length:
        raise ValueError(
            f"Lengths are numbers of tokens from 1 to max_length={max_length}. Received: {lengths=}"
        )
    return sorted({next(size for size in buckets if size >= length) for length in lengths})


def _text(text, place):
    text = text.get("text") if isinstance(text, Mapping) else text
    if not isinstance(text, str):
        raise ValueError(
            'A text must be a str, or a dict with a str as its "text". Received: '
            f"{place}={text!r:.80} (type {type(text).__name__})"
        )
    return text if type(text) is str else str(text)  # NumPy has strings of its own


def _many(items, name, kind):
    """What holds several items in order, as a list."""
    unfit = isinstance(items, (str, bytes, bytearray, PathLike, set, frozenset)) or hasattr(
        items, "columns"
    )
    try:
        return list(None if unfit else items)
    except TypeError:
        hint = "; a file is read by `data.read_records`" if kind == "record" else ""
        raise ValueError(
            f"Expected a {kind}, or several in order: a list, an array, one column of a table{hint}. "
            f"Received: {name}={items!r:.80} (type {type(items).__name__})"
        ) from None
