"""Texts to vectors: as fast as sentence-transformers, and in how much memory?

First the sentences of the STS-B test part by all-MiniLM-L6-v2, by ours and, where it is installed,
by sentence-transformers on the same weights, in one run, with the Spearman correlation of each.
Then a corpus of short sentences, each size in a process of its own: throughput, and the memory at
the peak beyond the texts and the array that is returned.
Run: python benchmarks/encode.py
"""

import argparse
import concurrent.futures
import importlib.util
import multiprocessing
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from memory import resident_megabytes, restart_peak
from ner_encoder import minilm_folder
from timing import median_times, print_table

from keras_ext.data import read_pairs
from keras_ext.metrics import spearman
from keras_ext.tasks import SentenceEncoder


def sides(dtypes):
    """The encoders to compare: name -> function of texts and batch size."""
    found = {}
    for dtype in dtypes:
        sentences = SentenceEncoder.from_huggingface(minilm_folder(), dtype=dtype)
        found[f"ours, {dtype}"] = sentences.encode
    if importlib.util.find_spec("sentence_transformers") is not None:
        # Its triton and TensorFlow bring two LLVMs, which end the process.
        sys.modules.setdefault("triton", None)
        from sentence_transformers import SentenceTransformer

        other = SentenceTransformer(str(minilm_folder()), device="cpu")
        found["sentence-transformers, float32"] = lambda texts, batch_size: other.encode(
            texts, batch_size=batch_size, show_progress_bar=False
        )
    return found


def compare(args):
    """Prints the table of speeds, with the correlation of each side."""
    folder = Path(os.environ.get("KERAS_EXT_DATA", "../shared/data"))
    pairs = read_pairs(folder / "stsbenchmark_en" / "sts-test.csv")[: args.pairs]
    labels = [score for *_, score in pairs]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    encoders = sides(args.dtypes)
    rows = []
    for batch_size in args.batch_sizes:
        runs = {
            name: partial(encode, first + second, batch_size=batch_size)
            for name, encode in encoders.items()
        }
        times = median_times(runs, args.repeats)
        work = median_times(runs, 1, clock=time.process_time)
        for name, run in runs.items():
            vectors = run()
            scores = np.sum(vectors[: len(pairs)] * vectors[len(pairs) :], axis=1)
            rows.append(
                [
                    batch_size,
                    name,
                    f"{spearman(labels, scores):.4f}",
                    f"{2 * len(pairs) / times[name]:.0f}",
                    f"{work[name]:.1f}",
                    f"{times[list(runs)[-1]] / times[name]:.2f}",
                ]
            )
    print_table(
        f"{2 * len(pairs)} sentences of STS-B test, all-MiniLM-L6-v2",
        [
            "batch size",
            "encoder",
            "Spearman",
            "texts a second",
            "processor seconds",
            "speed, of the last",
        ],
        rows,
        args.repeats,
    )


def corpus(size):
    """Short sentences, no two alike."""
    who = ["The old clerk", "A young driver", "My neighbour", "Nobody", "The second guest"]
    what = ["sees", "sold", "paints", "forgot", "carries", "mends"]
    return [
        f"{who[i % 5]} {what[i % 6]} the {'small ' * (i % 3)}box number {i}." for i in range(size)
    ]


def encode_corpus(size, batch_size):
    """Encodes a corpus, in a process of its own.

    Returns:
        Texts a second, MB at the peak beyond the texts and the result.
    """
    sentences = SentenceEncoder.from_huggingface(minilm_folder())
    texts = corpus(size)
    sentences.encode(texts[:8192], batch_size=batch_size)  # kernels and buffers are made
    baseline = resident_megabytes("VmRSS")
    restart_peak()
    start = time.perf_counter()
    vectors = sentences.encode(texts, batch_size=batch_size)
    seconds = time.perf_counter() - start
    return size / seconds, resident_megabytes("VmHWM") - baseline - vectors.nbytes / 1e6


def measure_corpora(args):
    """Prints the table of corpora."""
    rows = []
    for size in args.sizes:
        found = []
        for _ in range(args.runs):
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                found.append(pool.submit(encode_corpus, size, args.batch_sizes[0]).result())
        speed, memory = (statistics.median(values) for values in zip(*found, strict=True))
        rows.append([f"{size:,}", f"{speed:.0f}", f"{memory:.0f}", f"{size * 384 * 4 / 1e6:.0f}"])
    print_table(
        f"A corpus of short sentences, batches of {args.batch_sizes[0]}",
        ["texts", "texts a second", "peak beyond texts and result, MB", "result, MB"],
        rows,
    )


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--pairs", type=int, help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--runs", type=int, default=1, help="of each corpus")
    args = parser.parse_args()
    compare(args)
    if args.sizes:
        measure_corpora(args)


if __name__ == "__main__":
    main()
