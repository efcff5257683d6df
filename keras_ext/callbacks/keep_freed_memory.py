import ctypes
import platform

import keras

# From malloc.h: which threshold `mallopt` sets.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Where glibc's own thresholds end if nobody sets them: they grow with what a program frees.
MMAP_BYTES, TRIM_BYTES = 32 * 2**20, 64 * 2**20


class KeepFreedMemory(keras.callbacks.Callback):
    """Lets a training step use the memory that the last one freed (TensorFlow on a Linux CPU).

    `fit` reads a `keras.utils.PyDataset` or a generator through a `tf.data` generator, and
    TensorFlow then sets glibc's threshold for mapped memory to 128 KiB, for the whole process and
    for good. From there on every larger tensor is memory that the system maps, clears page by page
    and unmaps again: a third of the time of a training step (`benchmarks/allocator.py`). (Not where
    TensorFlow runs with oneDNN, by default on processors with AVX512-VNNI or AMX: it has an
    allocator of its own there.)

    Before each batch the thresholds are put to 32 and 64 MiB, where glibc's own adaptation ends. At
    the end of training the memory that is free is given back to the system; the thresholds stay,
    for what the process does next. Where there is no glibc, or Keras runs on another backend,
    nothing is done. `EntityRecognizer` and `SentenceEncoder` train with it by themselves.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((32, 8)), np.ones((32, 1))
    >>> history = model.fit(x, y, callbacks=[KeepFreedMemory()], verbose=0)
    """

    def __init__(self):
        super().__init__()
        here = keras.backend.backend() == "tensorflow" and platform.libc_ver()[0] == "glibc"
        self._libc = ctypes.CDLL(None) if here else None

    def on_train_batch_begin(self, batch, logs=None):
        # Before each: TensorFlow's one call comes inside the first batch, from the generator.
        if self._libc is not None:
            self._libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
            self._libc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)

    def on_train_end(self, logs=None):
        if self._libc is not None:
            self._libc.malloc_trim(0)
