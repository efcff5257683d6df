import keras
from keras import ops

from keras_ext.metrics.counted_codes import add_counts, count_codes
from keras_ext.ops.quantised import code_numbers, code_usage


@keras.saving.register_keras_serializable(package="keras_ext")
class CodeUsage(keras.metrics.Metric):
    """The share of a quantiser's codes that occur.

        usage = |{j : n_j > 0}| / K,  n_j how often code j occurred

    over all indices since the last reset. Below 1 codes are wasted. Of a quantiser of several
    stages it is the mean over stages. `AutoencoderVQ` logs it by itself.

    Args:
        codes: int, the number of codes; or a list of ints, one for each stage, as `num_codes` of a
            `ResidualQuantizer`.
        name: name of the metric. Defaults to "code_usage".
        **kwargs: `dtype` of `keras.metrics.Metric`.

    Call arguments:
        y_true: is not looked at; None will do.
        y_pred: (b, ...) indices, of several stages (b, ..., stages). -1, as of what a mask hides, and
            any other number that is no code are not counted.
        sample_weight: numbers, of the first axes of the indices, what each counts; or None: 1.

    Returns:
        float32 scalar, 0 if nothing was counted.

    Raises:
        ValueError: for a number of codes below 1, and another number of stages.

    Example:

    >>> metric = CodeUsage(codes=4)
    >>> metric.update_state(None, np.array([[0, 1, -1], [1, 0, -1]]))
    >>> float(metric.result())
    0.5

    Source: Fabian Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, 2023,
    https://arxiv.org/abs/2309.15505
    """

    def __init__(self, codes, name="code_usage", **kwargs):
        super().__init__(name=name, **kwargs)
        self.codes = code_numbers(codes)
        self.counts = add_counts(self, self.codes)

    def update_state(self, y_true, y_pred, sample_weight=None):
        count_codes(self, y_pred, sample_weight)

    def result(self):
        return code_usage([ops.copy(counts) for counts in self.counts])

    def get_config(self):
        return {**super().get_config(), "codes": self.codes}
