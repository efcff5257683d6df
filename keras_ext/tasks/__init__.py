"""Text in, objects out."""

from keras_ext.tasks.entity import Entity
from keras_ext.tasks.entity_recognizer import EntityRecognizer
from keras_ext.tasks.render import render
from keras_ext.tasks.render_page import render_page
from keras_ext.tasks.sentence_encoder import SentenceEncoder
from keras_ext.tasks.sentence_evaluation import SentenceEvaluation, SentenceScores
from keras_ext.tasks.sentence_search import Hit
from keras_ext.tasks.sentence_transformers_folder import sentence_encoder_from_huggingface

__all__ = [
    "Entity",
    "EntityRecognizer",
    "Hit",
    "SentenceEncoder",
    "SentenceEvaluation",
    "SentenceScores",
    "render",
    "render_page",
    "sentence_encoder_from_huggingface",
]
