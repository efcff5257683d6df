"""The two heads of `EntityRecognizer`: which layer and loss, and how their scores are read."""

import numpy as np
from keras import ops

from keras_ext.entities import decode_factored_spans, decode_spans
from keras_ext.entities.decoding import score_factored_spans
from keras_ext.layers import EfficientGlobalPointer, GlobalPointer
from keras_ext.losses import FactoredGlobalPointerCrossentropy, GlobalPointerCrossentropy
from keras_ext.ops import dense_span_scores

NAME = "span_scores"  # of the layer, in every model


class EfficientHead:
    """`EfficientGlobalPointer` by its factors."""

    def __init__(self, heads, head_size):
        self.heads, self.head_size = heads, head_size

    def layer(self, dtype):
        """The layer, with factored output."""
        return EfficientGlobalPointer(
            self.heads, self.head_size, factored=True, dtype=dtype, name=NAME
        )

    def loss(self):
        """The loss of the layer's output."""
        return FactoredGlobalPointerCrossentropy(self.heads, self.head_size)

    def decode(self, scores, threshold):
        """Spans and their scores for each row of the layer's output."""
        return decode_factored_spans(scores, self.heads, self.head_size, threshold)

    def dense(self, scores):
        """The scores of all pairs, (b, heads, n, n), from the layer's output."""
        return ops.convert_to_numpy(dense_span_scores(scores, self.heads, self.head_size))

    def keep(self, row, starts, ends):
        """What `read` needs of a row of the layer's output for these spans: the few factors."""
        return row

    def read(self, kept, starts, ends):
        """The scores (m, heads) of the spans for which this was kept, those of `decode`."""
        return score_factored_spans(kept, self.heads, self.head_size, starts, ends)


class FullHead:
    """`GlobalPointer` with a query and key for each label."""

    def __init__(self, heads, head_size):
        self.heads, self.head_size = heads, head_size

    def layer(self, dtype):
        """The layer."""
        return GlobalPointer(self.heads, self.head_size, dtype=dtype, name=NAME)

    def loss(self):
        """The loss of the layer's output."""
        return GlobalPointerCrossentropy()

    def decode(self, scores, threshold):
        """Spans and their scores for each row of the layer's output."""
        return decode_spans(scores, threshold)

    def dense(self, scores):
        """The scores of all pairs, (b, heads, n, n): the layer's output itself."""
        return np.asarray(scores)

    def keep(self, row, starts, ends):
        """What `read` needs of a row of the layer's output for these spans: their scores."""
        return row[:, starts, ends].T

    def read(self, kept, starts, ends):
        """The scores (m, heads) of the spans for which this was kept, those of `decode`."""
        return kept


HEADS = {"efficient": EfficientHead, "full": FullHead}


def check_head(head, model):
    """Raises ValueError where the last layer of a model is another head than this one.

    Args:
        head: `EfficientHead` or `FullHead`.
        model: `keras.Model` of an `EntityRecognizer`.
    """
    expected, layer = head.layer("float32"), model.get_layer(NAME)
    found, wanted = ((x.heads, x.head_size, type(x).__name__) for x in (layer, expected))
    if found != wanted:
        raise ValueError(
            "The model gives scores for {} labels by head_size={} in a {}. Expected one for "
            "{} labels, head_size={}, in a {}, as the labels and the settings say. "
            f"Received: labels={wanted[0]}, head_size={wanted[1]}".format(*found, *wanted)
        )
