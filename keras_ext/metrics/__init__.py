"""Metrics: span F1 over score tensors, exact scores over entities in text."""

from keras_ext.metrics.entity_scores import EntityScores, score_entities
from keras_ext.metrics.span_f1 import SpanF1

__all__ = ["EntityScores", "SpanF1", "score_entities"]
