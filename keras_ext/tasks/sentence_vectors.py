"""Texts through the model: vectors, in an array of the order of the texts."""

import keras
import numpy as np

from keras_ext.data import bucket_lengths, pad_rows
from keras_ext.tasks.sentence_inputs import token_rows, warn_of_cut

WINDOW = 8192  # texts that are tokenised and sorted at once: what bounds the memory


def encode_texts(encoder, texts, batch_size, normalize, truncate_dim, progress, model=None):
    """`SentenceEncoder.encode` of a list of texts, which describes the arguments.

    Args:
        encoder: the `SentenceEncoder`.
        texts: list of strings.
        batch_size: int.
        normalize: bool or None.
        truncate_dim: int or None.
        progress: bool.
        model: `keras.Model` to run in place of the encoder's own.

    Returns:
        float32 (texts, d).
    """
    model = encoder.model if model is None else model
    width = model.output.shape[-1]
    size = width if truncate_dim is None else truncate_dim
    if batch_size < 1 or not 1 <= size <= width:
        raise ValueError(
            f"Expected a batch_size of 1 or more and a truncate_dim from 1 to {width}, the "
            f"dimension of the vectors. Received: {batch_size=}, {truncate_dim=}"
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"A text must be a str. Received: texts[{index}]={text!r:.80}")
    if normalize is None:
        normalize = encoder.settings["normalize"] and size < width
    vectors = np.empty((len(texts), size), "float32")
    bar = keras.utils.Progbar(len(texts), unit_name="text") if progress and texts else None
    cut = 0
    for first in range(0, len(texts), WINDOW):
        window = texts[first : first + WINDOW]
        cut += _encode_window(encoder, model, window, batch_size, vectors[first:], bar)
    warn_of_cut(cut, len(texts), encoder.settings["max_length"])
    if not np.isfinite(vectors).all():
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        raise ValueError(
            f"The model gives vectors that are not finite, to {len(bad)} texts. Received: "
            f"texts[{bad[0]}]={texts[bad[0]]!r:.80}"
        )
    return unit_rows(vectors) if normalize else vectors


def _encode_window(encoder, model, texts, batch_size, vectors, bar):
    """Fills the first rows of `vectors`; returns the number of texts that were cut."""
    max_length, size = encoder.settings["max_length"], vectors.shape[-1]
    rows, cut = token_rows(encoder.tokenizer, texts, max_length)
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        count, length = _shape(len(chosen), lengths[chosen[0]], batch_size, max_length)
        batch = pad_rows([rows[i] for i in chosen], count, length, encoder.tokenizer.pad_id)
        found = model.predict_on_batch(batch)
        vectors[chosen] = np.asarray(found)[: len(chosen), :size]
        if bar is not None:
            bar.add(len(chosen))
    return cut


def _shape(rows, length, batch_size, max_length):
    """Rows and columns of a batch: where every shape compiles anew, few of them."""
    if keras.backend.backend() == "tensorflow":
        return rows, length
    return batch_size, next(size for size in bucket_lengths(max_length) if size >= length)


def unit_rows(vectors):
    """The rows of an array with length 1; a row of zeros stays one."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    vectors = vectors / np.where(largest == 0.0, 1.0, largest)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0.0, 1.0, lengths)
