"""What each weight of an encoder is called in the files that others write, as data.

One table for each encoder, in bert4keras' order: layer by layer, within an attention query, key,
value, output, kernels before biases, beta before gamma. A row is a layer ("{i}" stands for the
number of a block), the path of the variable in it, Google's name in TensorFlow checkpoints, and
Hugging Face's; None where they have no such tensor. Two rules complete the rows: Hugging Face keeps
every kernel transposed, and Google the matrix `cls/seq_relationship/output_weights`.
"""

from keras_ext.checkpoints.assign import WeightName
from keras_ext.models.albert import AlbertEncoder
from keras_ext.models.albert_unshared import AlbertUnsharedEncoder
from keras_ext.models.bert import BertEncoder
from keras_ext.models.electra import ElectraEncoder
from keras_ext.models.gau_alpha import GAUAlphaEncoder
from keras_ext.models.nezha import NezhaEncoder
from keras_ext.models.roformer import RoFormerEncoder
from keras_ext.models.roformer_v2 import RoFormerV2Encoder

GOOGLE, HUGGINGFACE = 2, 3  # the columns of a row
COLUMNS = {"google": GOOGLE, "huggingface": HUGGINGFACE}


def _dense(layer, part, google, huggingface):
    return (
        (layer, f"{part}kernel", f"{google}/kernel", f"{huggingface}.weight"),
        (layer, f"{part}bias", f"{google}/bias", f"{huggingface}.bias"),
    )


def _norm(layer, google, huggingface):
    return (
        (layer, "beta", f"{google}/beta", f"{huggingface}.bias"),
        (layer, "gamma", f"{google}/gamma", f"{huggingface}.weight"),
    )


def _block(layer, names):
    """The rows of a block; `names` are Google's and Hugging Face's of its eight parts in order."""
    attention, feed_forward = f"{layer}-MultiHeadSelfAttention", f"{layer}-FeedForward"
    query, key, value, output, attention_norm, intermediate, feed_forward_output, norm = names
    return (
        *_dense(attention, "query_dense.", *query),
        *_dense(attention, "key_dense.", *key),
        *_dense(attention, "value_dense.", *value),
        *_dense(attention, "output_dense.", *output),
        *_norm(f"{attention}-Norm", *attention_norm),
        *_dense(feed_forward, "intermediate_dense.", *intermediate),
        *_dense(feed_forward, "output_dense.", *feed_forward_output),
        *_norm(f"{feed_forward}-Norm", *norm),
    )


def _renamed(rows, column, beginnings):
    """The rows with the beginnings of their names in a column replaced, one after the other."""
    for old, new in beginnings.items():
        names = [row[column] or "" for row in rows]
        names = [new + n.removeprefix(old) if n.startswith(old) else n or None for n in names]
        rows = [_named(row, column, name) for row, name in zip(rows, names, strict=True)]
    return tuple(rows)


def _unnamed(rows, column):
    return tuple(_named(row, column, None) for row in rows)


def _named(row, column, name):
    return *row[:column], name, *row[column + 1 :]


def _without_offsets(rows):
    """The rows of an encoder whose layers have no biases and whose norms have no weights."""
    return tuple(row for row in rows if not row[1].endswith(("beta", "gamma", "bias")))


# === The parts of BERT ===
def _table(layer, name):
    names = f"bert/embeddings/{name}", f"bert.embeddings.{name}.weight"
    return ((layer, "embeddings", *names),)


TOKEN = _table("Embedding-Token", "word_embeddings")
SEGMENT = _table("Embedding-Segment", "token_type_embeddings")
POSITION = _table("Embedding-Position", "position_embeddings")
NORM = _norm("Embedding-Norm", "bert/embeddings/LayerNorm", "bert.embeddings.LayerNorm")
MAPPING = _dense(
    "Embedding-Mapping", "", "bert/encoder/embedding_hidden_mapping_in", "bert.embeddings_project"
)
PARTS = (
    ("attention/self/query", "attention.self.query"),
    ("attention/self/key", "attention.self.key"),
    ("attention/self/value", "attention.self.value"),
    ("attention/output/dense", "attention.output.dense"),
    ("attention/output/LayerNorm", "attention.output.LayerNorm"),
    ("intermediate/dense", "intermediate.dense"),
    ("output/dense", "output.dense"),
    ("output/LayerNorm", "output.LayerNorm"),
)
BLOCK = _block(
    "Transformer-{i}",
    [(f"bert/encoder/layer_{{i}}/{g}", f"bert.encoder.layer.{{i}}.{h}") for g, h in PARTS],
)
POOLER = _dense("Pooler-Dense", "", "bert/pooler/dense", "bert.pooler.dense")
NSP = tuple(
    ("NSP-Proba", attribute, f"cls/seq_relationship/{g}", f"cls.seq_relationship.{h}")
    for attribute, g, h in (("kernel", "output_weights", "weight"), ("bias", "output_bias", "bias"))
)
TRANSFORM = "cls/predictions/transform", "cls.predictions.transform"
MLM = (
    *_dense("MLM-Dense", "", f"{TRANSFORM[0]}/dense", f"{TRANSFORM[1]}.dense"),
    *_norm("MLM-Norm", f"{TRANSFORM[0]}/LayerNorm", f"{TRANSFORM[1]}.LayerNorm"),
    ("MLM-Bias", "beta", "cls/predictions/output_bias", "cls.predictions.bias"),
)
HEADS = *POOLER, *NSP, *MLM

# === BERT: a mapping of its embedding is known to bert4keras only ===
EMBEDDING = *TOKEN, *SEGMENT, *POSITION, *NORM
BERT = *EMBEDDING, *_unnamed(MAPPING, HUGGINGFACE), *BLOCK, *HEADS

# === ALBERT: one tensor serves all blocks, which are one layer or (unshared) many ===
ALBERT_PARTS = (
    ("attention_1/self/query", "attention.query"),
    ("attention_1/self/key", "attention.key"),
    ("attention_1/self/value", "attention.value"),
    ("attention_1/output/dense", "attention.dense"),
    ("LayerNorm", "attention.LayerNorm"),
    ("ffn_1/intermediate/dense", "ffn"),
    ("ffn_1/intermediate/output/dense", "ffn_output"),
    ("LayerNorm_1", "full_layer_layer_norm"),
)
GROUP = "bert/encoder/transformer/group_0/inner_group_0"
ALBERT_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"


def _albert(layer):
    block = _block(layer, [(f"{GROUP}/{g}", f"{ALBERT_LAYER}.{h}") for g, h in ALBERT_PARTS])
    beginnings = {
        "bert.embeddings_project": "albert.encoder.embedding_hidden_mapping_in",
        "bert.pooler.dense": "albert.pooler",
        "bert.": "albert.",
        "cls.seq_relationship": "sop_classifier.classifier",
        "cls.predictions.transform": "predictions",
        "cls.predictions": "predictions",
    }
    return _renamed((*EMBEDDING, *MAPPING, *block, *HEADS), HUGGINGFACE, beginnings)


ALBERT = _albert("Transformer")
ALBERT_UNSHARED = _albert("Transformer-{i}")

# === NEZHA: the table of relative positions is computed, no checkpoint has it ===
NEZHA = _unnamed((*TOKEN, *SEGMENT, *NORM, *MAPPING, *BLOCK, *HEADS), HUGGINGFACE)

# === RoFormer: Hugging Face's has no pooler ===
HUGGINGFACE_HEADS = *_unnamed((*POOLER, *NSP), HUGGINGFACE), *MLM
ROFORMER = _renamed(
    (*TOKEN, *SEGMENT, *NORM, *MAPPING, *BLOCK, *HUGGINGFACE_HEADS),
    HUGGINGFACE,
    {"bert.": "roformer."},
)

# === RoFormerV2 and GAU-alpha: no biases, and in no checkpoint a mapping of the output ===
ROFORMER_V2 = _unnamed(_without_offsets((*TOKEN, *SEGMENT, *MAPPING, *BLOCK)), HUGGINGFACE)

UNIT = "GAU_alpha/encoder/layer_{i}/gau"
GAU = tuple(
    ("Transformer-{i}-GatedAttentionUnit", attribute, f"{UNIT}/{name}", None)
    for attribute, name in (
        ("input_dense.kernel", "i_dense/kernel"),
        ("query_scale_offset.gamma", "q_scaleoffset/gamma"),
        ("key_scale_offset.gamma", "k_scaleoffset/gamma"),
        ("output_dense.kernel", "o_dense/kernel"),
    )
)
GAU_ALPHA = *_unnamed((*TOKEN, *SEGMENT), HUGGINGFACE), *GAU

# === ELECTRA: the discriminator ===
DISCRIMINATOR = "discriminator_predictions"
ELECTRA = (
    *_renamed(
        _renamed((*EMBEDDING, *MAPPING, *BLOCK), HUGGINGFACE, {"bert.": "electra."}),
        GOOGLE,
        {
            "bert/encoder/embedding_hidden_mapping_in": "electra/embeddings_project",
            "bert/": "electra/",
        },
    ),
    *_dense("Discriminator-Dense", "", f"{DISCRIMINATOR}/dense", f"{DISCRIMINATOR}.dense"),
    *_dense(
        "Discriminator-Prediction",
        "",
        f"{DISCRIMINATOR}/dense_1",
        f"{DISCRIMINATOR}.dense_prediction",
    ),
)

TABLES = {
    AlbertEncoder: ALBERT,
    AlbertUnsharedEncoder: ALBERT_UNSHARED,
    BertEncoder: BERT,
    ElectraEncoder: ELECTRA,
    GAUAlphaEncoder: GAU_ALPHA,
    NezhaEncoder: NEZHA,
    RoFormerEncoder: ROFORMER,
    RoFormerV2Encoder: ROFORMER_V2,
}


def weight_names(encoder, column):
    """The table of an encoder: what each of its weights is called in the files of others.

    Args:
        encoder: encoder, or its class; or another `keras.Model` with layers of the same names and
            the attribute `weight_names`, a dict from columns to such tables.
        column: "google" or "huggingface".

    Returns:
        Tuple of `WeightName`, empty for an encoder that no such file can hold.

    Raises:
        ValueError: for another model or column.

    Example:

    >>> weight_names(BertEncoder, "google")[0].name
    'bert/embeddings/word_embeddings'
    """
    if column not in COLUMNS:
        raise ValueError(f"Expected a column of {list(COLUMNS)}. Received: {column=}")
    if hasattr(encoder, "weight_names"):
        return encoder.weight_names[column]
    kind = encoder if isinstance(encoder, type) else type(encoder)
    table = next((TABLES[base] for base in kind.__mro__ if base in TABLES), None)
    if table is None:
        raise ValueError(
            "The model is no encoder whose names are known; give the table of names, a tuple of "
            f"`WeightName`. Received: model={getattr(encoder, 'name', encoder)}"
        )
    # All names and shapes may fit, but the files of others hold post-norm encoders.
    if getattr(encoder, "residual", "post") != "post":
        return ()
    return tuple(
        WeightName(row[0], row[1], row[COLUMNS[column]], _is_transposed(row, column))
        for row in table
        if row[COLUMNS[column]] is not None
    )


def _is_transposed(row, column):
    if column == "google":
        return row[GOOGLE] == "cls/seq_relationship/output_weights"
    return row[1].endswith("kernel")
