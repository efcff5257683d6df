"""Train a recogniser of nested entities, look at what it finds, save it.

    python examples/ner_efficient_global_pointer.py

fine-tunes all-MiniLM-L6-v2 on a small corpus of English sentences that comes with the project.
With files of your own (JSON lines, CoNLL columns, CLUENER or CMeEE files):

    python examples/ner_efficient_global_pointer.py --train train.jsonl --dev dev.jsonl

A JSON line is {"text": "...", "entities": [{"start": 0, "end": 3, "label": "person"}]}, offsets in
characters, end exclusive.
"""

import argparse
from pathlib import Path

import keras
from ner_plots import plot_training
from pretrained import weights_folder

from keras_ext.checkpoints import encoder_from_huggingface
from keras_ext.data import Tokenizer, labels_of, read_records
from keras_ext.entities import render, render_page
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

CORPUS = Path(__file__).parent / "data"
SENTENCES = 6  # shown in the terminal


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, help="default: the corpus of the project")
    parser.add_argument("--dev", type=Path, help="chooses the epoch, and is scored")
    parser.add_argument(
        "--encoder",
        default="minilm",
        help="a Hugging Face folder of a BERT (model.safetensors, vocab.txt), or 'scratch' for a "
        "small character model without pretrained weights; default: the packaged MiniLM",
    )
    parser.add_argument("--head", default="efficient", choices=["efficient", "full"])
    parser.add_argument("--epochs", type=int, help="default: 6, from scratch 20")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, help="default: 3e-4, from scratch 8e-4")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--stride", type=int, default=32)
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "mixed_float16", "mixed_bfloat16"]
    )
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path("ner_output"), type=Path)
    args = parser.parse_args()
    if (args.train is None) != (args.dev is None):
        parser.error("give both --train and --dev, or neither")
    args.train = args.train or CORPUS / "nested_train.jsonl"
    args.dev = args.dev or CORPUS / "nested_dev.jsonl"
    return args


def build(args, train):
    """The untrained recogniser."""
    if args.encoder == "scratch":
        tokenizer = Tokenizer.from_characters(record["text"] for record in train)
        encoder = BigramRoFormerEncoder(tokenizer.vocabulary_size, dtype=args.precision)
    else:
        folder = weights_folder(args.encoder)
        tokenizer = Tokenizer.from_vocab(folder / "vocab.txt")
        encoder = encoder_from_huggingface(folder, dtype=args.precision)
    return EntityRecognizer(
        encoder,
        tokenizer,
        labels_of(train),
        head=args.head,
        max_length=args.max_length,
        stride=args.stride,
    )


def has_nested(entities):
    """Whether an entity begins inside the one before it."""
    return any(b.start < a.end for a, b in zip(entities, entities[1:], strict=False))


def main():
    """Trains, evaluates, shows, saves, reloads."""
    args = arguments()
    keras.utils.set_random_seed(args.seed)
    scratch = args.encoder == "scratch"
    train, dev = read_records(args.train), read_records(args.dev)
    recognizer = build(args, train)
    recognizer.compile(
        learning_rate=args.learning_rate or (8e-4 if scratch else 3e-4), jit_compile=args.jit
    )
    history = recognizer.fit(
        train,
        dev,
        epochs=args.epochs or (20 if scratch else 6),
        batch_size=args.batch_size,
        seed=args.seed,
    )
    print(f"\nscores on {args.dev.name}\n{recognizer.evaluate(dev)}\n")

    recognizer.save(args.output / "bundle")
    recognizer = EntityRecognizer.load(args.output / "bundle")
    texts = [record["text"] for record in dev]
    found = recognizer.predict(texts)
    shown = [i for i, entities in enumerate(found) if has_nested(entities)][:SENTENCES]
    shown = shown or [i for i, text in enumerate(texts) if text.strip()][:SENTENCES]
    print("\n\n".join(render(texts[i], found[i]) for i in shown))

    page = render_page(list(zip(texts, found, strict=True))[:200], title="Predicted entities")
    (args.output / "entities.html").write_text(page, encoding="utf-8")
    plot_training(history, recognizer, texts[shown[0]], args.output / "training.png")
    print(f"\nF1 {max(history.history['val_f1']):.4f}")
    for name in ("bundle", "entities.html", "training.png"):
        print(f"wrote {args.output / name}")


if __name__ == "__main__":
    main()
