"""A small recogniser and records to train it on."""

import keras

from keras_ext.data import Tokenizer
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

NAMES = ["Ada", "Bo", "Cleo", "Dan", "Eve", "Finn"]
CITIES = ["Rome", "Oslo", "Bern", "Lima", "Cork"]


def make_records():
    """Sentences with a person, a place, and a place inside a larger one."""
    records = []
    for name in NAMES:
        for city in CITIES:
            text = f"{name} saw Old {city} Town."
            outer, inner = text.index("Old"), text.index(city)
            records.append(
                {
                    "text": text,
                    "entities": [
                        {"start": 0, "end": len(name), "label": "person"},
                        {"start": outer, "end": len(text) - 1, "label": "place"},
                        {"start": inner, "end": inner + len(city), "label": "place"},
                    ],
                }
            )
    return records


def join_records(records):
    """One long record of several, one in a line."""
    text, entities = "", []
    for record in records:
        for e in record["entities"]:
            start, end = e["start"] + len(text), e["end"] + len(text)
            entities.append({"start": start, "end": end, "label": e["label"]})
        text += record["text"] + "\r\n"
    return {"text": text, "entities": entities}


def make_recognizer(
    head="efficient", dtype=None, seed=0, labels=("person", "place"), tokenizer=None, **kwargs
):
    keras.utils.set_random_seed(seed)
    if tokenizer is None:
        tokenizer = Tokenizer.from_characters([record["text"] for record in make_records()])
    encoder = BigramRoFormerEncoder(
        tokenizer.vocabulary_size,
        bigram_buckets=200,
        num_layers=1,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=32,
        embedding_dim=16,
        dropout=0.0,
        token_dropout=0.0,
        dtype=dtype,
    )
    settings = {"max_length": 32, "stride": 8, "head_size": 16, **kwargs}
    return EntityRecognizer(encoder, tokenizer, labels, head=head, **settings)
