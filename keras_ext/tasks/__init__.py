"""Text in, objects out."""

from keras_ext.tasks.entity import Entity
from keras_ext.tasks.entity_recognizer import EntityRecognizer
from keras_ext.tasks.render import render
from keras_ext.tasks.render_page import render_page

__all__ = ["Entity", "EntityRecognizer", "render", "render_page"]
