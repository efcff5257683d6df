import keras
from keras import ops

from keras_ext.metrics.counted_codes import add_counts, count_codes
from keras_ext.ops.quantised import code_numbers, code_perplexity


@keras.saving.register_keras_serializable(package="keras_ext")
class CodePerplexity(keras.metrics.Metric):
    """How many codes a quantiser would use if all that it uses were as frequent.

        perplexity = exp(-sum_j p_j log p_j),  p_j = n_j / sum_i n_i,  n_j how often code j occurred

    over all indices since the last reset. It is at most the number of codes. Of a quantiser of several
    stages it is the mean over stages. `AutoencoderVQ` logs it by itself.

    Args:
        codes: int, the number of codes; or a list of ints, one for each stage, as `num_codes` of a
            `ResidualQuantizer`.
        name: name of the metric. Defaults to "code_perplexity".
        **kwargs: `dtype` of `keras.metrics.Metric`.

    Call arguments:
        y_true: is not looked at; None will do.
        y_pred: (b, ...) indices, of several stages (b, ..., stages). -1, as of what a mask hides, and
            any other number that is no code are not counted.
        sample_weight: numbers, of the first axes of the indices, what each counts; or None: 1.

    Returns:
        float32 scalar, 1 if nothing was counted.

    Raises:
        ValueError: for a number of codes below 1, and another number of stages.

    Example:

    >>> metric = CodePerplexity(codes=4)
    >>> metric.update_state(None, np.array([[0, 1, -1], [1, 0, -1]]))
    >>> round(float(metric.result()), 4)
    2.0

    Source: Aaron van den Oord, Oriol Vinyals, Koray Kavukcuoglu, Neural Discrete Representation
    Learning, 2017, https://arxiv.org/abs/1711.00937
    """

    def __init__(self, codes, name="code_perplexity", **kwargs):
        super().__init__(name=name, **kwargs)
        self.codes = code_numbers(codes)
        self.counts = add_counts(self, self.codes)

    def update_state(self, y_true, y_pred, sample_weight=None):
        count_codes(self, y_pred, sample_weight)

    def result(self):
        return code_perplexity([ops.copy(counts) for counts in self.counts])

    def get_config(self):
        return {**super().get_config(), "codes": self.codes}
