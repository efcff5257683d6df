"""Fine-tune sentence vectors with CoSENT, see what changed, search, save.

    python examples/sentence_vectors_cosent.py

fine-tunes all-MiniLM-L6-v2 on a small corpus of graded pairs that comes with the project: letters to
a town hall, 5 where two ask for the same, 0 where they have nothing in common. With files of your
own (tab separated, CSV or JSON lines: two texts and a score, of any scale):

    python examples/sentence_vectors_cosent.py --train train.tsv --dev dev.tsv --test test.tsv
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from pretrained import weights_folder
from sentence_plots import plot_scores

from keras_ext.data import Tokenizer, read_pairs
from keras_ext.losses import CoSENT
from keras_ext.models import RoFormerEncoder
from keras_ext.tasks import SentenceEncoder

CORPUS = Path(__file__).parent / "data"
QUERIES = 3  # searched for in the terminal


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, help="default: the corpus of the project")
    parser.add_argument("--dev", type=Path, help="chooses the epoch")
    parser.add_argument("--test", type=Path, help="is scored before and after")
    parser.add_argument(
        "--encoder",
        default="minilm",
        help="a folder of sentence-transformers (a BERT), or 'scratch' for a small character model "
        "without pretrained weights, for files larger than the project's; default: the packaged MiniLM",
    )
    parser.add_argument("--score", default="cosine", choices=["cosine", "angle"])
    parser.add_argument("--epochs", type=int, help="default: 4, from scratch 10")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--chunk-size", type=int, help="pairs that the encoder sees at once")
    parser.add_argument("--learning-rate", type=float, help="default: 1e-4, from scratch 1e-3")
    parser.add_argument("--max-length", type=int, help="default: 64, from scratch 128")
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "mixed_float16", "mixed_bfloat16"]
    )
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path("sentence_output"), type=Path)
    args = parser.parse_args()
    given = [args.train, args.dev, args.test]
    if any(given) and not all(given):
        parser.error("give all of --train, --dev and --test, or none")
    for part in ("train", "dev", "test"):
        setattr(args, part, getattr(args, part) or CORPUS / f"graded_{part}.tsv")
    return args


def build(args, train):
    """The encoder before training."""
    if args.encoder != "scratch":
        folder = weights_folder(args.encoder)
        return SentenceEncoder.from_huggingface(folder, args.precision, args.max_length or 64)
    tokenizer = Tokenizer.from_characters([text for pair in train for text in pair[:2]])
    inside = RoFormerEncoder(
        tokenizer.vocabulary_size,
        num_layers=2,
        num_heads=4,
        hidden_dim=128,
        intermediate_dim=256,
        residual="pre",
        dtype=args.precision,
    )
    return SentenceEncoder(inside, tokenizer, max_length=args.max_length or 128)


def scored_pairs(path):
    """The pairs of a file, each with a score."""
    pairs = read_pairs(path)
    if not (isinstance(pairs[0], tuple) and isinstance(pairs[0][-1], float)):
        raise SystemExit(f"{path}: expected pairs with a score, received {pairs[0]!r:.80}")
    return pairs


def pair_scores(sentences, pairs):
    """The cosine of each pair."""
    first, second = (
        sentences.encode([pair[side] for pair in pairs], normalize=True) for side in (0, 1)
    )
    return np.sum(first * second, axis=1)


def show_search(sentences, pairs):
    """Prints what the first queries find among all second texts."""
    corpus = sorted({second for _, second, _ in pairs})
    queries = list(dict.fromkeys(first for first, _, _ in pairs))[:QUERIES]
    for query, hits in zip(queries, sentences.search(queries, corpus, k=3), strict=True):
        print(f"\n{query}")
        for hit in hits:
            print(f"  {hit.score:6.3f}  {hit.text}")


def main():
    """Trains, evaluates, searches, saves, reloads."""
    args = arguments()
    keras.utils.set_random_seed(args.seed)
    scratch = args.encoder == "scratch"
    train, dev, test = (scored_pairs(path) for path in (args.train, args.dev, args.test))
    sentences = build(args, train)
    before, scores_before = sentences.evaluate(test), pair_scores(sentences, test)

    sentences.compile(
        loss=CoSENT(score=args.score),
        learning_rate=args.learning_rate or (1e-3 if scratch else 1e-4),
        jit_compile=args.jit,
    )
    sentences.fit(
        train,
        dev,
        epochs=args.epochs or (10 if scratch else 4),
        batch_size=args.batch_size,
        chunk_size=args.chunk_size,
        seed=args.seed,
    )
    after = sentences.evaluate(test)
    print(f"\n{args.test.name}\nbefore  {before}\nafter   {after}")

    sentences.save(args.output / "bundle")
    sentences = SentenceEncoder.load(args.output / "bundle")
    show_search(sentences, test)
    labels = np.array([score for *_, score in test])
    plot_scores(labels, scores_before, pair_scores(sentences, test), args.output / "scores.png")
    print(f"\nSpearman {before.spearman:.4f} before, {after.spearman:.4f} after")
    for name in ("bundle", "scores.png"):
        print(f"wrote {args.output / name}")


if __name__ == "__main__":
    main()
