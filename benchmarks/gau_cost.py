"""What do two gated attention units cost beside one block of attention and feed-forward?

All sides have about as many weights, each layer adds to its input, and value and gradients (by the
input and by all weights) are computed. Time, peak memory and the count of operations, by length:

    python benchmarks/gau_cost.py                            # graph, TensorFlow
    python benchmarks/gau_cost.py --batch 1 --lengths 1024 2048 4096 --sides gau flash
    KERAS_BACKEND=jax python benchmarks/gau_cost.py --policy mixed_bfloat16 \
        --sides attention fused gau flash --compiler-memory  # on a GPU
"""

import argparse
import functools
import math
import statistics
import time

import keras
import numpy as np
from memory import peak_memory
from timing import BACKEND, compilers, median_times, print_table, to_numpy, value_and_gradient

from keras_ext.layers import (
    FeedForward,
    GatedAttentionUnit,
    MixedChunkAttention,
    MultiHeadSelfAttention,
)

TITLES = {
    "attention": "attention + feed-forward",
    "fused": "flash attention + feed-forward",  # a GPU and a half precision; without rope
    "gau": "two GAU",
    "flash": "two FLASH",
}


def side_layers(side, width, heads, key_size, chunk_size, policy):
    """The two layers of a side."""
    if side == "attention":
        first = MultiHeadSelfAttention(heads, width // heads, rope=True, dtype=policy)
    elif side == "fused":
        first = keras.layers.MultiHeadAttention(
            heads, width // heads, flash_attention=True, dtype=policy
        )
    if side in ("attention", "fused"):
        return [first, FeedForward(4 * width, dtype=policy)]
    arguments = {"units": 2 * width, "key_size": key_size, "rope": True, "dtype": policy}
    if side == "gau":
        return [GatedAttentionUnit(**arguments) for _ in range(2)]
    return [MixedChunkAttention(chunk_size=chunk_size, **arguments) for _ in range(2)]


def counted_operations(side, batch, length, width, key_size, chunk_size):
    """Additions and multiplications of all matrix products; the gradient takes twice the value."""
    if side in ("attention", "fused"):
        products = length * 12 * width**2 + 2 * length**2 * width
    else:
        units = 2 * width
        products = length * (3 * width * units + width * key_size)
        keys = length if side == "gau" else min(chunk_size, length)
        products += length * keys * (key_size + units)
        if side == "flash":
            products += 2 * length * key_size * units
        products *= 2
    return 3 * 2 * batch * products


def counted_bytes(side, batch, length, heads, chunk_size):
    """Four float32 tensors of scores, about what is held at the worst moment."""
    scores = {"attention": heads * length, "fused": 0, "gau": length, "flash": chunk_size}
    return 4 * 4 * batch * length * scores[side]


def compiled_side(side, mode, sizes):
    """A function of x (b, n, d) that returns value and gradients."""
    layers = side_layers(side, **sizes)

    def network(arguments):
        x, *weights = arguments
        with keras.StatelessScope(zip(variables, weights, strict=True)):
            return apply(layers, x)

    apply(layers, random_input(1, 4, sizes))  # builds them
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    weights = [keras.ops.convert_to_tensor(to_numpy(variable.value)) for variable in variables]
    run = compilers()[mode](value_and_gradient(network))
    return lambda x: run([x, *weights])


def apply(layers, x):
    """`x` through the layers, each added to its input."""
    for layer in layers:
        with_itself = isinstance(layer, keras.layers.MultiHeadAttention)
        x = x + (layer(x, x) if with_itself else layer(x))
    return x


def random_input(batch, length, sizes):
    """Normal numbers (b, n, d) in the compute dtype."""
    x = np.random.default_rng(0).normal(size=(batch, length, sizes["width"]))
    return keras.ops.cast(x, keras.dtype_policies.get(sizes["policy"]).compute_dtype)


def prepare(side, mode, sizes, batch, length):
    """For `peak_memory`: a side, its input, and a warm-up at a small length."""
    run = compiled_side(side, mode, sizes)
    to_numpy(run(random_input(batch, 64, sizes)))
    return functools.partial(run, random_input(batch, length, sizes))


def compiler_memory(side, sizes, batch, length):
    """XLA's own account of the temporary memory in MB; JAX gives it."""
    import jax

    run = compiled_side(side, "eager", sizes)
    compiled = jax.jit(run).lower(random_input(batch, length, sizes)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def fitting(arguments, length):
    """The sides whose counted memory is allowed; prints those left out."""
    sides = []
    for side in arguments.sides:
        size = counted_bytes(side, arguments.batch, length, arguments.heads, arguments.chunk_size)
        if size <= arguments.max_gigabytes * 1e9:
            sides.append(side)
        else:
            print(f"Left out at n={length}: {TITLES[side]}, its scores take {size / 1e9:.1f} GB.")
    return sides


def measured(arguments, mode, sizes, length):
    """Dict side -> operations, seconds and MB at one length."""
    batch, runs = arguments.batch, {}
    x = random_input(batch, length, sizes)
    for side in fitting(arguments, length):
        runs[side] = functools.partial(compiled_side(side, mode, sizes), x)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    times = median_times(runs, arguments.repeats, clock)
    del runs
    results = {}
    for side, seconds in times.items():
        shape = (arguments.width, arguments.key_size, arguments.chunk_size)
        operations = counted_operations(side, batch, length, *shape)
        if arguments.compiler_memory:
            memory = compiler_memory(side, sizes, batch, length)
        elif arguments.no_memory:
            memory = math.nan
        else:
            case = (prepare, side, mode, sizes, batch, length)
            memory = statistics.median(peak_memory(*case) for _ in range(arguments.memory_runs))
        results[side] = (operations, seconds, memory)
    return results


def cost_rows(results, first):
    """Rows of the table of costs; ratios are to the side `first` at the same length."""
    rows = []
    for length, sides in results.items():
        for side, values in sides.items():
            reference = sides.get(first, (math.nan,) * 3)
            units = zip(values, reference, (1e-9, 1e3, 1.0), strict=True)
            cells = [(cell(a * unit, 0), cell(a / b, 2)) for a, b, unit in units]
            rows.append([length, TITLES[side], *sum(cells, ())])
    return rows


def cell(number, digits):
    """A number of the table; a dash for what was not measured."""
    return "-" if math.isnan(number) else f"{number:.{digits}f}"


def slope_rows(results):
    """Rows of the table of growth: d log(cost) / d log(n) between neighbouring lengths."""
    rows, lengths = [], list(results)
    for short, long in zip(lengths, lengths[1:], strict=False):
        for side in results[long]:
            if side not in results[short]:
                continue
            pairs = zip(results[short][side], results[long][side], strict=True)
            slopes = [math.log(b / a) / math.log(long / short) for a, b in pairs]
            rows.append([f"{short} to {long}", TITLES[side], *(cell(s, 2) for s in slopes)])
    return rows


def main(words=None):
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--sides", nargs="+", choices=TITLES, default=["attention", "gau", "flash"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--key-size", type=int, default=128)
    parser.add_argument("--chunk-size", type=int, default=256)
    parser.add_argument("--policy", default="float32", help="dtype policy of the layers")
    parser.add_argument("--jit", action="store_true", help="XLA (with JAX always)")
    parser.add_argument("--max-gigabytes", type=float, default=8.0, help="for a side's scores")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--processor-time", action="store_true", help="not the wall clock's")
    # The order in which TensorFlow computes, and with it the peak, differs from run to run.
    parser.add_argument("--memory-runs", type=int, default=3, help="the median is printed")
    parser.add_argument(
        "--compiler-memory", action="store_true", help="XLA's account, not the resident (JAX)"
    )
    arguments = parser.parse_args(words)
    mode = "XLA" if arguments.jit or BACKEND == "jax" else "graph"
    names = ("width", "heads", "key_size", "chunk_size", "policy")
    sizes = {name: getattr(arguments, name) for name in names}
    results = {
        length: measured(arguments, mode, sizes, length) for length in sorted(arguments.lengths)
    }
    title = (
        f"Value and gradient, {mode}, b={arguments.batch}, width {arguments.width}, "
        f"{arguments.heads} heads, key_size {arguments.key_size}, chunks of "
        f"{arguments.chunk_size}, {arguments.policy}"
    )
    headers = ["n", "side", "10^9 operations", "ratio", "ms", "ratio", "MB", "ratio"]
    headers[4] = "processor ms" if arguments.processor_time else "ms"
    print_table(title, headers, cost_rows(results, arguments.sides[0]), arguments.repeats)
    if len(results) > 1:
        headers = ["n", "side", "operations", "time", "memory"]
        print_table("Growth: slopes in log-log", headers, slope_rows(results), arguments.repeats)


if __name__ == "__main__":
    main()
