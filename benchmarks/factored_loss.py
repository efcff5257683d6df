"""How much time and memory does the factored loss save against the dense loss?

Both sides start from the factored tensor and end with the loss and its gradient.
"""

import argparse
import functools

import keras
import numpy as np
from memory import peak_memory
from timing import compilers, median_times, print_table, to_numpy, value_and_gradient

from keras_ext.losses import factored_global_pointer_crossentropy, global_pointer_crossentropy
from keras_ext.ops import dense_span_scores


def factored_loss(spans, factored, heads, head_size):
    """Ours."""
    return factored_global_pointer_crossentropy(spans, factored, heads, head_size)


def dense_loss(spans, factored, heads, head_size):
    """The alternative: the scores of all pairs of all types, and the loss on them."""
    return global_pointer_crossentropy(spans, dense_span_scores(factored, heads, head_size))


SIDES = {"factored": factored_loss, "dense": dense_loss}


def random_case(seed, batch, length, heads, head_size, count):
    """Factors with padding, and gold spans among which are nested, crossing and repeated ones."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(length // 2, length + 1, batch)
    factored = rng.normal(size=(batch, length, 2 * (head_size + heads))).astype("float32")
    factored[..., :head_size] /= np.sqrt(head_size)
    factored[np.arange(length) >= lengths[:, None], 2 * head_size :] = -1e30
    ends = rng.integers(0, lengths[:, None], (batch, count))
    spans = np.stack([rng.integers(0, heads, (batch, count)), rng.integers(0, ends + 1), ends], -1)
    spans[:, 1] = spans[:, 0]  # twice the same
    spans[:, 2, 1:] = spans[:, 0, 1:]  # the same pair, perhaps of another type
    spans[:, 3, 1], spans[:, 3, 2] = 0, lengths - 1  # around all others
    spans[np.arange(count) >= rng.integers(4, count + 1, (batch, 1))] = -1
    return [keras.ops.convert_to_tensor(x) for x in (spans.astype("int32"), factored)]


def compiled_side(side, mode, heads, head_size):
    """A function of spans and factors that returns the loss and its gradient."""

    def run(spans, factored):
        loss = functools.partial(SIDES[side], spans, heads=heads, head_size=head_size)
        return value_and_gradient(loss)(factored)

    return compilers()[mode](run)


def prepare(side, mode, sizes):
    """For `peak_memory`: inputs and a warm-up on a tiny case."""
    run = compiled_side(side, mode, sizes["heads"], sizes["head_size"])
    to_numpy(run(*random_case(0, **{**sizes, "batch": 1, "length": 8})))
    return functools.partial(run, *random_case(0, **sizes))


def difference(ours, reference):
    """The largest relative difference of the values, and of the gradients."""
    pairs = zip(to_numpy(ours), to_numpy(reference), strict=True)
    return np.array([np.abs(a - b).max() / np.abs(b).max() for a, b in pairs])


def largest_difference(cases):
    """Over random cases of a small size."""
    sizes = {"batch": 3, "length": 24, "heads": 5, "head_size": 8}
    ours, reference = (compiled_side(side, "XLA", 5, 8) for side in SIDES)
    differences = [np.zeros(2)]
    for seed in range(cases):
        case = random_case(seed, count=16, **sizes)
        differences.append(difference(ours(*case), reference(*case)))
    return np.max(differences, axis=0)


def print_compiler_memory(heads, sizes):
    """XLA's own account of the temporary memory of both sides; JAX gives it."""
    case, memory = random_case(0, heads=heads, **sizes), {}
    for side in SIDES:
        compiled = compiled_side(side, "XLA", heads, 64).lower(*case).compile()
        memory[side] = compiled.memory_analysis().temp_size_in_bytes
    ours, dense, ratio = compared(memory, 1e-6)
    print(f"{heads} types, by XLA's account: {ours} MB against {dense} MB, {ratio} times smaller.")


def compared(measured, unit):
    """Three cells of the table: ours, the alternative, and their ratio."""
    ours, dense = measured["factored"], measured["dense"]
    return f"{ours * unit:.1f}", f"{dense * unit:.1f}", f"{dense / ours:.1f}"


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--heads", type=int, nargs="+", default=[10, 44], help="numbers of types")
    parser.add_argument("--cases", type=int, default=20, help="random cases to compare")
    parser.add_argument("--compiler-memory", action="store_true", help="only this, with JAX")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    arguments = parser.parse_args()
    sizes = {"batch": arguments.batch, "length": arguments.length, "head_size": 64, "count": 16}
    if arguments.compiler_memory:
        for heads in arguments.heads:
            print_compiler_memory(heads, sizes)
        return
    rows, differences = [], [largest_difference(arguments.cases)]
    for heads in arguments.heads:
        case = random_case(0, heads=heads, **sizes)
        for mode in compilers():
            runs = {side: compiled_side(side, mode, heads, 64) for side in SIDES}
            sides = {side: functools.partial(run, *case) for side, run in runs.items()}
            differences.append(difference(sides["factored"](), sides["dense"]()))
            times = median_times(sides, arguments.repeats)
            full = sizes | {"heads": heads}
            memory = {side: peak_memory(prepare, side, mode, full) for side in SIDES}
            rows.append([heads, mode, *compared(times, 1e3), *compared(memory, 1.0)])
    headers = ["types", "run as", "factored, ms", "dense, ms", "times faster"]
    headers += ["factored, MB", "dense, MB", "times smaller"]
    title = f"Loss and gradient, b={arguments.batch}, n={arguments.length}, head_size 64, k=16"
    print_table(title, headers, rows, arguments.repeats)
    value, gradient = np.max(differences, axis=0)
    print(f"Largest relative difference: value {value:.1e}, gradient {gradient:.1e}")
    print(f"({arguments.cases} random cases of a small size, and those timed).")
    if max(value, gradient) > 1e-5:
        raise SystemExit("The two losses differ.")


if __name__ == "__main__":
    main()
