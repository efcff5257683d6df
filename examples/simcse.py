"""Sentence vectors without labels: each text is its own positive, under another dropout (SimCSE).

    python examples/simcse.py

trains all-MiniLM-L6-v2 on the bare texts of the project's corpus, in batches of 128 of which the
encoder sees 32 at once: gradient caching replays the dropout of each chunk, so that the gradient is
that of the whole batch. Prints how well the vectors rank and find the pairs of the test file before
and after: of these letters it learns to find the one that fits (MRR), but not which request weighs
more (Spearman), which no text tells by itself. With texts of your own, one in a line of a .txt file:

    python examples/simcse.py --texts texts.txt --test pairs.tsv
"""

import argparse
from pathlib import Path

import keras
from pretrained import weights_folder

from keras_ext.data import Tokenizer, read_pairs
from keras_ext.losses import InfoNCE
from keras_ext.models import RoFormerEncoder
from keras_ext.tasks import SentenceEncoder

CORPUS = Path(__file__).parent / "data"


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, help="default: the texts of the project's pairs")
    parser.add_argument(
        "--test", type=Path, default=CORPUS / "graded_test.tsv", help="scored pairs"
    )
    parser.add_argument(
        "--encoder",
        default="minilm",
        help="a folder of sentence-transformers (a BERT), or 'scratch' for a small character model "
        "without pretrained weights, which learns little so; default: the packaged MiniLM",
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--chunk-size", type=int, default=32, help="texts that are seen at once")
    parser.add_argument("--learning-rate", type=float, help="default: 3e-5, from scratch 1e-3")
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--max-length", type=int, help="default: 64, from scratch 128")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path("simcse_output"), type=Path)
    return parser.parse_args()


def read_texts(path):
    """Distinct texts: of a file with one in each line, or of the pairs of the project."""
    examples = read_pairs(path or CORPUS / "graded_train.tsv")
    texts = [text for example in examples for text in ([example] if path else example[:2])]
    if not all(isinstance(text, str) for text in texts):
        raise SystemExit(f"{path}: expected one text in each line, received {texts[0]!r:.80}")
    return list(dict.fromkeys(texts))


def build(args, texts):
    """The encoder before training."""
    if args.encoder != "scratch":
        folder = weights_folder(args.encoder)
        return SentenceEncoder.from_huggingface(folder, max_length=args.max_length or 64)
    tokenizer = Tokenizer.from_characters(texts)
    inside = RoFormerEncoder(tokenizer.vocabulary_size, 2, 4, 128, 256, residual="pre")
    return SentenceEncoder(inside, tokenizer, max_length=args.max_length or 128)


def main():
    """Trains, evaluates, saves."""
    args = arguments()
    keras.utils.set_random_seed(args.seed)
    texts, test = read_texts(args.texts), read_pairs(args.test)
    sentences = build(args, texts)
    before = sentences.evaluate(test)
    rate = args.learning_rate or (1e-3 if args.encoder == "scratch" else 3e-5)
    sentences.compile(loss=InfoNCE(args.temperature), learning_rate=rate)
    sentences.fit(
        texts,
        epochs=args.epochs,
        batch_size=args.batch_size,
        chunk_size=args.chunk_size,
        seed=args.seed,
    )
    after = sentences.evaluate(test)
    sentences.save(args.output / "bundle")
    print(f"\n{args.test.name}\nbefore  {before}\nafter   {after}")
    print(f"wrote {args.output / 'bundle'}")


if __name__ == "__main__":
    main()
