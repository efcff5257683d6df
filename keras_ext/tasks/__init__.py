"""What the tasks share: bundle, training, any encoder behind one call; and the tasks themselves."""

from keras_ext.entities.recognizer import EntityRecognizer
from keras_ext.sentences.encoder import SentenceEncoder

__all__ = ["EntityRecognizer", "SentenceEncoder"]
