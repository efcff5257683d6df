"""Text in, sentence vectors out."""

from keras_ext.sentences.encoder import SentenceEncoder
from keras_ext.sentences.evaluation import SentenceEvaluation, SentenceScores
from keras_ext.sentences.search import Hit
from keras_ext.sentences.whitening import whitening

__all__ = [
    "Hit",
    "SentenceEncoder",
    "SentenceEvaluation",
    "SentenceScores",
    "whitening",
]
