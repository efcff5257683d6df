"""The names of tensors are those that others write.

tests/golden/checkpoint_names.txt lists them with shapes for one layer, 2 heads and the sizes below:
Google's from bert4keras 0.11.5 (GAU-alpha's from its repository), `model.variable_mapping()` with
the shapes of `model.layers[layer].trainable_weights`; Hugging Face's from transformers 5.23.0, the
`state_dict()` of `BertForPreTraining`, `AlbertForPreTraining`, `ElectraForPreTraining` and
`RoFormerForMaskedLM`, without the tied decoders and the constant positions.
"""

from operator import attrgetter
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_ext import models
from keras_ext.checkpoints import names_in
from keras_ext.checkpoints.name_lookup import absent_names
from keras_ext.checkpoints.name_tables import weight_names
from tests.models.tiny_encoders import ENCODERS, HEADS, PRETRAINING, SIZES

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoint_names.txt"
# Each with one weight that no file has.
NAMELESS = {"Embedding-Relative-Position", "Output-Mapping"}
HUGGINGFACE = {
    models.BertEncoder: {"embedding_dim": None},
    models.AlbertEncoder: {},
    models.ElectraEncoder: {},
    models.RoFormerEncoder: {"with_pool": False, "with_nsp": False},
}


def listed(model, column):
    """Lines such as those of the golden file."""
    lines = []
    for row in names_in(model, column):
        shape = tuple(row.variable(model).shape)[:: -1 if row.transpose else 1]
        lines.append(f"{type(model).__name__} {column} {row.name} {shape}")
    return sorted(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "column", "arguments"),
    [
        *((encoder, "google", arguments) for encoder, arguments in ENCODERS.items()),
        *(
            (encoder, "huggingface", {**ENCODERS[encoder], **a})
            for encoder, a in HUGGINGFACE.items()
        ),
    ],
)
def test_names_and_shapes_are_those_of_the_other_program(encoder, column, arguments):
    start = f"{encoder.__name__} {column} "
    expected = [line for line in GOLDEN.read_text("utf-8").splitlines() if line.startswith(start)]
    model = encoder(**SIZES, **arguments)
    assert listed(model, column) == expected and len(expected) > 5


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_weight_has_one_row_and_rows_stand_in_the_order_of_bert4keras(encoder):
    model = encoder(**{**SIZES, "num_layers": 11}, **ENCODERS[encoder])
    rows = names_in(model, "google")
    nameless = NAMELESS & {layer.name for layer in model.layers}
    assert len({(row.layer, row.attribute) for row in rows}) == len(rows)
    assert len(rows) == len(model.weights) - len(nameless)
    weighty = {layer.name for layer in model.layers if layer.weights}
    assert {row.layer for row in rows} == weighty - nameless
    for layer in model.layers:
        own = [row.attribute for row in rows if row.layer == layer.name]
        if isinstance(layer, keras.layers.LayerNormalization):
            assert own == ["beta", "gamma"]
        elif "Attention" in layer.name and "Norm" not in layer.name and layer.weights:
            # Our layers create their weights in that order.
            paths = [attrgetter(attribute)(layer).path for attribute in own]
            assert paths == [weight.path for weight in layer.weights]


@pytest.mark.slow
def test_blocks_come_in_numeric_order():
    model = models.RoFormerV2Encoder(**{**SIZES, "num_layers": 11}, **HEADS)
    layers = [
        row.layer for row in names_in(model, "google") if row.attribute == "query_dense.kernel"
    ]
    assert layers == [f"Transformer-{i}-MultiHeadSelfAttention" for i in range(11)]


def test_a_model_around_the_layers_has_the_same_names():
    encoder = models.BertEncoder(**SIZES, **HEADS, **PRETRAINING)
    flat = keras.Model(encoder.input, encoder.output["mlm"])
    with pytest.raises(ValueError, match="no encoder whose names"):
        names_in(flat, "google")
    expected = [row for row in names_in(encoder, "google") if row.layer in _layers(flat)]
    table = weight_names(models.BertEncoder, "google")
    assert names_in(flat, table) == expected and len(expected) == 26
    assert absent_names(flat, table) == (
        "bert/pooler/dense/kernel",
        "bert/pooler/dense/bias",
        "cls/seq_relationship/output_weights",
        "cls/seq_relationship/output_bias",
    )


def _layers(model):
    return {layer.name for layer in model.layers}


def test_unshared_blocks_of_an_albert_share_a_name():
    blocks = models.BertEncoder(**{**SIZES, "num_layers": 2}, **HEADS)
    table = names_in(blocks, weight_names(models.AlbertUnsharedEncoder, "google"))
    queries = [row for row in table if row.attribute == "query_dense.kernel"]
    assert len(queries) == 2 and len({row.name for row in queries}) == 1
    assert queries[0].name in {row.name for row in weight_names(models.AlbertEncoder, "google")}


def test_what_an_encoder_lacks_may_be_left_over():
    encoder = models.ElectraEncoder(**SIZES, **HEADS, num_segments=0)
    assert absent_names(encoder, "huggingface") == (
        "electra.embeddings.token_type_embeddings.weight",
        "discriminator_predictions.dense.weight",
        "discriminator_predictions.dense.bias",
        "discriminator_predictions.dense_prediction.weight",
        "discriminator_predictions.dense_prediction.bias",
    )


def test_only_the_kernels_of_hugging_face_and_one_matrix_of_google_are_transposed():
    encoder = models.BertEncoder(**SIZES, **HEADS, **PRETRAINING)
    transposed = [row.name for row in names_in(encoder, "google") if row.transpose]
    assert transposed == ["cls/seq_relationship/output_weights"]
    for row in names_in(encoder, "huggingface"):
        matrix = np.ndim(row.variable(encoder)) == 2 and "embeddings" not in row.name
        assert row.transpose == matrix


def test_another_column_is_refused():
    encoder = models.BertEncoder(**SIZES, **HEADS)
    for function in (names_in, absent_names):
        with pytest.raises(ValueError, match="Received: column='bert4keras'"):
            function(encoder, "bert4keras")
