"""Attention with quantised keys beside that of all pairs: what it costs, and what it learns.

    python benchmarks/vq_attention.py time
    python benchmarks/vq_attention.py time --lengths 512 1024 2048 --no-memory
    KERAS_BACKEND=jax python benchmarks/vq_attention.py time --policy mixed_bfloat16  # on a GPU
    python benchmarks/vq_attention.py language --data DATA       # that holds stsbenchmark_en

`time`: forward pass and training step (value, gradient and
codebook) of one layer, causal, by length, beside
full attention, a gated attention unit and FLASH; the slopes in log-log and where it becomes the
fastest. `language`: a language model of characters with `VQAttention` of several codebooks and with
full attention of the same size; loss on held-out text over seeds.
"""

import argparse
import functools
import math
import statistics
import time
from pathlib import Path

import keras
import numpy as np
from character_model import pieces, read_characters
from memory import peak_memory
from timing import BACKEND, compilers, median_times, print_table, to_numpy, value_and_gradient

from keras_ext.layers import (
    FeedForward,
    GatedAttentionUnit,
    MixedChunkAttention,
    MultiHeadSelfAttention,
    VQAttention,
)

SIDES = ("full", "VQ", "GAU", "FLASH", "VQ gated")
PASSES = ("forward", "training")


def side_layer(side, options):
    """The layer of a side, causal, of about as many weights where it is gated and where it is not."""
    width, heads, policy = options["width"], options["heads"], options["policy"]
    size, units = width // heads, 2 * width
    vq = {"codes": options["codes"], "block_length": options["block"], "dtype": policy}
    unit = {"units": units, "key_size": 128, "causal": True, "rope": True, "dtype": policy}
    if side == "full":
        return MultiHeadSelfAttention(heads, size, causal=True, rope=True, dtype=policy)
    if side == "VQ":
        return VQAttention(heads, size, position_bias=options["bias"], **vq)
    if side == "VQ gated":
        return VQAttention(1, 128, units, gated=True, position_bias=options["bias"], **vq)
    if side == "GAU":
        return GatedAttentionUnit(**unit)
    return MixedChunkAttention(chunk_size=options["block"], **unit)


def compiled_pass(side, name, options):
    """A function of x (b, n, d): the output; or a loss and all gradients, and the codebook moves."""
    layer = side_layer(side, options)
    layer.build((None, None, options["width"]))
    variables = layer.trainable_variables
    weights = [keras.ops.convert_to_tensor(to_numpy(variable.value)) for variable in variables]

    training = name == "training"

    def network(arguments):
        x, *values = arguments
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(pairs, collect_losses=True) as scope:
            output = layer(x, training=training)
        if not training:
            return output
        # What a step computes beside the output is computed only where something depends on it.
        states = [scope.get_current_value(state) for state in layer.non_trainable_variables]
        states = [keras.ops.stop_gradient(state) for state in states if state is not None]
        parts = [output, *scope.losses, *states]
        return sum(keras.ops.sum(keras.ops.cast(part, "float32")) for part in parts)

    function = value_and_gradient(network) if training else network
    mode = "XLA" if options["jit"] or BACKEND == "jax" else "graph"
    run = compilers()[mode](function)
    return lambda x: run([x, *weights])


def random_input(length, options):
    """Normal numbers (b, n, d) in the compute dtype."""
    x = np.random.default_rng(0).normal(size=(options["batch"], length, options["width"]))
    return keras.ops.cast(x, keras.dtype_policies.get(options["policy"]).compute_dtype)


def prepared(side, name, length, options):
    """For `peak_memory`: a side and its input, warm at a small length."""
    run = compiled_pass(side, name, options)
    to_numpy(run(random_input(64, options)))
    return functools.partial(run, random_input(length, options))


def score_gigabytes(side, length, options):
    """About what the scores of all pairs take at the worst moment; 0 for the linear sides."""
    heads = {"full": options["heads"], "GAU": 1}.get(side, 0)
    return 4 * 4 * options["batch"] * heads * length**2 / 1e9


def measured(name, arguments, options):
    """Dict length -> side -> seconds and MB."""
    results, clock = {}, time.process_time if arguments.processor_time else time.perf_counter
    runs = {side: compiled_pass(side, name, options) for side in arguments.sides}
    for length in sorted(arguments.lengths):
        fits = [
            side
            for side in arguments.sides
            if score_gigabytes(side, length, options) <= arguments.max_gigabytes
        ]
        for side in set(arguments.sides) - set(fits):
            print(f"Left out at n={length}: {side}, its scores take too much memory.")
        x = random_input(length, options)
        times = median_times(
            {side: functools.partial(runs[side], x) for side in fits}, arguments.repeats, clock
        )
        results[length] = {
            side: (
                seconds,
                math.nan
                if arguments.no_memory
                else peak_memory(prepared, side, name, length, options),
            )
            for side, seconds in times.items()
        }
    return results


def slope(pairs):
    """The slope of the least-squares line through (length, cost), both as logarithms."""
    x, y = np.log(np.array(pairs, "float64")).T
    return float(np.polyfit(x, y, 1)[0])


def crossover(results, side, other):
    """The length from which on a side is faster than another, between those measured, or None.

    The ratio of the times is taken as a line between neighbours, in log-log.
    """
    ratios = [
        (math.log(length), math.log(sides[side][0] / sides[other][0]))
        for length, sides in results.items()
        if side in sides and other in sides
    ]
    if not ratios or ratios[-1][1] >= 0:
        return None
    found = ratios[0][0]
    for (x, a), (z, b) in zip(ratios, ratios[1:], strict=False):
        if a >= 0 > b:
            found = x + (z - x) * a / (a - b)
    return math.exp(found)


def print_time(name, results, arguments, options):
    """The tables of one pass."""
    first = arguments.sides[0]
    rows = [
        [
            length,
            side,
            f"{seconds * 1e3:.1f}",
            f"{sides[first][0] / seconds:.2f}" if first in sides else "-",
            "-" if math.isnan(memory) else f"{memory:.0f}",
        ]
        for length, sides in results.items()
        for side, (seconds, memory) in sides.items()
    ]
    title = (
        f"{name}: width {options['width']}, {options['heads']} heads, b={options['batch']}, "
        f"L={options['block']}, {options['codes']} codes, bias {options['bias']}, "
        f"{options['policy']}"
    )
    unit = "processor ms" if arguments.processor_time else "ms"
    headers = ["n", "side", unit, f"times as fast as {first}", "MB"]
    print_table(title, headers, rows, arguments.repeats)
    for side in arguments.sides:
        costs = [(n, sides[side]) for n, sides in results.items() if side in sides]
        if len(costs) < 2:
            continue
        text = f"{side}: slope of time {slope([(n, cost[0]) for n, cost in costs]):.2f}"
        if not arguments.no_memory:
            text += f", of memory {slope([(n, cost[1]) for n, cost in costs]):.2f}"
        if side != first:
            place = crossover(results, side, first)
            text += ", never faster" if place is None else f", faster from n = {place:.0f} on"
            text += f" (than {first})"
        print(text)
    print(flush=True)


def time_main(arguments):
    """Measures both passes and prints."""
    names = ("width", "heads", "batch", "block", "codes", "bias", "policy", "jit")
    options = {name: getattr(arguments, name) for name in names}
    options["bias"] = None if options["bias"] == "none" else options["bias"]
    for name in arguments.passes:
        print_time(name, measured(name, arguments, options), arguments, options)


def language_model(characters, codes, arguments):
    """A transformer that scores the next character; `codes` 0: with full attention."""
    width, size = arguments.width, arguments.width // arguments.heads
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(characters, width)(inputs)
    for _ in range(arguments.layers):
        if codes:
            attention = VQAttention(
                arguments.heads, size, codes=codes, block_length=arguments.block
            )
        else:
            attention = MultiHeadSelfAttention(
                arguments.heads, size, causal=True, rope=True, use_bias=False
            )
        x = x + attention(keras.layers.LayerNormalization()(x))
        x = x + FeedForward(4 * width)(keras.layers.LayerNormalization()(x))
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(characters)(x))


def trained_loss(codes, seed, texts, arguments):
    """Loss on held-out text in nats a character, the model's weights, and the codes in use."""
    train, held_out, characters = texts
    keras.utils.set_random_seed(seed)
    model = language_model(characters, codes, arguments)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.schedules.CosineDecay(arguments.rate, arguments.steps)
    model.compile(keras.optimizers.Adam(rate), cross_entropy, jit_compile=arguments.jit)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(train) - arguments.length, arguments.steps * arguments.batch)
    x, y = pieces(train, starts, arguments.length)
    model.fit(x, y, batch_size=arguments.batch, shuffle=False, verbose=0)
    last = len(held_out) - arguments.length - 1
    x, y = pieces(held_out, np.linspace(0, last, arguments.tests).astype(int), arguments.length)
    logits = model.predict(x, batch_size=arguments.batch, verbose=0)
    loss = float(keras.ops.mean(cross_entropy(y, logits)))
    averages = [layer.code_counts for layer in model.layers if isinstance(layer, VQAttention)]
    used = [float((to_numpy(count) > 0.1).mean()) for count in averages]
    return loss, model.count_params(), statistics.mean(used) if used else math.nan


def language_main(arguments):
    """Trains every side with every seed and prints."""
    texts = read_characters(arguments.data)
    rows, losses = [], {}
    for codes in (0, *arguments.codebooks):
        runs = [trained_loss(codes, seed, texts, arguments) for seed in arguments.seeds]
        losses[codes] = [loss for loss, _, _ in runs]
        spread = statistics.stdev(losses[codes]) if len(runs) > 1 else math.nan
        gaps = [a - b for a, b in zip(losses[codes], losses[0], strict=True)]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if codes and len(gaps) > 1 else math.nan
        rows.append(
            [
                f"VQ, {codes} codes" if codes else "full attention",
                runs[0][1],
                f"{statistics.mean(losses[codes]):.4f}",
                f"{spread:.4f}",
                f"{statistics.mean(gaps):+.4f} (standard error {error:.4f})" if codes else "-",
                f"{statistics.mean(used for _, _, used in runs):.2f}" if codes else "-",
            ]
        )
    title = (
        f"Characters: {arguments.steps} steps of {arguments.batch} x {arguments.length}, "
        f"{arguments.layers} layers of width {arguments.width}, L={arguments.block}, "
        f"{len(arguments.seeds)} seeds"
    )
    headers = ["attention", "weights", "loss", "deviation", "minus full", "codes in use"]
    print_table(title, headers, rows)


def main(words=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("time")
    part.set_defaults(run=time_main)
    lengths = [512, 1024, 2048, 4096, 8192, 16384]
    part.add_argument("--lengths", type=int, nargs="+", default=lengths)
    part.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    part.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    part.add_argument("--repeats", type=int, default=5)
    part.add_argument("--batch", type=int, default=1)
    part.add_argument("--width", type=int, default=256)
    part.add_argument("--heads", type=int, default=4)
    part.add_argument("--block", type=int, default=128, help="of FLASH the chunk")
    part.add_argument("--codes", type=int, default=256)
    part.add_argument("--bias", choices=["xl", "toeplitz", "none"], default="xl")
    part.add_argument("--policy", default="float32")
    part.add_argument("--jit", action="store_true", help="XLA (with JAX always)")
    part.add_argument("--max-gigabytes", type=float, default=10.0, help="for a side's scores")
    part.add_argument("--no-memory", action="store_true")
    part.add_argument("--processor-time", action="store_true", help="not the wall clock's")
    part = parts.add_parser("language")
    part.set_defaults(run=language_main)
    part.add_argument("--data", type=Path, required=True, help="folder with stsbenchmark_en")
    part.add_argument("--codebooks", type=int, nargs="+", default=[64, 256])
    part.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    part.add_argument("--steps", type=int, default=1500)
    part.add_argument("--batch", type=int, default=8)
    part.add_argument("--length", type=int, default=512)
    part.add_argument("--block", type=int, default=64)
    part.add_argument("--width", type=int, default=128)
    part.add_argument("--heads", type=int, default=4)
    part.add_argument("--layers", type=int, default=3)
    part.add_argument("--rate", type=float, default=2e-3)
    part.add_argument("--tests", type=int, default=64, help="pieces of held-out text")
    part.add_argument("--jit", action="store_true")
    arguments = parser.parse_args(words)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
