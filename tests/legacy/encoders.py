"""Builds the encoders of cases.py with bert4keras and writes their folders."""

import dataclasses
import json

import numpy as np
import tensorflow as tf
from bert4keras.backend import set_gelu
from bert4keras.models import build_transformer_model
from gau_alpha import GAUAlpha
from inputs import draw_inputs
from saving import draw_weights, generator, save_model, write_case

# A checkpoint that was trained on holds tensors of the optimizer, too.
OPTIMIZER = {
    "global_step": np.int64(1000),
    "bert/embeddings/LayerNorm/beta/adam_m": np.full(3, 0.5, "float32"),
    "bert/embeddings/LayerNorm/beta/adam_v": np.full(3, 0.5, "float32"),
}
RELATIVE_TABLE = ("Embedding-Relative-Position",)


def build(case, config_path, model=None, application=None, **kwargs):
    """The object of bert4keras that holds the layers, the name table and the Keras model."""
    model = model or case.model
    return build_transformer_model(
        str(config_path),
        model=GAUAlpha if model == "gau_alpha" else model,
        application=application or case.application,
        return_keras_model=False,
        **kwargs,
    )


def write_checkpoint(transformer, path, extra=None):
    """What `save_weights_as_checkpoint`, which needs TensorFlow 1, would write."""
    tensors = dict(extra or {})
    for layer, names in transformer.variable_mapping().items():
        if layer in transformer.layers:
            for name, weight in zip(names, transformer.layers[layer].weights, strict=True):
                value = weight.numpy()
                is_output = name == "cls/seq_relationship/output_weights"
                tensors[name] = value.T if is_output else value
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def check_checkpoint(transformer, path):
    """Loads a checkpoint back with bert4keras' own function and compares all weights."""
    before = [weight.numpy() for weight in transformer.model.weights]
    for weight in transformer.model.trainable_weights:
        weight.assign(weight * 0)
    transformer.load_weights_from_checkpoint(str(path))
    for weight, value in zip(transformer.model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value, err_msg=weight.name)


def hidden_states(transformer):
    """The tensor behind the last block."""
    last = transformer.num_hidden_layers - 1
    names = [f"Transformer-{last}-FeedForward-Norm", f"Transformer-{last}-GatedAttentionUnit-Norm"]
    for name in names:
        if name in transformer.layers:
            return transformer.layers[name].output
    return transformer.layers["Transformer-FeedForward-Norm"].get_output_at(last)


def output_names(transformer):
    """What the outputs of the model are, in their order."""
    if getattr(transformer, "with_discriminator", False):
        return ["discriminator"]
    names = []
    if "Pooler-Dense" in transformer.layers:
        names.append("nsp" if transformer.with_nsp else "pooled_output")
    if {"MLM-Activation", "Output-MLM-Activation"} & set(transformer.layers):
        names.append("mlm")
    return names or ["sequence_output"]


def write_encoder(folder, case):
    """Writes the folder of one encoder."""
    folder.mkdir()
    rng = generator(folder.name)
    config_path = folder / "config.json"
    config_path.write_text(json.dumps(case.config, indent=2) + "\n", "utf-8")
    checkpoint = folder / "bert_model.ckpt"
    set_gelu(case.gelu)
    transformer = build(case, config_path, **case.kwargs)
    if case.source:
        model, kwargs = case.source
        source = build(case, config_path, model, "encoder", **kwargs)
        draw_weights(source.model, rng)
        write_checkpoint(source, checkpoint, OPTIMIZER)
        transformer.load_weights_from_checkpoint(str(checkpoint))
    else:
        draw_weights(transformer.model, rng, () if case.draw_tables else RELATIVE_TABLE)
        if case.checkpoint:
            write_checkpoint(transformer, checkpoint)
            check_checkpoint(transformer, checkpoint)
    for path in case.frozen:
        layer, _, sublayer = path.partition("/")
        layer = transformer.layers[layer]
        (getattr(layer, sublayer) if sublayer else layer).trainable = False
    positions = case.config["max_position_embeddings"]
    if case.kwargs.get("hierarchical_position"):
        positions = positions**2
    arrays = draw_inputs(
        transformer.model,
        rng,
        transformer.vocab_size,
        case.config["type_vocab_size"],
        positions,
        case.length,
        case.application == "unilm",
    )
    save_model(folder, transformer.model, arrays, hidden=hidden_states(transformer))
    if case.newer:
        transformer.model.save_weights(str(folder / "newer.weights.h5"))
        transformer.model.save(str(folder / "newer.keras"))
    set_gelu("erf")
    facts = dataclasses.asdict(case)
    write_case(folder, kind="encoder", outputs=output_names(transformer), **facts)
