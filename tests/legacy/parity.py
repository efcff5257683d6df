"""What the tests on the files of bert4keras have in common."""

import json

import numpy as np

from keras_ext.checkpoints.google_config import encoder_arguments, encoder_class


def facts(folder):
    """What the folder of a case says about it."""
    return json.loads((folder / "case.json").read_text("utf-8"))


def encoder_of(case):
    """Our encoder for a case, with random weights."""
    cls = encoder_class(case["model"], case["application"])
    kwargs = {key: value for key, value in case["kwargs"].items() if key != "sequence_length"}
    kept, compounds = kwargs.pop("keep_tokens", None), kwargs.pop("compound_tokens", ())
    if kept is not None:
        kwargs["vocab_size"] = len(kept) + len(compounds)
    arguments = encoder_arguments(cls, case["config"], kwargs, case["application"], case["gelu"])
    return cls(**arguments)


def inputs_of(data):
    """The inputs of a case by name, in the order of the model: what stands before the mask."""
    names = list(data)
    return {name: data[name] for name in names[: names.index("mask")]}


def assert_parity(outputs, data, tolerance=1e-5):
    """Outputs equal those of bert4keras at unmasked positions, relative to the greatest one.

    Args:
        outputs: tensor or list of tensors, (b, n, d), (b, d) or scores of spans (b, h, n, n).
        data: the arrays of a case: `output_0`, `output_1`, ... and `mask`.
        tolerance: float, what max|difference| / max|reference| must be below.
    """
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    expected = [data[f"output_{i}"] for i in range(len(outputs))]
    assert outputs and f"output_{len(outputs)}" not in data
    for i, (output, reference) in enumerate(zip(outputs, expected, strict=True)):
        output = np.array(output)
        assert output.shape == reference.shape
        if output.ndim == 4:  # bert4keras has -inf at masked pairs
            tokens = np.isfinite(reference)
            np.testing.assert_array_equal(output > -1e29, tokens)
        else:
            sequence = output.shape[:2] == data["mask"].shape
            tokens = data["mask"] if sequence else np.ones(output.shape, bool)
        difference = np.abs(output[tokens] - reference[tokens]).max()
        assert difference < tolerance * np.abs(reference[tokens]).max(), f"output {i}: {difference}"
