import keras
from keras import ops


class CodeStatistic(keras.metrics.Metric):
    """A number that says how evenly codes are used, over all batches since the last reset.

    Args:
        statistic: function of counts (codes,) float32, such as `usage`, that gives a number.
        codes: int, the number of codes, or a list of them, one for each stage of a quantiser: the
            result is the mean over stages.
        name: str.
    """

    def __init__(self, statistic, codes, name):
        super().__init__(name=name)
        self.statistic = statistic
        self.codes = list(codes) if isinstance(codes, list | tuple) else [codes]
        self.staged = isinstance(codes, list | tuple)
        self.counts = [
            self.add_variable((size,), "zeros", dtype="float32", name=f"counts_{i}")
            for i, size in enumerate(self.codes)
        ]

    def update_state(self, indices):
        """Counts indices: (...), of several stages (..., stages). Those below 0 are left out."""
        for i, counts in enumerate(self.counts):
            index = ops.reshape(indices[..., i] if self.staged else indices, (-1,))
            seen = ops.cast(index >= 0, "float32")
            counts.assign_add(ops.segment_sum(seen, ops.maximum(index, 0), self.codes[i]))

    def result(self):
        """The mean of the statistic over stages."""
        counts = map(ops.copy, self.counts)
        return sum(map(self.statistic, counts)) / len(self.counts)


def usage(counts):
    """The share of codes that occurred."""
    return ops.mean(ops.cast(counts > 0, "float32"))


def perplexity(counts):
    """exp of the entropy of the codes: how many there would be if they were all as frequent."""
    total = ops.maximum(ops.sum(counts), 1.0)
    shares = counts / total
    return ops.exp(-ops.sum(shares * ops.log(ops.maximum(shares, 1e-30))))
