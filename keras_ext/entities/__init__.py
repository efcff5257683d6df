"""Text in, entities out."""

from keras_ext.entities.decoding import decode_factored_spans, decode_spans
from keras_ext.entities.entity import Entity
from keras_ext.entities.page import render_page
from keras_ext.entities.recognizer import EntityRecognizer
from keras_ext.entities.rendering import render

__all__ = [
    "Entity",
    "EntityRecognizer",
    "decode_factored_spans",
    "decode_spans",
    "render",
    "render_page",
]
