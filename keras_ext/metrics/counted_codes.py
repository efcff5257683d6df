"""What the metrics of a quantiser's codes share: the counts of each stage."""

from keras_ext.ops.quantised import code_counts


def add_counts(metric, codes):
    """Adds a variable to a metric for each stage of a quantiser, a number for each code.

    Args:
        metric: the metric.
        codes: int, or a list of ints, of each stage.

    Returns:
        List of variables (codes,) float32.
    """
    return [
        metric.add_variable((size,), "zeros", "float32", name=f"counts_{i}")
        for i, size in enumerate(codes if isinstance(codes, list) else [codes])
    ]


def count_codes(metric, indices, weights):
    """Adds what occurs in indices to the `counts` of a metric that has `codes` of them."""
    found = code_counts(indices, metric.codes, weights)
    for counts, more in zip(metric.counts, found, strict=True):
        counts.assign_add(more)
