"""Texts through the model: vectors, in an array of the order of the texts."""

from functools import cache, partial

import keras
import numpy as np

from keras_ext.data import bucket_lengths, pad_rows
from keras_ext.ops import unit_vectors
from keras_ext.ops.settings import whole
from keras_ext.sentences.inputs import token_rows, warn_of_cut
from keras_ext.sentences.model import unnormalized
from keras_ext.tasks.shapes import empty_batch, warm_up_lengths

WINDOW = 8192  # texts that are tokenised and sorted at once: what bounds the memory


def encode_texts(encoder, texts, batch_size, normalize, truncate_dim, progress, tokenize=None):
    """`SentenceEncoder.encode` of a list of texts, which describes the arguments.

    `tokenize` is a function of a tuple of texts that remembers what it gave; None: `token_rows`.
    """
    width, batch_size = encoder.model.output.shape[-1], whole("batch_size", batch_size)
    size = width if truncate_dim is None else whole("truncate_dim", truncate_dim)
    if size > width:
        raise ValueError(
            f"Expected a truncate_dim from 1 to {width}, the dimension of the vectors. "
            f"Received: {truncate_dim=}"
        )
    normalizes = encoder.settings["normalize"]
    normalize = normalizes if normalize is None else normalize
    model = encoder.model if normalize else bare_model(encoder)
    again = normalize and (size < width or not normalizes)
    vectors = np.empty((len(texts), size), "float32")
    bar = keras.utils.Progbar(len(texts), unit_name="text") if progress and texts else None
    if tokenize is None:
        tokenize = partial(token_rows, encoder.tokenizer, max_length=encoder.settings["max_length"])
    cut = 0
    for first in range(0, len(texts), WINDOW):
        window = texts[first : first + WINDOW]
        rows, cut_here = tokenize(tuple(window))
        cut += cut_here
        _encode_window(encoder, model, window, rows, batch_size, again, vectors[first:], bar)
    warn_of_cut(cut, len(texts), encoder.settings["max_length"])
    return vectors


def remembering(encoder):
    """A function from a tuple of texts to what `token_rows` gives, which tokenises each once."""
    return cache(partial(token_rows, encoder.tokenizer, max_length=encoder.settings["max_length"]))


def warm_up(encoder, lengths, batch_size):
    """`SentenceEncoder.warm_up`, which describes arguments and results."""
    batch_size = whole("batch_size", batch_size)
    shapes = {
        batch_shape(encoder.model, rows, length, batch_size, encoder.settings["max_length"])
        for length in warm_up_lengths(lengths, encoder.settings["max_length"])
        for rows in (1, batch_size)
    }
    for shape in sorted(shapes):
        encoder.model.predict_on_batch(empty_batch(shape))
    return len(shapes)


def bare_model(encoder):
    """The encoder's model without its normalisation; it is kept, for it compiles."""
    if encoder._bare[0] is not encoder.model:
        bare = unnormalized(encoder.model, encoder.settings["normalize"])
        encoder._bare = encoder.model, bare
    return encoder._bare[1]


def _encode_window(encoder, model, texts, rows, batch_size, normalize, vectors, bar):
    """Fills the first rows of `vectors` with those of texts, of which `rows` are the tokens."""
    max_length, size = encoder.settings["max_length"], vectors.shape[-1]
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        shape = batch_shape(model, len(chosen), lengths[chosen[0]], batch_size, max_length)
        batch = pad_rows([rows[i] for i in chosen], *shape, encoder.tokenizer.pad_id)
        found = np.asarray(model.predict_on_batch(batch))[: len(chosen), :size]
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            text = texts[chosen[np.flatnonzero(~finite)[0]]]
            raise ValueError(
                "The model gives a vector that is not finite. Expected weights that are. "
                f"Received: text={text!r:.80}"
            )
        vectors[chosen] = unit_rows(found) if normalize else found
        if bar is not None:
            bar.add(len(chosen))


def batch_shape(model, rows, length, batch_size, max_length):
    """Rows and columns of a batch: few different ones where each of them compiles anew."""
    if keras.backend.backend() == "tensorflow" and not model.jit_compile:
        return rows, length
    return batch_size, next(size for size in bucket_lengths(max_length) if size >= length)


def unit_rows(vectors):
    """`ops.unit_vectors` of an array, as an array."""
    return keras.ops.convert_to_numpy(unit_vectors(vectors))
