"""The sweep: every serialisable object is a row, and every row has every property."""

import itertools
import pkgutil
from importlib import import_module

import child
import harness
import harness_optimizers
import keras
import numpy as np
import pytest
import tensor_names
from harness_kinds import (
    LENGTH,
    AroundRow,
    FunctionRow,
    LayerRow,
    LossRow,
    MetricRow,
    OptimizerRow,
    PartRow,
    RecurrentRow,
    ScheduleRow,
)

import keras_ext
from keras_ext import (
    activations,
    diffusion,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
)
from keras_ext.diffusion import interpolants

RNG = np.random.default_rng(0)
MASK = np.array([[1] * LENGTH, [1, 1, 1, 1, 0, 0, 0], [0] * LENGTH], "bool")
HIDDEN = {"inputs": RNG.normal(size=(3, LENGTH, 8)).astype("float32")}
MASKED_HIDDEN = {**HIDDEN, "mask": MASK}
TOKENS = RNG.integers(1, 11, (3, LENGTH)).astype("int32")
BATCH = {"inputs": {"token_ids": TOKENS, "segment_ids": TOKENS % 2, "padding_mask": MASK}}
UNIFORM = keras.initializers.RandomUniform(-0.5, 0.5, seed=3)

# Two types, head_size 4. The second sample is padded, the third is all padding; one gold span is
# given twice, one lies on padding, and one cell is gold for both types.
SPANS = np.array(
    [
        [[0, 1, 3], [1, 1, 3], [1, 2, 2], [1, 2, 2]],
        [[0, 0, 0], [1, 5, 6], [-1, -1, -1], [-1, -1, -1]],
        [[-1, -1, -1]] * 4,
    ],
    "int32",
)
FACTORS = RNG.normal(size=(3, LENGTH, 12)).astype("float32")
FACTORS[..., 8:] = np.where(MASK[..., None], FACTORS[..., 8:], -1e30)
PAIRS = MASK[:, :, None] & MASK[:, None, :] & np.triu(np.ones((LENGTH, LENGTH), "bool"))
SCORES = RNG.normal(size=(3, 2, LENGTH, LENGTH)).astype("float32")
SCORES = np.where(PAIRS[:, None], SCORES, np.float32(-1e30))
FACTORED = {"y_true": SPANS, "y_pred": FACTORS}
DENSE = {"y_true": SPANS, "y_pred": SCORES}
CLASSES = {"y_pred": np.array([[3, -2, 1, 0.5], [9, 0, -9, -1e30], [-1e30] * 4], "float32")}
HARD = {"y_true": np.array([[1, 0, 0, 1], [0, 0, 1, 1], [0] * 4], "int32"), **CLASSES}
SPARSE = {"y_true": np.array([[0, 3, 3], [2, 3, -1], [-1] * 3], "int32"), **CLASSES}

# Examples of 4 vectors, one of equal vectors, one with a vector of zeros, one of nothing else.
TEXTS = RNG.normal(size=(5, 4, 8)).astype("float32")
TEXTS[0, 1], TEXTS[1, 2], TEXTS[4] = TEXTS[0, 0], 0.0, 0.0
GROUPED = {"y_true": np.array([[4], [-1], [4], [-1], [7]], "int32"), "y_pred": TEXTS}
PAIRED = {"inputs": TEXTS[:, :2]}
GRADES = np.array([0.0, 2.5, 5.0, 2.5, 1.0, 4.0], "float32")
# Unit vectors at angles to the first that are in no order of the grades.
ANGLES = np.array([2.6, 1.0, 0.2, 1.5, 2.0, 0.6])
TWO_TEXTS = np.ones((6, 2, 2), "float32") * np.float32([1.0, 0.0])
TWO_TEXTS[:, 1] = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)
GRADED = {"y_true": GRADES, "y_pred": TWO_TEXTS}
# Indices of 8 codes, and of stages of 8 and 4; -1 is none.
CODES = {"y_true": GRADES[:3], "y_pred": np.array([[0, 5, 5], [7, 5, -1], [-1] * 3], "int32")}
STAGES = {"y_true": GRADES[:3], "y_pred": np.array([[0, 3], [7, 2], [-1, -1]], "int32")}
CONTRAST = {"temperature": 0.5, "score": "dot", "symmetric": True}

CAUSAL = np.tile(np.tril(np.ones((LENGTH, LENGTH), "bool")), (3, 1, 1))
TURNS = RNG.integers(0, 99, (3, LENGTH)).astype("int32")
RELATIVE = RNG.normal(size=(LENGTH, LENGTH, 4)).astype("float32")
THREE = {
    "inputs": [RNG.normal(size=(3, LENGTH, d)).astype("float32") for d in (8, 6, 5)],
    "mask": MASK,
}
UNIT = {"units": 10, "key_size": 4}
# So few codes that no rounding to half precision makes another the nearest.
QUANTISED = {"heads": 2, "key_size": 4, "codes": 3}
DOCUMENTS = np.array([[4, 4, 4, 4, 9, 9, 0], [1, 2, 2, 2, 0, 0, 0], [0] * LENGTH], "int32")

POINTER = {"heads": 2, "head_size": 4}
OTHER_POINTER = {
    "heads": 3,
    "head_size": 5,
    "rope": False,
    "use_bias": False,
    "tril_mask": False,
    "kernel_initializer": UNIFORM,
}
OTHER_SPANS = {"heads": 2, "head_size": 4, "tril_mask": False}
ENCODER = {
    "vocabulary_size": 11,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
UNITS = {"vocabulary_size": 11, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 16}
# So few codes that no rounding to half precision makes another the nearest.
WRITER = {"vocabulary_size": 11, "num_layers": 2, "hidden_dim": 8, "key_size": 4, "codes": 2}
OTHER_BARE = {
    "num_segments": 4,
    "dropout": 0.3,
    "attention_dropout": 0.4,
    "activation": "gelu_tanh",
    "layer_norm_epsilon": 1e-3,
    "embedding_dim": 6,
    "application": "unilm",
    "column_dropout": 0.25,
}
OTHER_ENCODER = {**OTHER_BARE, "residual": "pre"}
OTHER_DEEP = {**OTHER_BARE, "residual": "deepnorm"}
WIDTHS = {"head_size": 6, "key_size": 4}
HEADS = {"with_pool": "linear", "with_nsp": True, "with_mlm": "linear"}
PLACES = {"positions": (TURNS / 4).astype("float32")}
TWO = {"inputs": [HIDDEN["inputs"], RNG.normal(size=(3, LENGTH, 8)).astype("float32")]}
POSITIONS = {"inputs": {**BATCH["inputs"], "position_ids": np.cumsum(MASK, 1).astype("int32")}}
PACKED = {
    "inputs": {
        "token_ids": TOKENS,
        "padding_mask": MASK,
        "document_ids": DOCUMENTS,
    }
}

# Times that half precision holds.
TIMES = np.array([0.25, 1.0, 0.0], "float32")
IMAGES = {"inputs": {"x": RNG.normal(size=(3, 5, 4, 2)).astype("float32"), "t": TIMES}}
LABELLED = {
    "inputs": {
        "x": RNG.normal(size=(3, 5, 2)).astype("float32"),
        "t": TIMES,
        "label": np.array([0, 3, 2], "int32"),
    }
}
# Numbers that half precision holds: else another code would be the nearest.
CODED = {"inputs": np.round(8 * RNG.normal(size=(3, LENGTH, 8)).astype("float32")) / 8}
CODED_FOUR = {"inputs": CODED["inputs"][..., :4]}
CODEBOOK = {"codes": 8, "dim": 8, "codebook_initializer": keras.initializers.Identity()}
VECTORS = {"inputs": {"x": RNG.normal(size=(3, 2)).astype("float32"), "t": TIMES}}
LABELLED_VECTORS = {"inputs": {**LABELLED["inputs"], **VECTORS["inputs"]}}
WITHOUT_TIME = {
    "inputs": {"x": VECTORS["inputs"]["x"], "label": LABELLED_VECTORS["inputs"]["label"]}
}
DENOISER = models.MLPDenoiser(2, hidden_dim=8, num_layers=1, num_classes=3, name="denoiser")
RESTORER = models.MLPDenoiser(2, hidden_dim=8, num_layers=1, name="restorer")
STEPS = np.array([0, 2, 1], "int32")
SIGMAS = np.array([[80.0, 3.0], [0.5, 0.01], [3.0, 0.5]], "float32")


def scaled(scale):
    """A layer of attention with a scale."""
    return layers.MultiHeadSelfAttention(2, 4, attention_scale=scale)


def initialised(initializer):
    """A dense layer with an initializer."""
    return keras.layers.Dense(5, kernel_initializer=initializer)


ROWS = [
    LayerRow(layers.GlobalPointer, POINTER, MASKED_HIDDEN),
    LayerRow(layers.GlobalPointer, OTHER_POINTER, MASKED_HIDDEN, "other"),
    LayerRow(layers.EfficientGlobalPointer, POINTER, MASKED_HIDDEN),
    LayerRow(
        layers.EfficientGlobalPointer, {**POINTER, "factored": True}, MASKED_HIDDEN, "factored"
    ),
    LayerRow(layers.EfficientGlobalPointer, OTHER_POINTER, MASKED_HIDDEN, "other"),
    LayerRow(layers.MultiHeadSelfAttention, POINTER, MASKED_HIDDEN),
    LayerRow(
        layers.MultiHeadSelfAttention,
        POINTER,
        {**MASKED_HIDDEN, "relative_embeddings": RELATIVE},
        "relative",
    ),
    LayerRow(
        layers.MultiHeadSelfAttention,
        {
            **POINTER,
            "key_size": 6,
            "output_dim": 5,
            "rope": True,
            "use_bias": False,
            "attention_dropout": 0.5,
            "kernel_initializer": UNIFORM,
            "value_initializer": keras.initializers.RandomUniform(-0.4, 0.6, seed=4),
            "attention_scale": "log_n",
        },
        {**MASKED_HIDDEN, "attention_mask": CAUSAL, "positions": TURNS},
        "other",
    ),
    LayerRow(
        layers.MultiHeadSelfAttention,
        {**POINTER, "rope": True, "causal": True, "rope_window": 2, "rope_slope": 0.25},
        {**MASKED_HIDDEN, "positions": (TURNS + 0.5).astype("float32")},
        "window",
    ),
    LayerRow(layers.GatedAttentionUnit, UNIT, MASKED_HIDDEN),
    LayerRow(
        layers.GatedAttentionUnit,
        {**UNIT, "rope": True, "causal": True, "rope_window": 2, "rope_slope": 0.25},
        {**MASKED_HIDDEN, "positions": (TURNS + 0.5).astype("float32")},
        "window",
    ),
    LayerRow(
        layers.GatedAttentionUnit,
        {**UNIT, "length_norm": 5, "score_scale": "paper"},
        MASKED_HIDDEN,
        "paper",
    ),
    LayerRow(
        layers.GatedAttentionUnit,
        {
            **UNIT,
            "activation": "gelu_tanh",
            "use_bias": False,
            "normalization": "softmax_plus",
            "attention_scale": False,
            "attention_dropout": 0.5,
            "kernel_initializer": UNIFORM,
            "rope": True,
        },
        {**MASKED_HIDDEN, "attention_mask": CAUSAL, "positions": TURNS},
        "other",
    ),
    LayerRow(layers.GatedAttentionUnit, {**UNIT, "self_attention": False}, THREE, "three"),
    RecurrentRow(layers.ParallelRNN, {"cell": keras.layers.GRUCell(5)}, MASKED_HIDDEN),
    RecurrentRow(
        layers.ParallelRNN,
        {
            "cell": keras.layers.LSTMCell(5),
            "method": "picard",
            "tolerance": 1e-4,
            "max_sweeps": 20,
            "return_sequences": False,
            "go_backwards": True,
        },
        MASKED_HIDDEN,
        "other",
    ),
    RecurrentRow(layers.MinimalGRU, {"units": 5}, MASKED_HIDDEN),
    RecurrentRow(
        layers.MinimalGRU,
        {
            "units": 5,
            "activation": "gelu_tanh",
            "use_bias": False,
            "kernel_initializer": UNIFORM,
            "return_sequences": False,
        },
        MASKED_HIDDEN,
        "other",
    ),
    LayerRow(layers.NTKDense, {"units": 5}, HIDDEN),
    LayerRow(
        layers.NTKDense,
        {
            "units": 5,
            "activation": "gelu_tanh",
            "use_bias": False,
            "kernel_initializer": UNIFORM,
        },
        HIDDEN,
        "other",
    ),
    LayerRow(layers.RandomPositions, {}, {"inputs": TOKENS}),
    LayerRow(
        layers.RandomPositions,
        {"mode": "equal_mean", "max_position": 99, "distribution": "beta", "seed": 3},
        {"inputs": TOKENS},
        "other",
    ),
    LayerRow(layers.DropToken, {"rate": 0.5}, MASKED_HIDDEN),
    LayerRow(
        layers.DropToken,
        {"rate": 0.25, "keep_first": False, "mode": "mask", "seed": 3},
        {**MASKED_HIDDEN, **PLACES},
        "other",
    ),
    LayerRow(layers.LocalAttentionMask, {"window": 3}, {"inputs": TOKENS}),
    LayerRow(
        layers.LocalAttentionMask, {"window": 3, "causal": True}, {"inputs": TOKENS}, "causal"
    ),
    LayerRow(layers.SinusoidalPositionEmbedding, {}, HIDDEN),
    LayerRow(
        layers.SinusoidalPositionEmbedding, {"base": 100.0}, {**HIDDEN, "positions": TURNS}, "other"
    ),
    LayerRow(layers.PositionEmbedding, {"input_dim": 99}, {**HIDDEN, **PLACES}, "floats"),
    LayerRow(layers.SinusoidalPositionEmbedding, {"base": 100.0}, {**HIDDEN, **PLACES}, "floats"),
    LayerRow(layers.MixedChunkAttention, UNIT, MASKED_HIDDEN),
    LayerRow(
        layers.MixedChunkAttention,
        {
            **UNIT,
            "chunk_size": 3,
            "activation": "gelu_tanh",
            "use_bias": False,
            "causal": True,
            "attention_scale": "log_n",
            "attention_dropout": 0.5,
            "rope": True,
            "kernel_initializer": UNIFORM,
        },
        {**MASKED_HIDDEN, **PLACES},
        "other",
    ),
    LayerRow(layers.SAU, {}, HIDDEN),
    LayerRow(layers.SAU, {"negative_slope": 0.1, "width": 0.5}, HIDDEN, "other"),
    LayerRow(layers.VQAttention, {**QUANTISED, "block_length": 2}, MASKED_HIDDEN),
    LayerRow(
        layers.VQAttention,
        {**QUANTISED, "block_length": 2, "causal": False, "position_bias": "toeplitz"},
        {**MASKED_HIDDEN, "segment_ids": DOCUMENTS},
        "documents",
    ),
    LayerRow(
        layers.VQAttention,
        {
            **QUANTISED,
            "value_size": 6,
            "gated": True,
            "method": "quadratic",
            "commitment": 0.25,
            "decay": 0.5,
            "grad_through_cache": True,
            "kernel_initializer": UNIFORM,
        },
        MASKED_HIDDEN,
        "other",
    ),
    LayerRow(layers.ScaleNorm, {}, HIDDEN),
    LayerRow(layers.ScaleNorm, {"epsilon": 0.01}, HIDDEN, "other"),
    LayerRow(layers.DeepNormResidual, {"alpha": 1.5}, TWO),
    LayerRow(
        layers.DeepNormResidual,
        {"alpha": 2.0, "epsilon": 0.01, "scale": False, "offset": False},
        TWO,
        "other",
    ),
    LayerRow(layers.FSQ, {"levels": [8, 5, 5, 5]}, CODED_FOUR),
    LayerRow(layers.FSQ, {"levels": [2, 5, 6, 7], "mode": "sigmoid"}, CODED_FOUR, "sigmoid"),
    LayerRow(layers.VectorQuantizer, CODEBOOK, {**CODED, "mask": MASK}),
    LayerRow(
        layers.VectorQuantizer,
        {
            **CODEBOOK,
            "update": "loss",
            "decay": 0.9,
            "commitment": 0.5,
            "codebook_loss": 0.5,
            "distance": "cosine",
            "gradient": "rotation",
            "kmeans_steps": None,
            "threshold_dead": 0.1,
            "epsilon": 1e-4,
            "seed": 3,
        },
        CODED,
        "other",
    ),
    LayerRow(layers.RampedResidual, {"steps": 4}, TWO),
    LayerRow(layers.ScannedBlocks, {"block": layers.FeedForward(16, "swish"), "depth": 3}, HIDDEN),
    LayerRow(
        layers.ScannedBlocks,
        {"block": layers.MultiHeadSelfAttention(2, 4), "depth": 3},
        {**MASKED_HIDDEN, "attention_mask": CAUSAL},
        "masked",
    ),
    PartRow(ops.LogN, {}, HIDDEN, layer=scaled),
    PartRow(
        ops.LogN,
        {"train_length": 4, "min_length": 2, "clip": True},
        HIDDEN,
        "other",
        layer=scaled,
    ),
    PartRow(ops.GradMax, {}, HIDDEN, layer=scaled),
    PartRow(ops.Cosine, {"temperature": 0.2}, HIDDEN, layer=scaled),
    PartRow(
        initializers.ActivationScaling,
        {"activation": "gelu", "mode": "fan_avg", "distribution": "uniform", "seed": 3},
        HIDDEN,
        layer=initialised,
    ),
    PartRow(
        initializers.MeanVarianceScaling,
        {"scale": 2.0, "mean": "geometric", "distribution": "uniform", "seed": 3},
        HIDDEN,
        layer=initialised,
    ),
    LayerRow(layers.ScaleOffset, {}, HIDDEN),
    LayerRow(layers.ScaleOffset, {"scale": False}, HIDDEN, "offset"),
    LayerRow(layers.ScaleOffset, {"offset": False}, HIDDEN, "scale"),
    LayerRow(layers.LayerNorm, {}, HIDDEN),
    LayerRow(layers.LayerNorm, {"epsilon": 0.01}, HIDDEN, "other"),
    LayerRow(layers.LearnableTemperature, {}, HIDDEN),
    LayerRow(layers.LearnableTemperature, {"initial": 0.5, "minimum": 0.25}, HIDDEN, "other"),
    LayerRow(layers.PairClassifier, {"classes": 3}, PAIRED),
    LayerRow(
        layers.PairClassifier,
        {"classes": 3, "parts": ["product", "difference"], "kernel_initializer": UNIFORM},
        PAIRED,
        "other",
    ),
    LayerRow(layers.PairScore, {}, PAIRED),
    LayerRow(layers.PairScore, {"score": "dot"}, PAIRED, "dot"),
    LayerRow(layers.Pooling, {}, MASKED_HIDDEN),
    *[
        LayerRow(layers.Pooling, {"mode": mode}, MASKED_HIDDEN, mode)
        for mode in ("cls", "max", "last")
    ],
    LayerRow(
        layers.Pooling,
        {"mode": "first_last"},
        {"inputs": [HIDDEN["inputs"], 2.0 * HIDDEN["inputs"]], "mask": MASK},
        "first_last",
    ),
    LayerRow(layers.UnitNormalization, {}, HIDDEN),
    LayerRow(layers.RMSNorm, {}, HIDDEN),
    LayerRow(layers.RMSNorm, {"epsilon": 0.01}, HIDDEN, "other"),
    LayerRow(layers.RelativePositionEmbedding, {"input_dim": 9, "output_dim": 4}, HIDDEN),
    LayerRow(layers.PaddingMask, {}, {"inputs": TOKENS}),
    LayerRow(layers.AttentionMask, {"application": "lm"}, {"inputs": TOKENS}),
    LayerRow(layers.AttentionMask, {"application": "unilm"}, {"inputs": TOKENS % 2}, "unilm"),
    LayerRow(layers.AttachMask, {}, {"inputs": [HIDDEN["inputs"], MASK]}),
    LayerRow(layers.FeedForward, {"units": 5}, HIDDEN),
    LayerRow(
        layers.FeedForward,
        {
            "units": 5,
            "activation": "gelu_tanh",
            "use_bias": False,
            "kernel_initializer": UNIFORM,
        },
        HIDDEN,
        "other",
    ),
    LayerRow(
        layers.BigramEmbedding,
        {"buckets": 50, "output_dim": 4, "embeddings_initializer": UNIFORM},
        {"inputs": TOKENS, "mask": MASK},
    ),
    LayerRow(layers.ComposedEmbedding, {"input_dim": 11, "output_dim": 4}, {"inputs": TOKENS}),
    *[
        LayerRow(
            layers.ComposedEmbedding,
            {
                "input_dim": 12,
                "output_dim": 4,
                "combine": combine,
                "embeddings_initializer": UNIFORM,
                "mask_zero": True,
            },
            {"inputs": TOKENS},
            combine,
        )
        for combine in ("multiply", "concat")
    ],
    LayerRow(layers.PositionEmbedding, {"input_dim": 9, "embeddings_initializer": UNIFORM}, HIDDEN),
    LayerRow(
        layers.PositionEmbedding,
        {"input_dim": 4, "hierarchical": 0.3},
        {**HIDDEN, "positions": TURNS % 16},
        "other",
    ),
    LayerRow(models.BertEncoder, ENCODER, BATCH),
    LayerRow(
        models.BertEncoder,
        {
            **ENCODER,
            **OTHER_ENCODER,
            **WIDTHS,
            **HEADS,
            "max_sequence_length": 9,
            "hierarchical_position": 0.3,
            "custom_position_ids": True,
        },
        POSITIONS,
        "other",
    ),
    LayerRow(models.AlbertEncoder, {**ENCODER, "num_layers": 2}, BATCH),
    LayerRow(
        models.AlbertEncoder,
        {
            **ENCODER,
            **OTHER_ENCODER,
            **WIDTHS,
            **HEADS,
            "max_sequence_length": 9,
            "hierarchical_position": 0.3,
            "custom_position_ids": True,
        },
        POSITIONS,
        "other",
    ),
    LayerRow(models.AlbertUnsharedEncoder, {**ENCODER, "embedding_dim": 6}, BATCH),
    LayerRow(
        models.AlbertUnsharedEncoder,
        {
            **ENCODER,
            **OTHER_ENCODER,
            **WIDTHS,
            **HEADS,
            "max_sequence_length": 9,
            "hierarchical_position": 0.3,
            "custom_position_ids": True,
        },
        POSITIONS,
        "other",
    ),
    LayerRow(
        models.ElectraEncoder, {**ENCODER, "embedding_dim": 6, "with_discriminator": True}, BATCH
    ),
    LayerRow(
        models.ElectraEncoder,
        {
            **ENCODER,
            **{name: OTHER_ENCODER[name] for name in OTHER_ENCODER if name != "application"},
            **WIDTHS,
            "max_sequence_length": 9,
            "hierarchical_position": 0.3,
            "custom_position_ids": True,
            "with_discriminator": "linear",
        },
        POSITIONS,
        "other",
    ),
    LayerRow(models.NezhaEncoder, ENCODER, BATCH),
    LayerRow(
        models.NezhaEncoder,
        {**ENCODER, **OTHER_ENCODER, "head_size": 6, **HEADS, "max_relative_position": 2},
        BATCH,
        "other",
    ),
    LayerRow(models.RoFormerEncoder, ENCODER, BATCH),
    LayerRow(
        models.RoFormerEncoder,
        {**ENCODER, **OTHER_ENCODER, **WIDTHS, **HEADS, "custom_position_ids": True},
        POSITIONS,
        "other",
    ),
    LayerRow(models.RoFormerV2Encoder, ENCODER, BATCH),
    LayerRow(
        models.RoFormerV2Encoder,
        {**ENCODER, **OTHER_DEEP, **WIDTHS, "with_mlm": "linear", "custom_position_ids": True},
        POSITIONS,
        "other",
    ),
    LayerRow(models.GAUAlphaEncoder, UNITS, BATCH),
    LayerRow(
        models.GAUAlphaEncoder,
        {
            **UNITS,
            **OTHER_BARE,
            "key_size": 4,
            "with_mlm": "linear",
            "custom_position_ids": True,
        },
        POSITIONS,
        "other",
    ),
    LayerRow(models.GAUEncoder, {**UNITS, "residual": "pre"}, BATCH),
    LayerRow(
        models.GAUEncoder,
        {
            **UNITS,
            **OTHER_BARE,
            "intermediate_dim": None,
            "key_size": 4,
            "with_mlm": "linear",
            "custom_position_ids": True,
            "residual": "deepnorm",
            "use_bias": False,
            "length_norm": 5,
            "score_scale": "paper",
            "rope_window": 2,
            "rope_slope": 0.25,
        },
        POSITIONS,
        "other",
    ),
    LayerRow(
        models.GAUEncoder,
        {
            **UNITS,
            "normalization": "softmax",
            "attention_scale": "log_n",
            "kernel_initializer": UNIFORM,
        },
        BATCH,
        "softmax",
    ),
    LayerRow(models.VQTransformer, {**WRITER, "residual": "pre", "block_length": 2}, BATCH),
    LayerRow(
        models.VQTransformer,
        {
            **WRITER,
            "codes": 1,  # in half precision another of several may be the nearest
            "num_heads": 2,
            "intermediate_dim": 16,
            "gated": False,
            "num_segments": 0,
            "packed": True,
            "dropout": 0.3,
            "with_mlm": "linear",
            "embedding_dim": 6,
            "application": "lm",
            "method": "quadratic",
            "position_bias": "toeplitz",
            "commitment": 0.25,
            "decay": 0.5,
            "layer_norm_epsilon": 1e-3,
            "column_dropout": 0.25,
            "kernel_initializer": UNIFORM,
        },
        PACKED,
        "other",
    ),
    LayerRow(
        models.BigramRoFormerEncoder,
        {
            **ENCODER,
            "bigram_buckets": 50,
            "embedding_dim": 4,
            "kernel_size": 5,
            "dropout": 0.2,
            "token_dropout": 0.1,
            "column_dropout": 0.25,
        },
        BATCH,
    ),
    LayerRow(layers.TimeEmbedding, {"dim": 6}, {"inputs": TIMES}),
    LayerRow(layers.TimeEmbedding, {"dim": 6, "scale": 16.0}, {"inputs": TIMES}, "other"),
    LayerRow(layers.GroupNorm, {}, HIDDEN),
    LayerRow(
        layers.GroupNorm,
        {"groups": 2, "epsilon": 0.01},
        {**HIDDEN, "modulation": RNG.normal(size=(3, 16)).astype("float32")},
        "modulated",
    ),
    LayerRow(models.UNet, {"input_shape": (5, 4, 2), "channels": (8,)}, IMAGES),
    LayerRow(
        models.UNet,
        {
            "input_shape": (5, 2),
            "channels": (4, 8),
            "attention_levels": (1,),
            "blocks_per_level": 1,
            "num_classes": 3,
            "dropout": 0.5,
            "groups": 2,
            "num_heads": 2,
        },
        LABELLED,
        "other",
    ),
    LayerRow(models.MLPDenoiser, {"input_dim": 2, "hidden_dim": 8}, VECTORS),
    LayerRow(
        models.MLPDenoiser,
        {"input_dim": 2, "hidden_dim": 8, "num_layers": 2, "num_classes": 3, "dropout": 0.5},
        LABELLED_VECTORS,
        "other",
    ),
    AroundRow(diffusion.DenoisingDiffusion, {"network": DENOISER}, WITHOUT_TIME),
    AroundRow(
        diffusion.DenoisingDiffusion,
        {
            "network": DENOISER,
            "schedule": diffusion.EDMSchedule(low=0.01),
            "prediction": "x0",
            "loss_weight": "edm",
            "time_sampling": "logit_normal",
            "cond_dropout": 0.25,
            "seed": 3,
        },
        WITHOUT_TIME,
        "other",
    ),
    AroundRow(diffusion.RectifiedFlow, {"network": DENOISER}, WITHOUT_TIME),
    AroundRow(
        diffusion.RectifiedFlow,
        {
            "network": DENOISER,
            "interpolant": diffusion.TrigonometricInterpolant(),
            "time_sampling": "low_discrepancy",
            "paired": False,
            "cond_dropout": 0.25,
            "seed": 3,
        },
        {"inputs": {**WITHOUT_TIME["inputs"], "x1": WITHOUT_TIME["inputs"]["x"][::-1].copy()}},
        "other",
    ),
    AroundRow(diffusion.PoissonFlow, {"network": DENOISER}, WITHOUT_TIME),
    AroundRow(
        diffusion.PoissonFlow,
        {
            "network": DENOISER,
            "D": 2.5,
            "low": 0.01,
            "high": 40.0,
            "rho": 5.0,
            "quantile": 0.5,
            "time_sampling": "low_discrepancy",
            "cond_dropout": 0.25,
            "seed": 3,
        },
        WITHOUT_TIME,
        "other",
    ),
    AroundRow(
        diffusion.UnifiedDiffusion,
        {"network": RESTORER, "forward": diffusion.forward_processes.GaussianNoise()},
        {"inputs": {"x": WITHOUT_TIME["inputs"]["x"]}},
    ),
    AroundRow(
        diffusion.UnifiedDiffusion,
        {
            "network": RESTORER,
            "forward": diffusion.forward_processes.Fade(value=0.5),
            "steps": 10,
            "rule": "increment",
            "seed": 3,
        },
        {"inputs": {"x": WITHOUT_TIME["inputs"]["x"]}},
        "other",
    ),
    LayerRow(diffusion.AMEDPredictor, {"steps": 3}, {"inputs": {"step": STEPS}}),
    LayerRow(
        diffusion.AMEDPredictor,
        {
            "steps": 3,
            "features_dim": 4,
            "scale_direction": 0.25,
            "scale_time": 0.125,
            "hidden_dim": 8,
        },
        {"inputs": {"step": STEPS, "features": RELATIVE[:3, 0], "sigma": SIGMAS}},
        "other",
    ),
    LossRow(losses.MultilabelCategoricalCrossentropy, {}, HARD),
    LossRow(losses.SparseMultilabelCategoricalCrossentropy, {}, SPARSE),
    LossRow(
        losses.SparseMultilabelCategoricalCrossentropy,
        {"mask_zero": True},
        SPARSE,
        "other",
    ),
    LossRow(losses.SmoothAccuracy, {}, {"y_true": np.array([1, 0, 3], "int32"), **CLASSES}),
    LossRow(losses.SmoothF1, {}, HARD),
    LossRow(losses.SmoothF1, {"width": 0.5, "smoothing": 0.25}, HARD, "other"),
    LossRow(losses.GlobalPointerCrossentropy, {}, DENSE),
    LossRow(losses.FactoredGlobalPointerCrossentropy, POINTER, FACTORED),
    LossRow(losses.FactoredGlobalPointerCrossentropy, OTHER_SPANS, FACTORED, "other"),
    LossRow(losses.CoSENT, {}, {"y_true": GRADES[:5], "y_pred": TEXTS[:, :2]}),
    LossRow(
        losses.CoSENT,
        {"temperature": 0.25, "layout": "interleaved", "score": "angle"},
        {"y_true": GRADES.repeat(2), "y_pred": TEXTS[:3].reshape(12, 8)},
        "interleaved",
    ),
    LossRow(losses.InfoNCE, {}, GROUPED),
    LossRow(losses.InfoNCE, CONTRAST, GROUPED, "other"),
    LossRow(losses.FlatNCE, {}, GROUPED),
    LossRow(losses.FlatNCE, CONTRAST, GROUPED, "other"),
    LossRow(losses.Matryoshka, {"loss": losses.InfoNCE(), "dims": [8, 3]}, GROUPED),
    LossRow(
        losses.Matryoshka,
        {"loss": losses.FlatNCE(symmetric=True), "dims": [5, 2], "loss_weights": [1.0, 0.25]},
        GROUPED,
        "other",
    ),
    MetricRow(metrics.SpearmanCorrelation, {}, GRADED),
    MetricRow(metrics.SpearmanCorrelation, {"score": "dot", "capacity": 32}, GRADED, "other"),
    MetricRow(
        metrics.SpearmanCorrelation,
        {},
        {"y_true": GRADES[:, None], "y_pred": TWO_TEXTS[:, 1, :1]},
        "scores",
    ),
    MetricRow(metrics.SpanF1, {"heads": 2}, DENSE),
    MetricRow(
        metrics.SpanF1, {**OTHER_SPANS, "threshold": 0.25, "factored": True}, FACTORED, "other"
    ),
    MetricRow(metrics.CodeUsage, {"codes": 8}, CODES),
    MetricRow(metrics.CodeUsage, {"codes": [8, 4]}, STAGES, "stages"),
    MetricRow(metrics.CodePerplexity, {"codes": 8}, CODES),
    MetricRow(metrics.CodePerplexity, {"codes": [8, 4]}, STAGES, "stages"),
    FunctionRow(activations.gelu_tanh, {}, {"x": RNG.normal(size=(3, 5)).astype("float32")}),
]

TRAINING = {
    "train_x": RNG.integers(0, 6, (6, 8, 3)).astype("int32"),
    # Far from 0: the sign of an error lasts, and the steps of a bias do not cancel each other.
    "train_y": RNG.normal(3.0, size=(6, 8, 3)).astype("float32"),
}
RATE = 2.0**-6  # a float32, so that the config is what was passed


def base(cls=keras.optimizers.Adam, **arguments):
    """An optimizer of Keras to stand inside. Each row copies it."""
    return cls(RATE, **arguments)


def stack():
    """All wrappers, in their order."""
    optimizer = base(keras.optimizers.AdamW, use_ema=True, ema_momentum=0.75)
    optimizer = optimizers.ParameterwiseLR(optimizer, [["table", 0.5]], lazy_rows="table")
    optimizer = optimizers.LayerAdaptation(optimizer)
    optimizer = optimizers.Lookahead(optimizer, sync_period=2)
    optimizer = optimizers.GradientAccumulation(optimizer, steps=2)
    return optimizers.NonFiniteGuard(optimizer, mode="shrink")


OPTIMIZER_ROWS = [
    OptimizerRow(optimizers.Tiger, {"learning_rate": RATE}, TRAINING),
    OptimizerRow(
        optimizers.Tiger,
        {
            "learning_rate": RATE,
            "beta": 0.5,
            "weight_decay": 0.25,
            "gradient_accumulation_steps": 2,
            "vector_lr_scale": 0.25,
            "min_rms": 0.5,
            "rowwise": "table",
            "nonfinite": "skip",
            "nonfinite_scope": "global",
            "lazy_rows": True,
            "clipnorm": 1.0,
            "use_ema": True,
        },
        TRAINING,
        "lazy",
    ),
    OptimizerRow(
        optimizers.Tiger,
        {
            "learning_rate": RATE,
            "gradient_accumulation_steps": 2,
            "min_rms": 0.0,
            "vector_vars": "bias|beta|gamma",
            "center_one_vars": "gamma",
            "nonfinite": "reference",
            "shrink_ratio": 0.5,
            "count_micro_steps": True,
        },
        TRAINING,
        "reference",
    ),
    OptimizerRow(
        optimizers.Tiger,
        {"learning_rate": RATE, "scale_parameter": False, "nonfinite": "propagate"},
        TRAINING,
        "unscaled",
    ),
    OptimizerRow(optimizers.NonFiniteGuard, {"inner_optimizer": base()}, TRAINING),
    OptimizerRow(
        optimizers.NonFiniteGuard,
        {
            "inner_optimizer": base(keras.optimizers.SGD, momentum=0.5, nesterov=True),
            "mode": "shrink",
            "shrink_ratio": 0.75,
        },
        TRAINING,
        "shrink",
    ),
    OptimizerRow(optimizers.GuardedLossScale, {"inner_optimizer": base()}, TRAINING),
    OptimizerRow(
        optimizers.GuardedLossScale,
        {
            "inner_optimizer": stack(),
            "initial_scale": 64.0,
            "dynamic_growth_steps": 2,
            "min_scale": 1.0,
            "max_scale": 128.0,
        },
        TRAINING,
        "stack",
    ),
    OptimizerRow(
        optimizers.GuardedLossScale,
        {
            "inner_optimizer": base(optimizers.Tiger, gradient_accumulation_steps=4),
            "dynamic": False,
            "initial_scale": 64.0,
        },
        TRAINING,
        "fixed",
    ),
    OptimizerRow(
        optimizers.GradientAccumulation,
        {"inner_optimizer": base(weight_decay=0.25, use_ema=True), "steps": 2},
        TRAINING,
    ),
    OptimizerRow(
        optimizers.ParameterwiseLR,
        {"inner_optimizer": base(), "rules": [["bias", 2.0], ["table|norm", 0.5]]},
        TRAINING,
    ),
    OptimizerRow(
        optimizers.ParameterwiseLR,
        {"inner_optimizer": base(), "rules": [["norm", 3.0]], "lazy_rows": "table"},
        TRAINING,
        "lazy",
    ),
    OptimizerRow(optimizers.LayerAdaptation, {"inner_optimizer": base()}, TRAINING),
    OptimizerRow(
        optimizers.LayerAdaptation,
        {
            "inner_optimizer": base(keras.optimizers.Lion),
            "exclude": "gamma",
            "clip": [0.25, None],
            "rowwise": "table",
        },
        TRAINING,
        "other",
    ),
    OptimizerRow(optimizers.Lookahead, {"inner_optimizer": base()}, TRAINING),
    OptimizerRow(
        optimizers.Lookahead,
        {
            "inner_optimizer": base(optimizers.Tiger, gradient_accumulation_steps=2),
            "sync_period": 2,
            "slow_step_size": 0.25,
        },
        TRAINING,
        "other",
    ),
    OptimizerRow(
        optimizers.SummedGradients,
        {"inner_optimizer": base(weight_decay=0.25, global_clipnorm=0.5)},
        TRAINING,
    ),
    ScheduleRow(optimizers.WarmupCosine, {"peak": 0.125, "steps": 9, "offset": 2}, TRAINING),
    ScheduleRow(optimizers.PiecewiseLinear, {"points": [[2, 0.125], [9, 0.0]]}, TRAINING),
    ScheduleRow(
        optimizers.PiecewiseLinear,
        {"points": [[1, 0.125], [3, 0.25]], "base": 0.5, "from_zero": False},
        TRAINING,
        "other",
    ),
]
ROWS += OPTIMIZER_ROWS
CLASS_ROWS = [row for row in ROWS if not isinstance(row, FunctionRow)]
LAYER_ROWS = [row for row in ROWS if isinstance(row, LayerRow)]
CALLED_ROWS = [row for row in ROWS if not isinstance(row, (OptimizerRow, PartRow))]


# One encoder of a class is compiled, that with the most parts: they differ little for XLA.
COMPILED_ROWS = list(
    {row.cls if row.cls.__name__.endswith("Encoder") else row: row for row in CALLED_ROWS}.values()
)
# Losses, metrics, functions and optimizers have no policy of their own.
SAVED = [(row, "float32") for row in ROWS]
SAVED += zip(LAYER_ROWS, itertools.cycle(harness.TOLERANCES), strict=False)


def rows(rows):
    return pytest.mark.parametrize("row", rows, ids=str)


@pytest.mark.slow
@pytest.mark.one_backend
@rows(CLASS_ROWS)
def test_config_is_complete_and_equal_to_what_was_passed(row):
    harness.check_config(row)


@pytest.mark.one_backend
@rows(CLASS_ROWS)
def test_numbers_of_numpy_are_those_of_python(row):
    harness.check_numpy_arguments(row)


@pytest.mark.one_backend
@pytest.mark.parametrize("cls", sorted({row.cls for row in CLASS_ROWS}, key=str))
def test_every_argument_is_passed_off_its_default_in_some_row(cls):
    harness.check_arguments_vary([row for row in ROWS if row.cls is cls])


@pytest.mark.one_backend
@rows(ROWS)
def test_registered_name(row):
    harness.check_registered_name(row)


@pytest.mark.slow
@pytest.mark.one_backend
@rows(LAYER_ROWS)
def test_build_alone_makes_every_weight(row):
    harness.check_build(row)


@pytest.mark.slow
@rows(CALLED_ROWS)
@pytest.mark.parametrize("policy", harness.POLICIES)
def test_output_has_the_promised_shape_and_dtype(row, policy):
    harness.check_output(row, policy)


@pytest.mark.slow
@rows(COMPILED_ROWS)
def test_xla_equals_eager_and_the_second_call_does_not_trace(row):
    harness.check_xla(row)


@pytest.mark.slow
@rows(CALLED_ROWS)
@pytest.mark.parametrize("policy", harness.TOLERANCES)
def test_half_precision_is_finite_and_near_float32(row, policy):
    harness.check_low_precision(row, policy)


@pytest.mark.slow
@pytest.mark.one_backend
@rows([row for row in LAYER_ROWS if harness.masks(row)])
def test_padding_changes_nothing(row):
    harness.check_padding(row)


@pytest.mark.slow
@rows(OPTIMIZER_ROWS)
def test_an_optimizer_steps_under_xla_as_in_eager_execution(row):
    harness_optimizers.check_compiled(row)


@pytest.mark.slow
@rows(OPTIMIZER_ROWS)
@pytest.mark.parametrize("policy", harness.TOLERANCES)
def test_an_optimizer_trains_in_half_precision_at_the_rate_that_is_set(row, policy):
    harness_optimizers.check_training(row, policy)


@pytest.fixture(scope="module")
def tensorflow():
    """A process that computes what rows give on TensorFlow."""
    with child.start(KERAS_BACKEND="tensorflow") as run:
        yield run


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="compares with TensorFlow")
@rows(CALLED_ROWS)
def test_value_and_gradient_are_those_of_tensorflow(row, tensorflow, tmp_path):
    path = tmp_path / "expected.npz"
    tensorflow("test_all.write_reference", row=str(row), path=str(path))
    harness.check_reference(row, path)


def write_reference(row, path):
    (row,) = (each for each in CALLED_ROWS if str(each) == row)
    harness.write_reference(row, path)


@pytest.mark.one_backend
def test_every_serialisable_object_is_in_the_table():
    for module in pkgutil.walk_packages(keras_ext.__path__, "keras_ext."):
        import_module(module.name)
    registered = {n for n in keras.saving.get_custom_objects() if n.startswith("keras_ext>")}
    # They are made around a user's model or loss, which the rows of the sweep would share: their own
    # tests save and load them, compile them and change their precision. (Around a denoiser that is a
    # function, as for AMEDTrainer and ReverseCovariance, a config is only what Keras can save of it.)
    apart = {
        "AMEDTrainer",
        "AutoencoderVQ",
        "CachedContrastiveModel",
        # Random numbers at inference, too, which are other ones on each backend.
        "MaskTokens",
        "MeanOverExamples",
        "ResidualQuantizer",
        "ReverseCovariance",
        "SelfPretrainer",
        "Views",
    }
    # No layer or model: see tests/diffusion/test_schedules.py and test_forward_processes.py.
    apart |= {
        cls.__name__ for cls in [*diffusion.schedules.NAMES.values(), diffusion.CustomSchedule]
    }
    # See tests/diffusion/test_interpolants.py.
    apart |= {cls.__name__ for cls in interpolants.NAMES.values()} | {"FunctionInterpolant"}
    apart |= {cls.__name__ for cls in diffusion.forward_processes.NAMES.values()}
    rows = {row.cls.__name__ for row in ROWS}
    assert not rows & apart
    assert registered == {f"keras_ext>{name}" for name in rows | apart}


@pytest.mark.one_backend
def test_every_public_class_with_a_config_is_registered():
    for package in (getattr(keras_ext, name) for name in keras_ext.__all__):
        for name in getattr(package, "__all__", ()):
            public = getattr(package, name)
            if isinstance(public, type) and hasattr(public, "get_config"):
                assert keras.saving.get_registered_name(public) == f"keras_ext>{name}"


@pytest.fixture(scope="module")
def fresh_process():
    """A process that knows the package's objects from `import keras_ext` alone."""
    with child.start() as run:
        yield run


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize(("row", "policy"), SAVED, ids=str)
def test_a_fresh_process_loads_what_was_saved_and_gives_the_same_bits(
    row, policy, fresh_process, tmp_path
):
    # Keras numbers the layers of a kind within a session.
    keras.utils.clear_session(free_memory=False)
    path = tmp_path / "model.keras"
    outputs = harness.save(row, policy, path)
    if isinstance(row, LayerRow):
        assert tensor_names.tensors(path) == tensor_names.golden(row), (
            "files that were saved before would not load any more: see tests/tensor_names.py"
        )
    fresh_process("reload_saved.write_outputs", path=str(path))
    loaded = dict(np.load(path.with_suffix(".outputs.npz")))
    assert loaded.keys() == outputs.keys()
    for name, output in outputs.items():
        np.testing.assert_array_equal(loaded[name], output, name)
