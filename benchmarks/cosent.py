"""How much time and memory does CoSENT save when it does not take its sum pair by pair?

Four tables. From the scores: `ranking_logsumexp` against the double sum, value and gradient, time
and peak memory. Batches that the double sum cannot hold. The whole loss, from vectors: beside the
double sum, and sentence-transformers' CoSENTLoss on torch, where that is installed. How far all of
them are from the double sum in float64.

Times are processor time, of all threads, so that other programs on the machine do not count;
beside their ratio is that of the wall clock. `python benchmarks/cosent.py`
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import sys
import time

import numpy as np
from keras import ops
from memory import peak_memory
from timing import BACKEND, compilers, median_times, print_table, to_numpy, value_and_gradient

from keras_ext.losses import CoSENT, ranking_logsumexp
from keras_ext.ops import cosine_scores

SCALE = 20.0


def double_sum(labels, scores):
    """The alternative: all pairs at once, in the safe form."""
    gaps = SCALE * (scores[:, None] - scores)  # (B, B)
    counts = labels[:, None] < labels
    top = ops.stop_gradient(ops.maximum(ops.max(ops.where(counts, gaps, 0.0)), 0.0))
    terms = ops.where(counts, ops.exp(ops.where(counts, gaps - top, 0.0)), 0.0)
    return top + ops.log(ops.exp(-top) + ops.sum(terms))


def cosent(labels, vectors):
    """Ours, of vectors (B, 2, d)."""
    return CoSENT(1 / SCALE)(labels, vectors)


def double_cosent(labels, vectors):
    """The double sum of the same scores."""
    return double_sum(labels, cosine_scores(vectors[:, 0], vectors[:, 1]))


LOSSES = {
    "ranking_logsumexp": functools.partial(ranking_logsumexp, temperature=1 / SCALE),
    "double sum": double_sum,
    "CoSENT": cosent,
    "double CoSENT": double_cosent,
}


def random_labels(size, seed=0):
    """Grades from 0 to 5 in steps of 0.2, as in STS-B."""
    return np.random.default_rng(seed).integers(0, 26, size).astype("float32") / 5


def score_case(size):
    """Labels, and scores in the range of a cosine that follow them in part."""
    labels = random_labels(size)
    noise = np.random.default_rng(1).uniform(-1, 1, size)
    return labels, (0.2 * labels - 0.5 + 0.5 * noise).astype("float32")


def vector_case(size, width):
    """Labels, and vectors of pairs that are the more alike the higher the label."""
    labels, rng = random_labels(size), np.random.default_rng(1)
    first, noise = rng.normal(size=(2, size, width))
    alike = labels[:, None] / 5
    return labels, np.stack([first, alike * first + (1 - alike) * noise], 1).astype("float32")


def compiled_side(name, mode):
    """A function of labels and what is differentiated, that gives the loss and its gradient."""
    loss = LOSSES[name]
    return compilers()[mode](
        lambda labels, x: value_and_gradient(functools.partial(loss, labels))(x)
    )


def prepare(name, mode, size):
    """For `peak_memory`: inputs and a warm-up on a tiny case."""
    run = compiled_side(name, mode)
    to_numpy(run(*map(ops.convert_to_tensor, score_case(8))))
    return functools.partial(run, *map(ops.convert_to_tensor, score_case(size)))


def megabytes(name, mode, size):
    """The memory of value and gradient from the scores.

    With JAX by XLA's own account. Else that of a process, and what compiling for this size leaves
    resident is part of it: some 3 MB of a graph, 15 of XLA, most of what ours seems to need.
    """
    if BACKEND != "jax":
        return peak_memory(prepare, name, mode, size)
    case = map(ops.convert_to_tensor, score_case(size))
    compiled = compiled_side(name, mode).lower(*case).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def sentence_transformers_side(labels, vectors):
    """The same from CoSENTLoss on torch, or None where it is not installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return None
    # A part of torch for GPUs; its LLVM beside that of TensorFlow would end the process.
    sys.modules.setdefault("triton", None)
    import torch
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    loss, labels = CoSENTLoss(torch.nn.Identity(), scale=SCALE), torch.tensor(labels)
    vectors = torch.tensor(vectors)

    def run():
        both = vectors.detach().requires_grad_()
        value = loss.compute_loss_from_embeddings([both[:, 0], both[:, 1]], labels)
        value.backward()
        return value.detach().numpy(), both.grad.numpy()

    return run


def exact_from_scores(labels, scores):
    """Value and gradient of the double sum in float64, 512 rows at a time."""
    scores = scores.astype("float64")
    blocks = range(0, len(scores), 512)

    def gaps(start):
        rows = slice(start, start + 512)
        counts = labels[rows, None] < labels
        return np.where(counts, SCALE * (scores[rows, None] - scores), -np.inf)

    sums = [np.logaddexp.reduce(gaps(start), axis=None) for start in blocks]
    value = np.logaddexp.reduce([0.0, *sums])
    gradient = np.zeros(len(scores))
    for start in blocks:
        shares = SCALE * np.exp(gaps(start) - value)
        gradient[start : start + 512] += shares.sum(1)
        gradient -= shares.sum(0)
    return value, gradient


def exact_from_vectors(labels, vectors):
    """Value and gradient of the whole loss in float64."""
    vectors = vectors.astype("float64")
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    units = vectors / lengths
    cosines = units.prod(axis=1).sum(axis=1)
    value, of_cosines = exact_from_scores(labels, cosines)
    of_units = units[:, ::-1] - cosines[:, None, None] * units  # at right angles to the vector
    return value, of_cosines[:, None, None] * of_units / lengths


def differences(result, exact):
    """The largest relative difference of the value, and of the gradient."""
    pairs = zip(to_numpy(result), exact, strict=True)
    return [np.abs(ours - truth).max() / np.abs(truth).max() for ours, truth in pairs]


def milliseconds(sides, repeats):
    """Name -> milliseconds of the processor, and of the wall clock."""
    clocks = (time.process_time, time.perf_counter)
    measured = [median_times(sides, repeats, clock) for clock in clocks]
    return {name: [1e3 * seconds[name] for seconds in measured] for name in sides}


def ways():
    """How to run: compiled; operation by operation is for debugging."""
    return [mode for mode in compilers() if mode != "eager"]


def from_scores(sizes, repeats):
    """Rows of the first two tables."""
    rows, errors = [], []
    for size in sizes:
        arrays = score_case(size)
        case, exact = list(map(ops.convert_to_tensor, arrays)), exact_from_scores(*arrays)
        for mode in ways():
            names = ("ranking_logsumexp", "double sum")
            sides = {name: functools.partial(compiled_side(name, mode), *case) for name in names}
            errors += [
                [f"{size:,}", mode, name, *differences(sides[name](), exact)] for name in names
            ]
            (ours, ours_wall), (double, double_wall) = milliseconds(sides, repeats).values()
            memory, of_double = (megabytes(name, mode, size) for name in names)
            rows.append([f"{size:,}", mode, f"{ours:.2f}", f"{double:.1f}", f"{double / ours:.0f}"])
            rows[-1] += [f"{double_wall / ours_wall:.0f}", f"{memory:.2f}", f"{of_double:.1f}"]
            rows[-1].append(f"{of_double / max(memory, 0.01):.0f}")
    return rows, errors


def alone(size, repeats):
    """Rows of the second table."""
    case, rows = list(map(ops.convert_to_tensor, score_case(size))), []
    for mode in ways():
        side = functools.partial(compiled_side("ranking_logsumexp", mode), *case)
        finite = all(np.isfinite(x).all() for x in to_numpy(side()))
        processor, wall = milliseconds({"ours": side}, repeats)["ours"]
        memory = megabytes("ranking_logsumexp", mode, size)
        rows.append([f"{size:,}", mode, f"{processor:.1f}", f"{wall:.1f}", f"{memory:.1f}"])
        rows[-1].append("yes" if finite else "NO")
    return rows


def from_vectors(sizes, width, repeats):
    """Rows of the last two tables."""
    rows, errors = [], []
    for size in sizes:
        arrays = vector_case(size, width)
        case, exact = list(map(ops.convert_to_tensor, arrays)), exact_from_vectors(*arrays)
        sides = {
            (name, mode): functools.partial(compiled_side(name, mode), *case)
            for mode in ways()
            for name in ("CoSENT", "double CoSENT")
        }
        torch_side = sentence_transformers_side(*arrays)
        if torch_side is not None:
            sides["sentence-transformers", "torch"] = torch_side
        for (name, mode), side in sides.items():
            errors.append([f"{size:,}", mode, name, *differences(side(), exact)])
        for (name, mode), (processor, wall) in milliseconds(sides, repeats).items():
            rows.append([f"{size:,}", name, mode, f"{processor:.1f}", f"{wall:.1f}"])
    return rows, errors


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 4096], help="pairs")
    parser.add_argument("--large", type=int, default=131072, help="pairs without the double sum")
    parser.add_argument("--width", type=int, default=384, help="of the vectors")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    sizes, repeats = arguments.sizes, arguments.repeats
    rows, errors = from_scores(sizes, repeats)
    headers = ["pairs", "run as", "ours, ms", "double sum, ms", "times faster", "by the wall clock"]
    headers += ["ours, MB", "double sum, MB", "times smaller"]
    print_table("ranking_logsumexp from the scores, value and gradient", headers, rows, repeats)
    headers = ["pairs", "run as", "processor, ms", "wall clock, ms", "MB", "finite"]
    rows = alone(arguments.large, repeats)
    print_table("More pairs than the double sum holds", headers, rows, repeats)
    rows, more_errors = from_vectors(sizes, arguments.width, repeats)
    headers = ["pairs", "loss", "run as", "processor, ms", "wall clock, ms"]
    title = f"CoSENT from vectors of {arguments.width}, value and gradient"
    if any(row[1] == "sentence-transformers" for row in rows):
        version = importlib.metadata.version("sentence-transformers")
        title += f"; sentence-transformers {version}"
    print_table(title, headers, rows, repeats)
    errors += more_errors
    rows = [[*row[:3], *(f"{error:.1e}" for error in row[3:])] for row in errors]
    headers = ["pairs", "run as", "loss", "of the value", "of the gradient"]
    print_table("Largest relative difference to the double sum in float64", headers, rows)
    if not all(max(row[3:]) < 1e-5 for row in errors if row[2] in ("ranking_logsumexp", "CoSENT")):
        raise SystemExit("Ours differs from the double sum.")


if __name__ == "__main__":
    main()
