"""Five losses for sentence vectors: which gives the best rank correlation on unseen pairs?

`english` fine-tunes all-MiniLM-L6-v2 on the training part of the STS benchmark, one epoch, texts of
at most 48 tokens, three seeds; given several rates, each loss at its best one by the dev part after
a quarter of the training pairs. `chinese` trains a small encoder of characters from
nothing, on Chinese STS-B and on the first 5,000 pairs of AFQMC, and keeps the epoch that is best on
the dev part (AFQMC: on the next 1,000 pairs; its dev part is the test here).
Runs are kept in a file: an interrupted series goes on where it was.
Run: python benchmarks/sts.py english; python benchmarks/sts.py chinese
"""

import argparse
import os
from pathlib import Path

import keras
from ner_encoder import minilm_folder
from optimizer_quality import Runs, best_rate, mean_and_spread
from timing import print_table

from keras_ext.data import Tokenizer, read_pairs
from keras_ext.layers import PairClassifier, PairScore
from keras_ext.losses import CoSENT, InfoNCE
from keras_ext.models import BertEncoder
from keras_ext.tasks import SentenceEncoder

LOSSES = ["CoSENT", "CoSENT, angle", "InfoNCE", "squared error", "SBERT softmax"]
MAX_LENGTH = 48


def data_file(*parts):
    """A file of the data sets."""
    return Path(os.environ.get("KERAS_EXT_DATA", "../shared/data")).joinpath(*parts)


def english():
    """The parts of the STS benchmark: scores 0 to 5."""
    return [
        read_pairs(data_file("stsbenchmark_en", f"sts-{part}.csv"))
        for part in ("train", "dev", "test")
    ]


def chinese(name):
    """The parts of a Chinese set: scores 0 to 5, or 0 and 1."""
    if name == "AFQMC":
        pairs = read_pairs(data_file("afqmc", "train.txt"))
        return [pairs[:5000], pairs[5000:6000], read_pairs(data_file("afqmc", "dev.txt"))]
    parts = ("train", "valid", "test")
    return [read_pairs(data_file("chinese_sts_b", f"STS-B.{part}.data")) for part in parts]


def learnt_from(loss, pairs):
    """What a loss learns from: pairs, the loss itself and the layer before it."""
    highest = max(score for _, _, score in pairs)
    if loss == "CoSENT":
        return pairs, CoSENT(), None
    if loss == "CoSENT, angle":
        return pairs, CoSENT(score="angle"), None
    if loss == "InfoNCE":
        return [(a, b) for a, b, score in pairs if score >= 0.8 * highest], InfoNCE(), None
    if loss == "squared error":
        pairs = [(a, b, score / highest) for a, b, score in pairs]
        return pairs, keras.losses.MeanSquaredError(), PairScore()
    classes = round(highest) + 1
    pairs = [(a, b, round(score)) for a, b, score in pairs]
    return (
        pairs,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        PairClassifier(classes),
    )


def fine_tune(loss, rate, seed, share, batch_size):
    """MiniLM after one epoch.

    Returns:
        Spearman on the dev part and on the test part.
    """
    keras.utils.set_random_seed(seed)
    train, dev, test = english()
    sentences = minilm()
    pairs, loss, head = learnt_from(loss, train[: int(share * len(train))])
    sentences.compile(loss=loss, head=head, learning_rate=rate)
    sentences.fit(pairs, epochs=1, batch_size=batch_size, verbose=0, seed=seed)
    return [sentences.evaluate(part).spearman for part in (dev, test)]


def minilm():
    """The packaged all-MiniLM-L6-v2, texts cut at `MAX_LENGTH`."""
    return SentenceEncoder.from_huggingface(minilm_folder(), max_length=MAX_LENGTH)


def from_scratch(data, loss, rate, seed, epochs, batch_size, width, layers):
    """A small encoder of characters, trained from nothing.

    Returns:
        Spearman on the dev part and on the test part.
    """
    keras.utils.set_random_seed(seed)
    train, dev, test = chinese(data)
    tokenizer = Tokenizer.from_characters([text for pair in train for text in pair[:2]])
    encoder = BertEncoder(
        tokenizer.vocabulary_size,
        layers,
        width // 32,
        width,
        4 * width,
        max_sequence_length=MAX_LENGTH,
        residual="pre",
    )
    sentences = SentenceEncoder(encoder, tokenizer, max_length=MAX_LENGTH)
    pairs, loss, head = learnt_from(loss, train)
    sentences.compile(loss=loss, head=head, learning_rate=rate)
    sentences.fit(pairs, dev, epochs=epochs, batch_size=batch_size, verbose=0, seed=seed)
    return [sentences.evaluate(part).spearman for part in (dev, test)]


def compare_english(args):
    """The table of `fine_tune`."""
    runs, rows = Runs(args.results), []
    shown = {"batch_size": args.batch_size}
    for loss in args.losses:
        rate, grid = args.rates[0], {}
        if len(args.rates) > 1:
            grid = {
                rate: [runs.score(fine_tune, loss=loss, rate=rate, seed=0, share=0.25, **shown)[0]]
                for rate in args.rates
            }
            rate = best_rate(grid, lower=False)
        scores = [
            runs.score(fine_tune, loss=loss, rate=rate, seed=seed, share=args.share, **shown)
            for seed in args.seeds
        ]
        tried = ", ".join(f"{rate:g}: {score[0]:.4f}" for rate, score in grid.items())
        dev, test = (mean_and_spread([run[part] for run in scores]) for part in (0, 1))
        rows.append([loss, f"{rate:g}", dev, test, tried])
        print(rows[-1], flush=True)
    before = [minilm().evaluate(part).spearman for part in english()[1:]]
    rows.insert(0, ["none", "", *(f"{score:.4f}" for score in before), ""])
    print_table(
        f"MiniLM on STS-B, one epoch of {args.share:g} of the pairs, seeds {args.seeds}: Spearman",
        ["loss", "rate", "dev", "test", "rates on a quarter, dev"],
        rows,
    )


def compare_chinese(args):
    """The tables of `from_scratch`."""
    runs = Runs(args.results)
    shown = {name: getattr(args, name) for name in ("epochs", "batch_size", "width", "layers")}
    for data in args.data:
        rows = []
        for loss in args.losses:
            grid = {
                rate: runs.score(
                    from_scratch, data=data, loss=loss, rate=rate, seed=args.seed, **shown
                )
                for rate in args.rates
            }
            rate = best_rate({rate: score[:1] for rate, score in grid.items()}, lower=False)
            rows.append([loss, f"{rate:g}", *(f"{score:.4f}" for score in grid[rate])])
            print(rows[-1], flush=True)
        print_table(
            f"{data} from scratch, nothing pretrained, {args.epochs} epochs, one seed: Spearman",
            ["loss", "rate", "dev", "test"],
            rows,
        )
    print("Without pretraining these figures say which loss learns, not how good vectors can be.")


def main(words=None):
    """Runs what is not there yet, and prints.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True, metavar="part")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--results", default="build/sts.jsonl", help="file of runs")
    common.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    common.add_argument("--batch-size", type=int, default=32)

    part = parts.add_parser("english", parents=[common])
    part.add_argument("--rates", type=float, nargs="+", default=[1e-4])
    part.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    part.add_argument("--share", type=float, default=1.0, help="of the training pairs")
    part.set_defaults(compare=compare_english)

    part = parts.add_parser("chinese", parents=[common])
    part.add_argument("--data", nargs="+", default=["Chinese STS-B", "AFQMC"])
    part.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    part.add_argument("--seed", type=int, default=0)
    part.add_argument("--epochs", type=int, default=6)
    part.add_argument("--width", type=int, default=128)
    part.add_argument("--layers", type=int, default=2)
    part.set_defaults(compare=compare_chinese)

    args = parser.parse_args(words)
    args.compare(args)


if __name__ == "__main__":
    main()
