"""What do a step and the state of an optimizer cost, alone and accumulating 8 micro-batches?

The weights are those of a small BERT, about 10 M. Gradients are given: nothing runs but the
optimizer. Times are of whole windows, as most of the work may fall on a window's last micro-step.
"""

import argparse

import keras
import numpy as np
from memory import peak_memory
from timing import BACKEND, median_times, print_table

from keras_ext import optimizers
from keras_ext.models import BertEncoder

LEARNING_RATE = 1e-4
# Name -> optimizer that accumulates so many micro-batches; None: it does not.
OPTIMIZERS = {
    "AdamW": lambda steps: keras.optimizers.AdamW(
        LEARNING_RATE, weight_decay=0.01, gradient_accumulation_steps=steps
    ),
    "Lion": lambda steps: keras.optimizers.Lion(
        LEARNING_RATE, weight_decay=0.01, gradient_accumulation_steps=steps
    ),
    "Tiger": lambda steps: optimizers.Tiger(LEARNING_RATE, gradient_accumulation_steps=steps),
    "GradientAccumulation(AdamW)": lambda steps: optimizers.GradientAccumulation(
        keras.optimizers.AdamW(LEARNING_RATE, weight_decay=0.01), steps
    ),
}


def encoder_weights(sizes):
    """The trainable variables of a small BERT."""
    width = sizes["width"]
    encoder = BertEncoder(
        sizes["vocabulary"],
        num_layers=sizes["layers"],
        num_heads=width // min(width, 64),
        hidden_dim=width,
        intermediate_dim=4 * width,
    )
    return encoder.trainable_variables


def random_gradients(weights, rows, seed=0):
    """A gradient for each weight.

    Args:
        weights: list of variables.
        rows: int, rows in the gradient of the token embeddings, as `keras.layers.Embedding` gives
            it: indices and rows. 0: all rows, as where the output layer shares the table.
        seed: int.

    Returns:
        List of tensors, and one `tf.IndexedSlices` if `rows` is given.
    """
    import tensorflow as tf

    rng = np.random.default_rng(seed)

    def normal(*shape):
        return tf.constant(1e-3 * rng.standard_normal(shape, "float32"))

    def gradient(weight):
        if not (rows and "Embedding-Token/" in weight.path):
            return normal(*weight.shape)
        indices = tf.constant(rng.integers(0, weight.shape[0], rows))
        return tf.IndexedSlices(
            normal(rows, weight.shape[1]), indices, tf.constant(weight.shape, "int64")
        )

    return [gradient(weight) for weight in weights]


def window_of_steps(name, steps, jit_compile, sizes, gradients=None):
    """A function that makes all micro-steps of a window; the first call makes the optimizer.

    Args:
        name: a key of `OPTIMIZERS`.
        steps: int, micro-steps in a window.
        jit_compile: bool, XLA or not.
        sizes: dict of `vocabulary`, `layers`, `width` and `rows`.
        gradients: list, or None to draw them.
    """
    import tensorflow as tf

    weights = encoder_weights(sizes)
    gradients = random_gradients(weights, sizes["rows"]) if gradients is None else gradients
    compiled = []

    def compile_step():
        optimizer = OPTIMIZERS[name](steps if steps > 1 else None)
        optimizer.build(weights)

        # The gradients are arguments: constants would be folded into the compiled program.
        @tf.function(autograph=False, jit_compile=jit_compile)
        def step(gradients):
            optimizer.apply(gradients)

        return step

    def window():
        if not compiled:
            compiled.append(compile_step())
        for _ in range(steps):
            compiled[0](gradients)

    return window


def state_bytes(name, steps, sizes):
    """Bytes of the optimizer's variables for each weight."""
    weights = encoder_weights(sizes)
    optimizer = OPTIMIZERS[name](steps if steps > 1 else None)
    optimizer.build(weights)
    held = sum(variable.numpy().nbytes for variable in optimizer.variables)
    return held / sum(int(np.prod(weight.shape)) for weight in weights)


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8, help="micro-steps in a window")
    parser.add_argument("--vocabulary", type=int, default=21128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[0, 2048],
        help="a table for each: rows in the gradient of the token embeddings, 0: all of them",
    )
    parser.add_argument("--no-memory", action="store_true", help="saves a process for each row")
    parser.add_argument("--modes", nargs="+", choices=["graph", "XLA"], default=["graph", "XLA"])
    others = [name for name in OPTIMIZERS if name != "AdamW"]
    parser.add_argument("--others", nargs="+", choices=others, default=others, help="than AdamW")
    arguments = parser.parse_args()
    if BACKEND != "tensorflow":
        parser.error(f"Keras must run on TensorFlow. Received: KERAS_BACKEND={BACKEND}")
    names = ["AdamW", *arguments.others]
    alone = [name for name in names if not name.startswith("GradientAccumulation")]
    groups = {1: alone, arguments.steps: names}
    sizes = {name: getattr(arguments, name) for name in ("vocabulary", "layers", "width")}
    weights = encoder_weights(sizes)
    count = sum(int(np.prod(weight.shape)) for weight in weights)
    print(f"{count:,} weights in {len(weights)} variables\n")
    state = {(k, name): state_bytes(name, k, sizes) for k in groups for name in groups[k]}
    for rows_of_gradient in arguments.rows:
        sizes["rows"] = rows_of_gradient
        gradients = random_gradients(weights, rows_of_gradient)
        rows = []
        for mode in arguments.modes:
            for k, names in groups.items():
                make = {name: (name, k, mode == "XLA", sizes) for name in names}
                windows = {name: window_of_steps(*make[name], gradients) for name in names}
                times = median_times(windows, arguments.repeats)
                del windows
                for name, seconds in times.items():
                    cells = [name, k, mode, f"{state[k, name]:.2f}", f"{seconds / k * 1e3:.1f}"]
                    cells += [f"{seconds / times['AdamW']:.2f}"]
                    if not arguments.no_memory:
                        cells += [f"{peak_memory(window_of_steps, *make[name]):.0f}"]
                    rows.append(cells)
        which = f"{rows_of_gradient} rows" if rows_of_gradient else "all rows"
        columns = ["optimizer", "micro-steps", "run as", "state, bytes a weight"]
        columns += ["ms a micro-step", "times AdamW", "peak MB"][: 2 if arguments.no_memory else 3]
        title = f"{count / 1e6:.1f} M weights, gradient of the token embeddings: {which}"
        print_table(title, columns, rows, arguments.repeats)


if __name__ == "__main__":
    main()
