"""What the benchmarks share: compilation, interleaved times, the printed table."""

import importlib
import os
import platform
import statistics
import time

import keras

BACKEND = keras.backend.backend()


def compilers():
    """The ways to run a function of tensors on this backend: name -> wrapper of the function."""
    if BACKEND == "jax":
        import jax

        return {"eager": lambda function: function, "XLA": jax.jit}
    import tensorflow as tf

    return {
        "eager": lambda function: function,
        "graph": lambda function: tf.function(function, autograph=False),
        "XLA": lambda function: tf.function(function, autograph=False, jit_compile=True),
    }


def value_and_gradient(function):
    """Differentiates a function of a tensor.

    Args:
        function: one tensor to a tensor of any shape.

    Returns:
        A function of the tensor that returns the value, and the gradient of the value's sum.
    """
    if BACKEND == "jax":
        import jax

        def differentiated(x):
            value, pull_back = jax.vjp(function, x)
            return value, pull_back(keras.ops.ones_like(value))[0]

    else:
        import tensorflow as tf

        def differentiated(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x)
            return value, tape.gradient(value, x)

    return differentiated


def to_numpy(outputs):
    """Brings all tensors in a structure to the host, which waits for them."""

    def convert(x):
        return keras.ops.convert_to_numpy(x) if keras.ops.is_tensor(x) else x

    return keras.tree.map_structure(convert, outputs)


def median_times(sides, repeats, clock=time.perf_counter):
    """Times functions in turn, so that whatever disturbs the machine disturbs all of them.

    Args:
        sides: dict name -> function without arguments. Each runs once before the measurement.
        repeats: int, rounds; the order of the sides is reversed in every other round.
        clock: function that gives seconds. `time.process_time` counts those that the process was
            at work, of all its threads: the one to take where other programs run.

    Returns:
        Dict name -> median seconds, until the result is on the host.
    """
    times = {name: [] for name in sides}
    for side in sides.values():
        to_numpy(side())
    order = list(sides)
    for _ in range(repeats):
        for name in order:
            start = clock()
            to_numpy(sides[name]())
            times[name].append(clock() - start)
        order.reverse()
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def print_table(title, headers, rows, repeats=None):
    """Prints a Markdown table under a title and a line of versions and device.

    Args:
        title: str.
        headers: list of str.
        rows: list of lists of cells.
        repeats: int, rounds of `median_times`, or None if no times were taken.
    """
    modules = [importlib.import_module(name) for name in ("keras", BACKEND, "numpy")]
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in modules)
    device = keras.distribution.list_devices()[0]
    print(f"### {title}\n")
    measured = "" if repeats is None else f"Median of {repeats} interleaved runs; "
    print(f"{measured}{versions}, Python {platform.python_version()};")
    print(f"{device}, {_processor()}, {os.cpu_count()} cores.\n")
    print("| " + " | ".join(headers) + " |")
    print("|---" * len(headers) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
