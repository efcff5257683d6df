"""Any encoder behind one call: ours, and KerasHub's backbones."""

import warnings

import keras
import numpy as np
from keras import ops

KERAS_HUB_FIRST_BLOCK = "transformer_layer_0"


def encode(encoder, inputs, first=False):
    """The hidden states that an encoder gives for a task's inputs.

    Args:
        encoder: functional `keras.Model` whose inputs are a dict of some of `token_ids`,
            `segment_ids` and `padding_mask` (KerasHub's convention), and whose output is a tensor
            or a dict with `sequence_output`.
        inputs: dict of symbolic tensors, as `encoder_inputs` makes it.
        first: bool, whether the output of the first block is asked for, too.

    Returns:
        Symbolic tensor (b, n, d); with `first` a list of two, of the first and the last block.

    Raises:
        ValueError: for an encoder with other inputs or outputs, or without a first block.
    """
    expected = getattr(encoder, "input", None)
    if not isinstance(expected, dict) or not set(expected) <= set(inputs):
        received = sorted(expected) if isinstance(expected, dict) else type(expected).__name__
        raise ValueError(
            "An encoder is a functional model with a dict of inputs, some of "
            f"{sorted(inputs)}. Received: {encoder!r} with inputs {received}"
        )
    hidden = encoder.output
    if isinstance(hidden, dict):
        if "sequence_output" not in hidden:
            raise ValueError(
                "An encoder's outputs hold `sequence_output`. "
                f"Received: {encoder!r} with outputs {sorted(hidden)}"
            )
        hidden = hidden["sequence_output"]
    if len(hidden.shape) != 3:
        raise ValueError(
            "An encoder gives one vector for each token, (batch, length, dim). "
            f"Received: {encoder!r} with output shape {tuple(hidden.shape)}"
        )
    if first:
        encoder = keras.Model(expected, [_first_block(encoder), hidden], name=encoder.name)
    elif isinstance(encoder.output, dict):
        # Without the layers of the other outputs, which no gradient would reach.
        encoder = keras.Model(expected, hidden, name=encoder.name)
    # KerasHub's padding masks are integers.
    return encoder({name: ops.cast(inputs[name], expected[name].dtype) for name in expected})


def _first_block(encoder):
    """The output of an encoder's first block; KerasHub's backbones tell theirs by its name only."""
    names = [layer.name for layer in encoder.layers]
    blocks = getattr(encoder, "blocks", ())
    if not blocks and KERAS_HUB_FIRST_BLOCK in names:
        blocks = [encoder.get_layer(KERAS_HUB_FIRST_BLOCK)]
    if not blocks:
        raise ValueError(
            "The first block of an encoder is the first of its `blocks`, which have an `output`, or "
            f"a layer of the name {KERAS_HUB_FIRST_BLOCK!r}. Received: {encoder!r} with layers "
            f"{names}"
        )
    return blocks[0].output


def check_encoder(encoder, tokenizer, max_length):
    """Raises ValueError where an encoder cannot take what a tokenizer gives."""
    rows = getattr(encoder, "vocabulary_size", None)
    if rows is not None and rows < tokenizer.vocabulary_size:
        raise ValueError(
            f"The tokenizer has {tokenizer.vocabulary_size} ids, the encoder embeds {rows}. "
            "Expected an encoder with at least as many. Received: "
            f"vocabulary_size={rows}"
        )
    if "padding_mask" not in encoder.input and tokenizer.pad_id != 0:
        raise ValueError(
            "An encoder without the input padding_mask can only take the id 0 for padding. Expected "
            f"a tokenizer that pads with 0. Received: pad_id={tokenizer.pad_id}"
        )
    if "padding_mask" not in encoder.input and _sees_padding(encoder):
        warnings.warn(
            f"{encoder.name} has no input padding_mask and lets padding change the hidden states of "
            "tokens: what it predicts for a text will depend on the other texts of its batch.",
            stacklevel=3,
        )
    longest = getattr(encoder, "max_sequence_length", None)
    if longest is not None and getattr(encoder, "hierarchical_position", None):
        longest **= 2
    if longest is not None and longest < max_length:
        raise ValueError(
            f"The encoder has positions for {longest} tokens; what it reads at once is max_length "
            f"tokens, so choose at most that. Received: {max_length=}"
        )


def _sees_padding(encoder):
    """Whether two ids are read differently where padding follows."""
    alone, padded = np.array([[1, 1]], "int32"), np.array([[1, 1, 0, 0]], "int32")
    before, after = (
        encoder({name: ids if name == "token_ids" else 0 * ids for name in encoder.input})
        for ids in (alone, padded)
    )
    if isinstance(before, dict):
        before, after = before["sequence_output"], after["sequence_output"]
    # Rounding alone changes half precision by up to a percent.
    tolerance = 1e-4 if keras.backend.standardize_dtype(before.dtype) == "float32" else 0.02
    before, after = (ops.convert_to_numpy(ops.cast(x[:, :2], "float32")) for x in (before, after))
    return np.abs(after - before).max() > tolerance * np.abs(before).max()
