"""Pure tensor functions: masking, rotary positions, span scores."""

from keras_ext.ops.attention_scale import Cosine, GradMax, LogN, get_attention_scale
from keras_ext.ops.attention_scores import attention_scores
from keras_ext.ops.deepnorm import deepnorm_constants
from keras_ext.ops.factored_logsumexp import factored_logsumexp
from keras_ext.ops.labels import first_occurrences, mask_labels, span_labels
from keras_ext.ops.linear_recurrence import linear_recurrence
from keras_ext.ops.masking import (
    MASKED,
    float32_scores,
    is_masked,
    mask_scores,
    mask_value,
    masked_softmax,
)
from keras_ext.ops.near_rectangle import near_rectangle
from keras_ext.ops.nearest_code import nearest_code
from keras_ext.ops.pooling import pool
from keras_ext.ops.rotary import apply_rotary, rotary_angles
from keras_ext.ops.similarity import (
    angle_scores,
    cosine_scores,
    dot_scores,
    score_function,
    unit_vectors,
)
from keras_ext.ops.smooth import smooth
from keras_ext.ops.smooth_functions import (
    smooth_abs,
    smooth_ceil,
    smooth_clip,
    smooth_floor,
    smooth_leaky_relu,
    smooth_max,
    smooth_min,
    smooth_relu,
    smooth_round,
    smooth_sign,
    smooth_step,
)
from keras_ext.ops.span_scores import (
    dense_span_scores,
    factored_mask,
    float32_factors,
    split_factors,
    valid_pairs,
)

__all__ = [
    "Cosine",
    "GradMax",
    "LogN",
    "MASKED",
    "angle_scores",
    "apply_rotary",
    "attention_scores",
    "cosine_scores",
    "deepnorm_constants",
    "dense_span_scores",
    "dot_scores",
    "factored_logsumexp",
    "factored_mask",
    "first_occurrences",
    "float32_factors",
    "float32_scores",
    "get_attention_scale",
    "is_masked",
    "linear_recurrence",
    "mask_labels",
    "mask_scores",
    "mask_value",
    "masked_softmax",
    "near_rectangle",
    "nearest_code",
    "pool",
    "rotary_angles",
    "score_function",
    "smooth",
    "smooth_abs",
    "smooth_ceil",
    "smooth_clip",
    "smooth_floor",
    "smooth_leaky_relu",
    "smooth_max",
    "smooth_min",
    "smooth_relu",
    "smooth_round",
    "smooth_sign",
    "smooth_step",
    "span_labels",
    "split_factors",
    "unit_vectors",
    "valid_pairs",
]
