"""A bert4keras script for named entities, as keras_ext does it.

    python examples/from_bert4keras_short.py --data folder --weights chinese_L-12_H-768_A-12

The folders are those of `from_bert4keras.py`, which says what is in them.
"""

import argparse
from pathlib import Path

from keras_ext.checkpoints import encoder_from_google
from keras_ext.data import Tokenizer, labels_of, read_records
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

EPOCHS = 5
LEARNING_RATE = 2e-5


def main():
    """Trains on the train file, measures on the dev file, saves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--output", default="recognizer")
    args = parser.parse_args()
    train = read_records(next(args.data.glob("*train.jsonl")))
    dev = read_records(next(args.data.glob("*dev.jsonl")))
    if args.weights:
        tokenizer = Tokenizer.from_vocab(args.weights / "vocab.txt")
        encoder = encoder_from_google(
            args.weights / "bert_config.json", args.weights / "bert_model.ckpt"
        )
    else:
        tokenizer = Tokenizer.from_characters(record["text"] for record in train)
        encoder = BigramRoFormerEncoder(tokenizer.vocabulary_size)
    recognizer = EntityRecognizer(encoder, tokenizer, labels_of(train))
    recognizer.compile(learning_rate=LEARNING_RATE if args.weights else 8e-4)
    recognizer.fit(train, dev, epochs=EPOCHS)
    print(recognizer.evaluate(dev))
    print(recognizer.predict(dev[0]["text"]))
    recognizer.save(args.output)


if __name__ == "__main__":
    main()
