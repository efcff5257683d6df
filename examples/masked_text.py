"""Text by unmasking: a bidirectional encoder that writes all words at once, or a few at a time.

    python examples/masked_text.py

trains a small GAU on the sentences of the project's corpus, letters to a town hall, in a few minutes
on two cores: random words are masked, it guesses them. Sampling begins with masks alone and reveals
some at each step, the more steps, the fewer at once. It prints

- a bound on -log p of held-out sentences, in nats for each word;
- samples in 1, 2, 4, 8, 32 steps, and how far their pairs of neighbouring words are from those of
  held-out sentences (total variation: 0 the same, 1 nothing in common), beside the floor: how far
  other sentences of the corpus are;
- a held-out sentence with a hole, filled in several ways.

It saves `model.keras` and `words.txt` into `masked_text_output`, loads them and draws the same. With
texts of your own, one in a line of a .txt file, or a file of pairs such as the STS benchmark:

    python examples/masked_text.py --data ../shared/data/stsbenchmark_en/sts-train.csv
"""

import argparse
import collections
import re
import time
from pathlib import Path

import keras
import numpy as np

from keras_ext import diffusion
from keras_ext.data import read_pairs
from keras_ext.models import GAUEncoder
from keras_ext.optimizers import GuardedLossScale

CORPUS = Path(__file__).parent / "data" / "graded_train.tsv"
NOTHING = ""
"""The word after the last one: sentences are as long as the model makes them."""


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=CORPUS, help="default: the project's corpus")
    parser.add_argument("--length", type=int, default=20, help="words and signs, at most")
    parser.add_argument("--min-count", type=int, default=3, help="of a word in all texts")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden-dim", type=int, default=128)
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "mixed_bfloat16", "mixed_float16"]
    )
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--ema", type=float, default=0.99, help="momentum of the averages")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 32])
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--shown", type=int, default=3, help="samples that are printed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path("masked_text_output"), type=Path)
    return parser.parse_args()


def words_of(text):
    """Words and signs."""
    return re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", text)


def text_of(ids, words):
    """Ids as a line; what is masked is a low line."""
    line = " ".join(
        {NOTHING: "", None: "_"}.get(word, word) for word in map(words.__getitem__, ids)
    )
    return re.sub(r" ([.,;:?!])", r"\1", line).strip()


def read_texts(path, length, min_count):
    """Distinct sentences without rare words, as ids, and the words, of which the last is the mask."""
    rows = read_pairs(path)
    texts = [text for row in rows for text in ([row] if isinstance(row, str) else row[:2])]
    texts = [words_of(text) for text in dict.fromkeys(texts)]
    counts = collections.Counter(word for text in texts for word in text)
    common = [word for word, count in counts.most_common() if count >= min_count]
    words = [NOTHING, *common, None]
    place = {word: i for i, word in enumerate(words)}
    fit = [text for text in texts if len(text) <= length and all(word in place for word in text)]
    if len(fit) < 10:
        raise SystemExit(
            f"{path}: {len(fit)} texts of at most {length} common words, 10 are needed"
        )
    ids = np.zeros((len(fit), length), "int32")
    for row, text in zip(ids, fit, strict=True):
        row[: len(text)] = [place[word] for word in text]
    return ids, words


def build(args, words, steps_per_epoch):
    """The model, compiled."""
    policy = keras.dtype_policies.get(args.precision)
    encoder = GAUEncoder(
        len(words),
        args.layers,
        args.hidden_dim,
        key_size=64,
        num_segments=0,
        with_mlm="linear",
        dtype=policy,
    )
    x = keras.Input((args.length,), dtype="int32", name="x")
    logits = encoder({"token_ids": x, "padding_mask": x >= 0})["mlm"]
    process = diffusion.forward_processes.Mask(vocabulary_size=len(words))
    model = diffusion.UnifiedDiffusion(
        keras.Model({"x": x}, logits), process, seed=args.seed, dtype=policy
    )
    steps = args.epochs * steps_per_epoch
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=args.learning_rate, warmup_steps=min(100, steps // 10)
    )
    optimizer = keras.optimizers.AdamW(rate, use_ema=True, ema_momentum=args.ema)
    if args.precision == "mixed_float16":
        optimizer = GuardedLossScale(optimizer)
    model.compile(optimizer, jit_compile=args.jit)
    return model


def pairs_of(ids):
    """How often each pair of neighbouring words occurs; those after the end are left out."""
    left, right = ids[:, :-1].ravel(), ids[:, 1:].ravel()
    kept = (left > 0) | (right > 0)
    return collections.Counter(zip(left[kept].tolist(), right[kept].tolist(), strict=True))


def distance(ids, others):
    """The total variation between the pairs of two sets of texts."""
    a, b = pairs_of(np.asarray(ids)), pairs_of(np.asarray(others))
    return 0.5 * sum(abs(a[p] / a.total() - b[p] / b.total()) for p in a.keys() | b.keys())


def show_samples(args, model, words, train, held_out):
    """Samples at each number of steps, and how far they are from held-out sentences."""
    count = min(len(held_out), len(train))
    floor = distance(train[:count], held_out)
    print(f"\npairs of words of {count} texts against those of {len(held_out)} held-out texts")
    for steps in args.steps:
        found = model.sample(count, steps, seed=args.seed, temperature=args.temperature).x
        print(f"{steps:4} steps: {distance(found, held_out):.3f}")
        for row in np.asarray(found)[: args.shown]:
            print(f"      {text_of(row, words)}")
    print(f"floor, texts of the corpus: {floor:.3f}")


def fill_hole(args, model, words, held_out):
    """A held-out sentence, a third of which is masked, and what the model writes there."""
    lengths = (held_out > 0).sum(axis=1)
    text = held_out[np.argmin(np.abs(lengths - 12))]
    first = max(1, int((text > 0).sum()) // 3)
    start = text.copy()
    start[first : 2 * first] = len(words) - 1
    print(f"\n{text_of(text, words)}\n{text_of(start, words)}")
    starts = np.repeat(start[None], args.shown, axis=0)
    result = model.sample(starts, max(args.steps), seed=args.seed, temperature=args.temperature)
    filled = np.asarray(result.x)
    for row in filled:
        print(f"      {text_of(row, words)}")
    if np.any(np.delete(filled - start, range(first, 2 * first), axis=1)):
        raise SystemExit("Expected the words beside the hole unchanged.")


def save_and_load(args, model, words):
    """Writes model and words, reads them, and compares the samples of one seed."""
    path = args.output / "model.keras"
    model.save(path)
    (args.output / "words.txt").write_text("\n".join(words[1:-1]) + "\n", "utf-8")
    again = keras.saving.load_model(path)
    first, second = (np.asarray(each.sample(4, 8, seed=5).x) for each in (model, again))
    print(
        f"\nthe model that was loaded from {path} draws the same: {np.array_equal(first, second)}"
    )
    if not np.array_equal(first, second):
        raise SystemExit("Expected the same samples.")


def main():
    """Trains, samples, measures, saves."""
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    ids, words = read_texts(args.data, args.length, args.min_count)
    ids = np.random.default_rng(args.seed).permutation(ids)
    held_out, train = np.split(ids, [len(ids) // 5])
    print(f"{len(train)} texts to train on, {len(held_out)} held out, {len(words) - 2} words")
    model = build(args, words, -(-len(train) // args.batch_size))
    start = time.perf_counter()
    model.fit(
        train,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(held_out,),
        validation_freq=10,
        verbose=2,
    )
    print(f"trained in {time.perf_counter() - start:.0f} s")
    places, lengths = args.length, (held_out > 0).sum(axis=1) + 1
    nats = model.evaluate(held_out, verbose=0) * places / lengths.mean()
    print(f"held-out texts: at most {nats:.2f} nats a word, {np.log(len(words) - 1):.2f} by chance")
    show_samples(args, model, words, train, held_out)
    fill_hole(args, model, words, held_out)
    save_and_load(args, model, words)


if __name__ == "__main__":
    main()
