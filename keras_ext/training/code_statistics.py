import keras
from keras import ops

from keras_ext.ops.quantised import code_counts, code_perplexity, code_usage


class CodeStatistics(keras.metrics.Metric):
    """Usage and perplexity of one count of codes, over all batches since the last reset.

    `keras_ext.metrics.CodeUsage` and `CodePerplexity` are the same for other models, one number each.

    Args:
        codes: int, the number of codes, or a list of them, one for each stage of a quantiser.
    """

    def __init__(self, codes):
        super().__init__(name="code_statistics")
        self.codes = codes
        self.counts = [
            self.add_variable((size,), "zeros", dtype="float32", name=f"counts_{i}")
            for i, size in enumerate(codes if isinstance(codes, list | tuple) else [codes])
        ]

    def update_state(self, indices):
        """Counts indices: (...), of several stages (..., stages). Those below 0 are left out."""
        for counts, more in zip(self.counts, code_counts(indices, self.codes), strict=True):
            counts.assign_add(more)

    def result(self):
        """A dict of both, as Keras puts them into the logs."""
        counts = [ops.copy(each) for each in self.counts]
        return {"usage": code_usage(counts), "perplexity": code_perplexity(counts)}
