"""All steps of a non-linear RNN at once: how many sweeps, how good a gradient, and how long?

    sweeps     sweeps that each method needs, random recurrent kernels of a spectral radius near rho
    gradient   error of the gradient, where the sweeps end early
    time       beside the loop of Keras over the steps, same weights; value, and value and gradient
    scan       a linear recurrence in blocks, as `ops.linear_recurrence`, and by associative_scan

A recurrent kernel has normal entries of standard deviation rho / sqrt(d); above rho = 1 the network
without input is chaotic. A method that did not converge, or exploded, fell back to the loop: "loop".

Run: python benchmarks/parallel_rnn.py sweeps gradient time scan
"""

import argparse
import functools

import keras
import numpy as np
from keras import ops
from timing import BACKEND, compilers, median_times, print_table, to_numpy

from keras_ext.layers import ParallelRNN
from keras_ext.ops import linear_recurrence

METHODS = ("newton", "diagonal", "picard", "fixed")


class DiagonalCell(keras.layers.Layer):
    """x_t = tanh(W u_t + a * x_{t-1} + b): each unit reads its own state alone."""

    elementwise = True

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = units
        self.project = keras.layers.Dense(units, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.project.build(input_shape)
        self.factor = self.add_weight((self.state_size,), initializer="uniform", name="factor")

    def call(self, inputs, states):
        state = ops.tanh(self.project(inputs) + self.factor * states[0])
        return state, [state]


def make_cell(name, width, rho, dtype="float32"):
    """A cell with random weights, and the sequential layer of Keras that shares them."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    if name == "diagonal":
        cell = DiagonalCell(width, dtype=dtype)
        cell.build((None, width))
        cell.factor.assign(rho * rng.uniform(-1, 1, width))
        return cell, keras.layers.RNN(cell, return_sequences=True, dtype=dtype)
    kind = {"simple": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
    layer = kind[name](width, return_sequences=True, dtype=dtype)
    layer.build((None, None, width))
    kernel = layer.cell.recurrent_kernel
    kernel.assign(rng.normal(size=kernel.shape, scale=rho / width**0.5))
    return layer.cell, layer


def inputs_of(batch, length, width, dtype="float32"):
    """Standard normal inputs (b, n, d)."""
    return np.random.default_rng(1).normal(size=(batch, length, width)).astype(dtype)


def sweeps_of(cell, x, method, tolerance):
    """The number of sweeps, or "loop" where there was none that ended."""
    layer = ParallelRNN(cell, method, tolerance, 200, dtype=cell.dtype)
    layer.build(x.shape)
    run = compiled_with_state(layer)
    return run(x) or "loop"


def compiled_with_state(layer):
    """A compiled function of the inputs that gives the number of sweeps, 0 for a fallback."""

    def run(x):
        with keras.StatelessScope() as scope:
            layer(x)
        fallbacks = scope.get_current_value(layer.fallbacks)
        return scope.get_current_value(layer.sweeps) * (1 - fallbacks)

    # A partial, as TensorFlow counts the traces of functions by their line, and would warn.
    function = compilers()["XLA"](functools.partial(run))
    return lambda x: int(function(ops.convert_to_tensor(x)))


def sweeps(arguments):
    """Prints how many sweeps each method needs."""
    cases = [("float64", 256, 1e-6), ("float32", 4096, 5e-5)]
    if BACKEND == "jax":
        cases = cases[1:]  # which has no float64 unless it is told to
    for name in ("simple", "diagonal"):
        rows = []
        for rho in (0.5, 0.9, 1.2, 2.0):
            row = [rho]
            for method in METHODS:
                seen = []
                for dtype, length, tolerance in cases:
                    cell, _ = make_cell(name, arguments.width, rho, dtype)
                    x = inputs_of(1, min(length, arguments.length), arguments.width, dtype)
                    seen.append(sweeps_of(cell, x, method, tolerance))
                row.append(" / ".join(map(str, seen)))
            rows.append(row)
        what = ", ".join(f"{d} n={min(n, arguments.length)} to {t}" for d, n, t in cases)
        print_table(f"Sweeps, {name} cell, d={arguments.width}: {what}", ["rho", *METHODS], rows)


def weight_gradient(layer, cell, x):
    """The gradient of a fixed random sum of the outputs, all weights in one vector."""
    weights = cell.trainable_variables
    upstream = np.random.default_rng(2).normal(size=(*x.shape[:2], cell.state_size))
    upstream = ops.cast(upstream, x.dtype)

    def loss(*values):
        with keras.StatelessScope(zip(weights, values, strict=True)):
            return ops.sum(layer(ops.convert_to_tensor(x)) * upstream)

    gradients = gradient_of(loss)(*[ops.convert_to_tensor(w.value) for w in weights])
    return np.concatenate([to_numpy(g).ravel() for g in gradients])


def gradient_of(loss):
    """The compiled gradient of a function of several tensors."""
    if BACKEND == "jax":
        import jax

        return jax.jit(lambda *x: jax.grad(loss, argnums=tuple(range(len(x))))(*x))
    import tensorflow as tf

    def gradients(*x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(*x)
        return tape.gradient(value, x)

    return tf.function(functools.partial(gradients), jit_compile=True, autograph=False)


def gradient(arguments):
    """Prints the error of the gradient after 1, 2, ... sweeps."""
    dtype = "float32" if BACKEND == "jax" else "float64"
    cell, loop = make_cell("simple", arguments.width, 0.9, dtype)
    x = inputs_of(1, min(256, arguments.length), arguments.width, dtype)
    exact = weight_gradient(loop, cell, x)
    rows, last = [], 0
    for tolerance in [3.0**-k for k in range(28)]:
        layer = ParallelRNN(cell, tolerance=tolerance, dtype=dtype)
        layer.build(x.shape)
        count = compiled_with_state(layer)(x)
        if count <= last:
            continue
        error = weight_gradient(layer, cell, x) - exact
        last = count
        rows.append([count, f"{np.linalg.norm(error) / np.linalg.norm(exact):.1e}"])
    print_table(
        f"Gradient against back-propagation through time, {dtype}, d={arguments.width}, rho=0.9",
        ["sweeps", "relative error"],
        rows,
    )


def time(arguments):
    """Prints times beside the loop over the steps."""
    for name in arguments.cells:
        cell, loop = make_cell(name, arguments.width, 0.9)
        parallel = ParallelRNN(cell)
        parallel.build((None, None, arguments.width))
        rows = []
        for length in arguments.lengths:
            x = ops.convert_to_tensor(inputs_of(arguments.batch, length, arguments.width))
            count = compiled_with_state(parallel)(x)
            for how, compiler in compilers().items():
                if how == "eager":
                    continue
                for what in ("value", "gradient"):
                    sides = {
                        side: side_of(layer, cell, x, what, compiler)
                        for side, layer in (("loop", loop), ("parallel", parallel))
                    }
                    seconds = median_times(sides, arguments.repeats)
                    rows.append(
                        [
                            length,
                            how,
                            what,
                            count or "loop",
                            *[f"{1000 * seconds[side]:.1f}" for side in ("loop", "parallel")],
                            f"{seconds['loop'] / seconds['parallel']:.2f}",
                        ]
                    )
        print_table(
            f"Time, {name} cell, d={arguments.width}, b={arguments.batch}, rho=0.9",
            ["length", "run as", "what", "sweeps", "loop, ms", "parallel, ms", "times faster"],
            rows,
            arguments.repeats,
        )


def side_of(layer, cell, x, what, compiler):
    """A function without arguments that computes the outputs, or the gradient of the weights."""
    weights = cell.trainable_variables
    values = [ops.copy(w.value) for w in weights]

    def outputs(x, *values):
        with keras.StatelessScope(zip(weights, values, strict=True)):
            return ops.mean(ops.square(layer(x)))

    if what == "value":
        function = compiler(outputs)
        return lambda: function(x, *values)
    if BACKEND == "jax":
        import jax

        function = compiler(jax.grad(outputs, argnums=tuple(range(1, 1 + len(values)))))
        return lambda: function(x, *values)
    import tensorflow as tf

    def gradients(x, *values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = outputs(x, *values)
        return tape.gradient(loss, values)

    function = compiler(gradients)
    return lambda: function(x, *values)


def scan(arguments):
    """Prints times of a linear recurrence, in blocks and by `keras.ops.associative_scan`."""
    rows = []
    for length in arguments.lengths:
        shape = (length, arguments.batch, arguments.width)
        gates = np.random.default_rng(0).uniform(0.5, 1, shape).astype("float32")
        x = ops.convert_to_tensor(np.ones(shape, "float32"))
        zeros = ops.zeros(shape[1:])
        for how, compiler in compilers().items():
            if how == "eager":
                continue
            sides = {
                name: functools.partial(compiler(functools.partial(side)), gates, x, zeros)
                for name, side in (("blocks", linear_recurrence), ("scan", associative))
            }
            rows.append([length, how, *scan_times(sides, arguments.repeats)])
    print_table(
        f"x_t = g_t x_(t-1) + u_t, d={arguments.width}, b={arguments.batch}",
        ["length", "run as", "blocks, ms", "associative_scan, ms"],
        rows,
        arguments.repeats,
    )


def scan_times(sides, repeats):
    """Milliseconds of both sides, or what kept the second from being compiled."""
    try:
        to_numpy(sides["scan"]())
    except Exception as error:  # whatever XLA raises: it is what the table reports
        print(f"associative_scan: {type(error).__name__}: {str(error)[:300]}")
        seconds = median_times({"blocks": sides["blocks"]}, repeats)
        return [f"{1000 * seconds['blocks']:.1f}", "does not compile"]
    seconds = median_times(sides, repeats)
    return [f"{1000 * seconds[name]:.1f}" for name in ("blocks", "scan")]


def associative(gates, x, initial):
    """`linear_recurrence` of a state of zeros, as a scan of the maps x -> g x + u."""

    def after(first, second):
        return second[0] * first[0], second[0] * first[1] + second[1]

    return ops.associative_scan(after, (gates, x))[1]


PARTS = {"sweeps": sweeps, "gradient": gradient, "time": time, "scan": scan}


def main():
    """Prints the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=4096, help="at most, of sweeps and gradient")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 8192, 16384])
    parser.add_argument("--cells", nargs="+", default=["diagonal", "simple", "gru"])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for part in arguments.parts:
        PARTS[part](arguments)


if __name__ == "__main__":
    main()
