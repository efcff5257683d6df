"""Texts through the model, and its scores as entities of the texts."""

import math
from collections.abc import Mapping
from itertools import product
from numbers import Real

import numpy as np

from keras_ext.data import merge_windows, resolve
from keras_ext.entities.batches import EntityBatches, text_windows
from keras_ext.entities.entity import Entity
from keras_ext.ops.settings import whole
from keras_ext.tasks.fitting import numeric_mask
from keras_ext.tasks.shapes import empty_batch, warm_up_lengths


def predict_entities(recognizer, texts, threshold, policy, batch_size):
    """`EntityRecognizer.predict` of a list of texts; it describes the arguments."""
    # What is wrong with these is found before the work is done.
    policy = check_policy(recognizer.policy if policy is None else policy)
    threshold = recognizer.threshold if threshold is None else threshold
    thresholds = label_thresholds(threshold, recognizer.labels)
    windows = windows_of(recognizer, texts)
    found = [None] * len(windows)
    for indices, scores in model_scores(recognizer, windows, batch_size):
        decoded = recognizer.span_head.decode(scores, thresholds)
        for index, spans in zip(indices, decoded, strict=True):
            found[index] = spans
    return entities_of(recognizer.labels, texts, windows, found, policy)


def entities_of(labels, texts, windows, found, policy):
    """The entities of each text, from the spans and scores that were decoded in its windows."""
    merged = merge_windows(windows, found, len(texts))
    return [
        [
            Entity(start, end, labels[kind], text[start:end], score)
            for (kind, start, end), score in resolve(entities, policy).items()
        ]
        for text, entities in zip(texts, merged, strict=True)
    ]


def window_span_scores(recognizer, text):
    """`EntityRecognizer.span_scores`, which describes arguments and results."""
    windows = windows_of(recognizer, [text])[:1]
    if not windows:
        return np.zeros((len(recognizer.labels), 0, 0), "float32"), np.zeros((0, 2), "int32")
    ((_, scores),) = model_scores(recognizer, windows, batch_size=1)
    inner = slice(1, len(windows[0].ids) - 1)  # without the special tokens
    return recognizer.span_head.dense(scores)[0, :, inner, inner], windows[0].offsets[inner]


def windows_of(recognizer, texts):
    """The windows of texts as the recognizer cuts them."""
    settings = recognizer.settings
    return text_windows(recognizer.tokenizer, texts, settings["max_length"], settings["stride"])


def model_scores(recognizer, windows, batch_size):
    """Yields indices of windows and the model's float32 output for them, one row a window."""
    batch_size = whole("batch_size", batch_size)
    # A few texts make a batch of few rows; powers of two keep the number of shapes small.
    rows = min(batch_size, 1 << max(len(windows) - 1, 0).bit_length())
    sizes = rows, recognizer.settings["max_length"]
    data = EntityBatches(windows, None, *sizes, recognizer.tokenizer.pad_id)
    for indices, _, scores in batch_scores(recognizer, data):
        yield indices, scores


def batch_scores(recognizer, data):
    """Yields indices of windows, their labels, and the model's float32 output for them.

    Labels and scores have one row a window.
    """
    for number, (_, _, indices) in enumerate(data.batches):
        inputs, labels, _ = data[number]
        scores = np.asarray(recognizer.model.predict_on_batch(inputs), "float32")[: len(indices)]
        for index, row in zip(indices, scores, strict=True):
            if not np.isfinite(row).all():
                raise ValueError(
                    "The model gives scores that are not finite; its weights are damaged. "
                    f"Received: text {data.windows[index].document}"
                )
        yield indices, None if labels is None else labels[: len(indices)], scores


def warm_up(recognizer, lengths, batch_size):
    """`EntityRecognizer.warm_up`, which describes arguments and results."""
    batch_size = whole("batch_size", batch_size)
    lengths = warm_up_lengths(lengths, recognizer.settings["max_length"])
    rows = {min(1 << power, batch_size) for power in range(batch_size.bit_length() + 1)}
    for shape in product(sorted(rows), lengths):
        recognizer.model.predict_on_batch(numeric_mask(empty_batch(shape)))
    return len(rows) * len(lengths)


def check_policy(policy):
    """The policy; ValueError for an unknown one."""
    resolve({}, policy)
    return policy


def label_thresholds(threshold, labels):
    """One threshold for each label.

    Args:
        threshold: float for all, or dict from label to float, 0 for labels not in it.
        labels: list of label names.

    Returns:
        float32 array (labels,).

    Raises:
        ValueError: for a label that is not among `labels`, or what is NaN or no number.
    """
    given = threshold if isinstance(threshold, Mapping) else dict.fromkeys(labels, threshold)
    unknown = sorted(set(given) - set(labels), key=str)
    if unknown:
        raise ValueError(f"Thresholds name labels among {labels}. Received: unknown {unknown}")
    for number in given.values():
        if isinstance(number, bool) or not isinstance(number, Real) or math.isnan(number):
            raise ValueError(
                "A threshold is a number, or a dict from label to number, or None for the one that "
                f"the recogniser keeps. Received: {threshold=}"
            )
    return np.array([given.get(label, 0.0) for label in labels], "float32")
