"""Metrics: span F1 over score tensors, exact scores over entities in text, distances of samples,
use of codes."""

from keras_ext.metrics.best_threshold import best_threshold
from keras_ext.metrics.code_perplexity import CodePerplexity
from keras_ext.metrics.code_usage import CodeUsage
from keras_ext.metrics.correlation import pearson, spearman
from keras_ext.metrics.energy_distance import energy_distance
from keras_ext.metrics.entity_scores import EntityScores, score_entities
from keras_ext.metrics.frechet_distance import frechet_distance
from keras_ext.metrics.mmd import mmd
from keras_ext.metrics.precision_recall import PrecisionRecall, precision_recall
from keras_ext.metrics.retrieval_scores import RetrievalScores, retrieval_scores
from keras_ext.metrics.sliced_wasserstein import sliced_wasserstein
from keras_ext.metrics.span_f1 import SpanF1
from keras_ext.metrics.spearman_correlation import SpearmanCorrelation
from keras_ext.metrics.two_sample_floor import TwoSampleFloor, two_sample_floor

__all__ = [
    "CodePerplexity",
    "CodeUsage",
    "EntityScores",
    "PrecisionRecall",
    "RetrievalScores",
    "SpanF1",
    "SpearmanCorrelation",
    "TwoSampleFloor",
    "best_threshold",
    "energy_distance",
    "frechet_distance",
    "mmd",
    "pearson",
    "precision_recall",
    "retrieval_scores",
    "score_entities",
    "sliced_wasserstein",
    "spearman",
    "two_sample_floor",
]
