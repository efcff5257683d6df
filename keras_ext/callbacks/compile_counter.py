import warnings

import keras
import numpy as np

STEPS = ("train", "test", "predict")


class CompileCounter(keras.callbacks.Callback):
    """Counts the compilations of the train, test and predict step, and warns of too many.

    XLA compiles a step once for each combination of shapes of its inputs, and a compilation takes
    as long as hundreds of steps. Batches padded to a few bucket lengths cost one each; a short last
    batch, or labels padded to whatever the batch needs, costs another one, silently.

    `watch` puts a counter around the data:

        counter = CompileCounter()
        model.fit(counter.watch(batches), callbacks=[counter])

    A compilation is counted when the data hand over a batch whose shapes this step has not had;
    that is some batches ahead. Python cannot ask TensorFlow for the compilations of XLA: Keras
    traces the step once for unknown lengths, and XLA compiles it inside of the runtime when a batch
    of a new shape arrives. The tests compare the count with the programs that the compiler writes
    out, on TensorFlow and JAX. It sees no compilations for other reasons: another dtype, or, on
    TensorFlow, lengths that vary in a second data set where they did not in the first. Without XLA
    (`jit_compile` false) no step is compiled, and the count is 0.

    The logs of each epoch get `compilations`, the sum over the steps so far. A warning comes when
    one step has more than expected, and again at each further one. `compile` throws the compiled
    steps away: take a new counter then.

    Args:
        expected: int, the compilations that each step may have. Defaults to the number of buckets
            of the data: the entries of `data.buckets`, a sequence of lengths or shapes. Without
            either nothing is expected, only counted.

    Raises:
        ValueError: if `expected` is less than 1.

    Example:

    >>> class Batches(keras.utils.PyDataset):
    ...     buckets = [2, 3]
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, index):
    ...         x = np.ones((8, self.buckets[index % 2], 1))
    ...         return x, x
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse", jit_compile=True)
    >>> counter = CompileCounter()
    >>> history = model.fit(counter.watch(Batches()), callbacks=[counter], epochs=2, verbose=0)
    >>> history.history["compilations"], counter.counts
    ([2, 2], {'train': 2, 'test': 0, 'predict': 0})

    Reference: PyTorch/XLA, Troubleshooting recompilations, 2025 (XLA is the same compiler),
    https://docs.pytorch.org/xla/release/r2.8/perf/recompilation.html
    """

    def __init__(self, expected=None):
        super().__init__()
        if expected is not None and expected < 1:
            raise ValueError(
                "A step is compiled at least once: expected an integer above 0. Received: "
                f"expected={expected}"
            )
        self.expected = expected
        self._shapes = {step: {} for step in STEPS}  # in the order in which they came
        self._buckets = {step: set() for step in STEPS}
        self._warned = dict.fromkeys(STEPS, 0)

    def watch(self, data, step="train"):
        """Puts the counter around data.

        Args:
            data: `keras.utils.PyDataset` with threads or none, no processes.
            step: "train", "test" or "predict": which step gets the data. Several data sets may
                share one.

        Returns:
            A `keras.utils.PyDataset` with the same batches.

        Raises:
            ValueError: for data of another kind, or an unknown step.
        """
        if step not in STEPS:
            raise ValueError(f"The step is one of {STEPS}. Received: {step=}")
        if not isinstance(data, keras.utils.PyDataset) or data.use_multiprocessing:
            raise ValueError(
                "Only a keras.utils.PyDataset that makes its batches in this process can be "
                f"watched. Received: {data=}, "
                f"use_multiprocessing={getattr(data, 'use_multiprocessing', None)}"
            )
        self._buckets[step].update(getattr(data, "buckets", ()))
        return WatchedBatches(data, self._shapes[step])

    @property
    def counts(self):
        """Dict from "train", "test" and "predict" to the compilations so far."""
        compiled = self.model is not None and self.model.jit_compile
        return {step: len(shapes) if compiled else 0 for step, shapes in self._shapes.items()}

    def _check(self, step):
        count, shapes = self.counts[step], list(self._shapes[step])
        expected = self.expected or len(self._buckets[step]) or count
        if count > max(expected, self._warned[step]):
            self._warned[step] = count
            warnings.warn(
                f"The {step} step is compiled {count} times, expected at most {expected}: each new "
                "combination of shapes costs a compilation. Pad batches, the last one too, to the "
                f"lengths of the buckets. Received: first {shapes[0]}, last {shapes[-1]}",
                stacklevel=2,
            )

    # At the beginning of a batch: Keras waits for the device where a callback wants to act at the
    # end of one. The batches of this step and of a few more have been handed over by then.
    def on_train_batch_begin(self, batch, logs=None):
        self._check("train")

    def on_test_batch_begin(self, batch, logs=None):
        self._check("test")

    def on_predict_batch_begin(self, batch, logs=None):
        self._check("predict")

    def on_epoch_end(self, epoch, logs=None):
        self._check("train")
        if logs is not None:
            logs["compilations"] = sum(self.counts.values())

    def on_test_end(self, logs=None):
        self._check("test")

    def on_predict_end(self, logs=None):
        self._check("predict")


class WatchedBatches(keras.utils.PyDataset):
    """The batches of another data set, whose shapes are written down as they are handed over.

    Args:
        data: `keras.utils.PyDataset`.
        shapes: dict whose keys are the shapes seen, each the tuple of the shapes of all arrays of a
            batch.
    """

    def __init__(self, data, shapes):
        super().__init__(workers=data.workers, max_queue_size=data.max_queue_size)
        self.data = data
        self.shapes = shapes

    def __len__(self):
        return len(self.data)

    @property
    def num_batches(self):
        return self.data.num_batches

    def __getitem__(self, index):
        batch = self.data[index]
        self.shapes[tuple(tuple(np.shape(array)) for array in keras.tree.flatten(batch))] = None
        return batch

    def on_epoch_begin(self):
        self.data.on_epoch_begin()

    def on_epoch_end(self):
        self.data.on_epoch_end()
