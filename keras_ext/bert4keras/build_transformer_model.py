"""bert4keras' entry point: a model from a config file and a checkpoint."""

import keras

from keras_ext.checkpoints.google import (
    encoder_from_google,
    load_google_weights,
    save_google_weights,
)
from keras_ext.checkpoints.name_tables import COLUMNS, weight_names
from keras_ext.layers.attach_mask import AttachMask
from keras_ext.layers.layer_norm import LayerNorm
from keras_ext.layers.padding_mask import PaddingMask

INPUTS = {
    "token_ids": "Input-Token",
    "segment_ids": "Input-Segment",
    "position_ids": "Input-Position",
}


def build_transformer_model(
    config_path=None,
    checkpoint_path=None,
    model="bert",
    application="encoder",
    return_keras_model=True,
    gelu="erf",
    sequence_length=None,
    keep_tokens=None,
    compound_tokens=None,
    ignore_invalid_weights=False,
    allow_unused=(),
    **kwargs,
):
    """Builds a model as bert4keras does, from its config file and a TensorFlow checkpoint.

    The layers bear bert4keras' names. Tokens are those with an id above 0, and the first of each
    row; Keras passes this mask on to layers that are added. The output is the hidden states or,
    with heads, what they give, in the order pooled (or NSP), MLM.

    Args:
        config_path: JSON file, `bert_config.json`. None: all sizes are given in `kwargs`. Keys
            that mean nothing here are reported by a warning.
        checkpoint_path: Google-style TensorFlow checkpoint, such as `bert_model.ckpt`; see
            `load_google_weights`. None: random weights.
        model: "bert", "roberta", "albert", "albert_unshared", "nezha", "roformer", "roformer_v2",
            "gau_alpha", "electra", or the class of an encoder. Defaults to "bert".
        application: "encoder"; "lm" or "unilm" mask the attention for generation and switch
            `with_mlm` on. Defaults to "encoder".
        return_keras_model: bool. False gives a `Transformer` around the model. Defaults to True.
        gelu: "erf" or "tanh", what the activation "gelu" means; bert4keras' `set_gelu`. Defaults to
            "erf".
        sequence_length: int, the one length of all inputs. None: any.
        keep_tokens: list of int, ids of the checkpoint to keep, in the new order. None: all.
        compound_tokens: list of lists of int (or pairs of such a list and weights): new ids at the
            end, whose vectors are averages. None: none.
        ignore_invalid_weights: bool, whether weights may lack in the checkpoint, which keep their
            random values and are reported by a warning. Defaults to False.
        allow_unused: tuple of `fnmatch` patterns of names that may be left over in the checkpoint,
            such as those of the blocks that a smaller `num_hidden_layers` leaves out.
        **kwargs: before the keys of the config: `vocab_size`, `hidden_size`, ..., `max_position`,
            `segment_vocab_size` (0: no segments), `dropout_rate`, `attention_dropout_rate`,
            `embedding_size`, `attention_head_size`, `attention_key_size`, `with_pool`, `with_nsp`,
            `with_mlm`, `with_discriminator`, `hierarchical_position`, `custom_position_ids`,
            `name`; and ours: `dtype`.

    Returns:
        Functional `keras.Model` with a list of inputs: `Input-Token`, `Input-Segment` (if there are
        segments), (b, n) int32, and `Input-Position` (with `custom_position_ids`), (b, n) float32;
        or a `Transformer`.

    Raises:
        ValueError: for a config that is no JSON, lacks a field or has an impossible value, an
            argument without a meaning, GPT and T5; and as `load_google_weights`.

    Example:

    >>> model = build_transformer_model(
    ...     vocab_size=100,
    ...     num_hidden_layers=1,
    ...     num_attention_heads=2,
    ...     hidden_size=16,
    ...     intermediate_size=32,
    ...     hidden_act="gelu",
    ... )
    >>> [tensor.name for tensor in model.inputs], tuple(model.output.shape)
    (['Input-Token', 'Input-Segment'], (None, None, 16))
    """
    encoder = encoder_from_google(
        config_path,
        checkpoint_path,
        model,
        application,
        gelu,
        keep_tokens,
        compound_tokens,
        ignore_invalid_weights,
        allow_unused,
        **kwargs,
    )
    built = flat_model(encoder, sequence_length)
    for layer in built.layers:
        if layer.weights:
            weights = encoder.get_layer(layer.name).get_weights()
            layer.set_weights(weights[::-1] if isinstance(layer, LayerNorm) else weights)
    return built if return_keras_model else Transformer(built)


def flat_model(encoder, sequence_length=None):
    """An encoder as bert4keras has it: list inputs, its mask from the ids and passed on by Keras.

    Args:
        encoder: one of the encoders. The model gets layers of its own.
        sequence_length: int, the one length of all inputs. None: any.

    Returns:
        Functional `keras.Model`.
    """
    inputs = {
        ours: keras.Input((sequence_length,), dtype=encoder.input[ours].dtype, name=name)
        for ours, name in INPUTS.items()
        if ours in encoder.input
    }
    mask = PaddingMask(name="Padding-Mask")(inputs["token_ids"])
    placeholder = keras.Input((sequence_length,), dtype="bool")

    def attach(name, x):
        return AttachMask(dtype=encoder.dtype_policy, name=name)([x, mask])

    def call(layer, *arguments, **keywords):
        if keywords.get("mask") is placeholder:
            keywords["mask"] = mask
        if keywords.get("reverse"):
            # Keras' embedding warns of a mask, which an operation drops.
            output = layer(keras.ops.copy(*arguments), **keywords)
            return attach("MLM-Mask", output)
        output = layer(*arguments, **keywords)
        if layer.name == "Embedding-Dropout":
            return attach("Embedding-Mask", output)
        return output

    # As lists: a dict of inputs would have to bear their names.
    graph = keras.Model(list(encoder.input.values()), encoder.output)
    tensors = [{**inputs, "padding_mask": placeholder}[name] for name in encoder.input]
    clone = keras.models.clone_model(
        graph, input_tensors=tensors, clone_function=_copy, call_function=call
    )
    outputs = clone.output
    if isinstance(outputs, dict):
        first = [
            outputs[name] for name in ("nsp", "pooled_output", "discriminator") if name in outputs
        ]
        outputs = first[:1] + [outputs[name] for name in ("mlm",) if name in outputs]
        outputs = outputs if len(outputs) > 1 else outputs[0]
    model = keras.Model(list(inputs.values()), outputs, name=encoder.name)
    model.weight_names = {column: weight_names(encoder, column) for column in COLUMNS}
    model.num_layers = encoder.num_layers
    return model


def _copy(layer):
    """A layer as another of its kind; a normalisation as one whose weights Keras loads rightly."""
    if isinstance(layer, keras.layers.LayerNormalization):
        return LayerNorm(layer.epsilon, dtype=layer.dtype_policy, name=layer.name)
    return type(layer).from_config(layer.get_config())


class Transformer:
    """A model with the attributes that scripts for bert4keras take from it.

    Args:
        model: functional `keras.Model` that `build_transformer_model` made.

    Attributes:
        model: that model.
        inputs, outputs: lists of its symbolic tensors.
        input, output: the same, or the one tensor where there is one.
        layers: dict from names to layers.
        initializer: that of the kernels, for layers to be added.

    Example:

    >>> sizes = dict(num_hidden_layers=1, num_attention_heads=2, hidden_size=8)
    >>> bert = build_transformer_model(
    ...     vocab_size=9, intermediate_size=8, hidden_act="gelu", return_keras_model=False, **sizes
    ... )
    >>> sorted(bert.layers)[0], bert.layers["Embedding-Token"].output_dim
    ('Embedding-Dropout', 8)
    """

    def __init__(self, model):
        self.model = model
        self.inputs, self.outputs = model.inputs, model.outputs
        self.input = self.inputs if len(self.inputs) > 1 else self.inputs[0]
        self.output = self.outputs if len(self.outputs) > 1 else self.outputs[0]
        self.layers = {layer.name: layer for layer in model.layers}

    @property
    def initializer(self):
        layers = (layer for layer in self.model.layers if hasattr(layer, "kernel_initializer"))
        return next(layers).kernel_initializer.clone()

    def load_weights_from_checkpoint(self, path):
        """Loads a Google-style TensorFlow checkpoint: see `load_google_weights`."""
        return load_google_weights(self.model, path)

    def save_weights_as_checkpoint(self, path):
        """Saves a Google-style TensorFlow checkpoint: see `save_google_weights`."""
        save_google_weights(self.model, path)
