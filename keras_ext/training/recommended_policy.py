"""Which precision trains fastest on this machine."""

import statistics
import time

import keras
from keras import ops

# Where a backend uses the matrix units of a CPU, products of bfloat16 are several times as fast as
# those of float32, and slower where it does not: the bar lies between, far from both.
GAIN = 1.3
ROUNDS = 9
SECONDS = 0.5


def recommended_policy():
    """Names the dtype policy whose matrix products are fastest here.

        "mixed_float16"   on GPUs,             if half precision is faster than float32 there
        "mixed_bfloat16"  on TPUs, on CPUs,    on CPUs if it is faster
        "float32"         otherwise

    It multiplies two matrices of ones through `keras.ops`, in float32 and in half precision in
    turn, and takes the median of the ratios of neighbouring times, so that whatever else the
    machine does slows down both sides. Half precision has to be 1.3 times as fast. There are nine
    rounds, or fewer if they take longer than half a second.

    It measures instead of reading the name of the processor, because units that the backend does
    not use help nobody: on one CPU TensorFlow uses units that JAX leaves idle. Only a TPU is known
    by its name. On a CPU float16 is not tried: it needs a loss scale, and is hardly ever faster.

    Products are not the whole of a training step: a narrow model, or one compiled with XLA on a
    CPU, can be slower in half precision all the same. Where it matters, try both on a few steps, as
    `examples/mixed_precision_xla.py` does. No GPU or TPU has been measured.

    Nothing is set: pass the name to the layers, or to `keras.config.set_dtype_policy` before the
    model is built. "mixed_float16" needs a loss scale, `keras_ext.optimizers.GuardedLossScale`.

    Returns:
        "mixed_float16", "mixed_bfloat16" or "float32".

    Example:

    >>> policy = recommended_policy()
    >>> dense = keras.layers.Dense(4, dtype=policy)
    >>> dense.variable_dtype  # the weights are float32 in each of them
    'float32'

    Reference: Jianlin Su, mixed precision and XLA in bert4keras, 2022,
    https://kexue.fm/archives/9059
    """
    return policy_for(keras.distribution.list_devices(), product_speedup)


def policy_for(devices, speedup):
    """The decision, apart from the measurement.

    Args:
        devices: list of names as "gpu:0"; those of `keras.distribution.list_devices`.
        speedup: function of a half-precision dtype and the rows of a matrix. Returns how many
            times as fast as in float32 such matrices are multiplied.

    Returns:
        Name of a dtype policy.
    """
    kinds = {device.partition(":")[0].lower() for device in devices}
    if "tpu" in kinds:
        return "mixed_bfloat16"
    # A GPU is done with a small product before the next one is launched.
    half, size = ("float16", 4096) if "gpu" in kinds else ("bfloat16", 512)
    return f"mixed_{half}" if speedup(half, size) >= GAIN else "float32"


def product_speedup(half, size):
    """How many times as fast as in float32 a product of square matrices is.

    Args:
        half: "float16" or "bfloat16".
        size: int, rows and columns.

    Returns:
        Float above 0.
    """

    def product(dtype):
        matrix = ops.ones((size, size), dtype)

        def multiply():
            # Reading waits for the result; a corner is enough. TensorFlow cannot give a bfloat16
            # scalar to NumPy.
            ops.convert_to_numpy(ops.matmul(matrix, matrix)[:1, :1])

        return multiply

    return median_ratio(product("float32"), product(half))


def median_ratio(first, second, clock=time.perf_counter):
    """Median of the ratios of the times of two functions that run in turn.

    Args:
        first: function without arguments.
        second: the same.
        clock: function that tells the time in seconds.

    Returns:
        The time of `first` divided by that of `second`: 2 if the second is twice as fast.
    """

    def seconds(function):
        start = clock()
        function()
        return clock() - start

    first(), second()  # starts kernels and thread pools
    ratios, end = [], clock() + SECONDS
    while len(ratios) < ROUNDS and (not ratios or clock() < end):
        before, after = seconds(first), seconds(second)
        ratios.append(before / max(after, 1e-9))
    return statistics.median(ratios)
