"""Metrics: span F1 over score tensors, exact scores over entities in text."""

from keras_ext.metrics.best_threshold import best_threshold
from keras_ext.metrics.correlation import pearson, spearman
from keras_ext.metrics.entity_scores import EntityScores, score_entities
from keras_ext.metrics.retrieval_scores import RetrievalScores, retrieval_scores
from keras_ext.metrics.span_f1 import SpanF1
from keras_ext.metrics.spearman_correlation import SpearmanCorrelation

__all__ = [
    "EntityScores",
    "RetrievalScores",
    "SpanF1",
    "SpearmanCorrelation",
    "best_threshold",
    "pearson",
    "retrieval_scores",
    "score_entities",
    "spearman",
]
