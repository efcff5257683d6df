"""How much faster are entities read from the factors than from the scores of all pairs?

All sides start from the factors as a NumPy array and end with the same spans.
"""

import argparse
import functools

import keras
import numpy as np
from memory import peak_memory
from timing import compilers, median_times, print_table

from keras_ext.entities import decode_factored_spans, decode_spans
from keras_ext.ops import dense_span_scores

HEAD_SIZE = 64


def random_factors(batch, length, heads, entities, seed=0):
    """Factors as training leaves them: biases far below 0, some starts and ends high.

    Scores of no entity are normal around -10 with standard deviation 2. For each of `entities`
    spans a sample, the start and end biases of one type and the product of query and key are high.
    """
    rng = np.random.default_rng(seed)
    query, key = rng.normal(size=(2, batch, length, HEAD_SIZE)) * np.sqrt(1.4) / HEAD_SIZE**0.25
    biases = rng.normal(-5.0, 1.0, (2, batch, length, heads))
    for row in range(batch):
        lengths = rng.integers(0, 12, entities)
        starts = rng.choice(length - 12, entities, replace=False)
        types = rng.integers(0, heads, entities)
        biases[0, row, starts, types] += 6.0
        biases[1, row, starts + lengths, types] += 6.0
        query[row, starts] += key[row, starts + lengths] / 4.0
    return np.concatenate([query, key, *biases], axis=-1).astype("float32")


def decode_type_by_type(factored, heads, threshold=0.0):
    """NumPy, one type at a time in a buffer that stays in the cache: never all dense scores."""
    length = factored.shape[1]
    below = np.tril_indices(length, -1)
    scores, decoded = np.empty((length, length), "float32"), []
    for sample in factored:
        query, key = sample[:, :HEAD_SIZE], sample[:, HEAD_SIZE : 2 * HEAD_SIZE]
        starts = np.ascontiguousarray(sample[:, 2 * HEAD_SIZE : -heads].T)
        ends = np.ascontiguousarray(sample[:, -heads:].T)
        pairs = query @ key.T
        pairs[below] = -1e30
        spans = []
        for head in range(heads):
            np.add(pairs, starts[head][:, None], out=scores)
            np.add(scores, ends[head], out=scores)
            cells = np.flatnonzero(scores > threshold)
            spans.append((np.full(len(cells), head), *np.divmod(cells, length)))
        decoded.append(np.concatenate(spans, axis=1).T)
    return decoded


def decode_dense_at_once(factored, heads, threshold=0.0):
    """NumPy: the dense scores of all types are built, then thresholded."""
    below = np.tril_indices(factored.shape[1], -1)
    decoded = []
    for sample in factored:
        pairs = sample[:, :HEAD_SIZE] @ sample[:, HEAD_SIZE : 2 * HEAD_SIZE].T
        pairs[below] = -1e30
        scores = pairs + sample[:, 2 * HEAD_SIZE : -heads].T[:, :, None]  # (heads, n, n)
        scores += sample[:, -heads:].T[:, None]
        decoded.append(np.stack(np.nonzero(scores > threshold), axis=1))
    return decoded


def sides(factored, heads):
    """The functions to compare, by name; each returns the spans of every sample."""
    dense_scores = compilers()["XLA"](
        lambda factored: dense_span_scores(factored, heads, HEAD_SIZE)
    )

    def decode_dense_tensors():
        scores = keras.ops.convert_to_numpy(dense_scores(keras.ops.convert_to_tensor(factored)))
        return [spans for spans, _ in decode_spans(scores)]

    def decode_factored():
        return [spans for spans, _ in decode_factored_spans(factored, heads, HEAD_SIZE)]

    return {
        "factored": decode_factored,
        "dense, NumPy": functools.partial(decode_dense_at_once, factored, heads),
        "NumPy, type by type": functools.partial(decode_type_by_type, factored, heads),
        "dense, XLA and `decode_spans`": decode_dense_tensors,
    }


def prepare(side, batch, length, heads, entities):
    """For `peak_memory`: inputs and a warm-up on a tiny case."""
    sides(random_factors(1, 40, heads, entities), heads)[side]()
    return sides(random_factors(batch, length, heads, entities), heads)[side]


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--heads", type=int, default=44, help="number of types")
    parser.add_argument("--entities", type=int, default=20, help="entities in each sample")
    arguments = parser.parse_args()
    heads, repeats = arguments.heads, arguments.repeats
    sizes = (arguments.batch, arguments.length, heads, arguments.entities)
    functions = sides(random_factors(*sizes), heads)
    found = {
        name: [set(map(tuple, spans.tolist())) for spans in function()]
        for name, function in functions.items()
    }
    for name, entities in found.items():
        if entities != found["factored"]:
            raise AssertionError(f"The entities differ: factored and {name}")
    times = median_times(functions, repeats)
    rows = []
    for name, seconds in times.items():
        ratio, memory = seconds / times["factored"], peak_memory(prepare, name, *sizes)
        rows.append([name, f"{seconds * 1e3:.1f}", f"{ratio:.1f}", f"{memory:.0f}"])
    title = f"Decoding, b={arguments.batch}, n={arguments.length}, {heads} types"
    headers = ["from the factors by", "ms", "times the factored", "MB"]
    print_table(title, headers, rows, repeats)
    count = sum(map(len, found["factored"]))
    cells = arguments.batch * heads * arguments.length * (arguments.length + 1) // 2
    print(f"All sides found the same {count} spans, {count / cells:.5%} of the cells above 0.")


if __name__ == "__main__":
    main()
