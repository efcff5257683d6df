"""Folders of the sentence-transformers library: which modules, with which settings."""

import keras
import numpy as np

from keras_ext.data import Tokenizer
from keras_ext.data.files import load_json, model_folder, path_inside, read_text
from keras_ext.models import encoder_from_huggingface
from keras_ext.models.checkpoint import NamedWeight, assign_weights
from keras_ext.models.safetensors_file import read_safetensors
from keras_ext.tasks.sentence_encoder import SentenceEncoder
from keras_ext.tasks.sentence_model import project

POOLINGS = {  # our name -> the flags of old files; new ones hold `pooling_mode`
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}
NAMES = {"lasttoken": "last"}
UNKNOWN = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")
SIMILARITIES = {None: "cosine", "cosine": "cosine", "dot": "dot"}
ROTARY_LENGTH = 1536  # Hugging Face's for a RoFormer, where the config has no other
ACTIVATIONS = {"Identity": "linear", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", None: "linear"}


def sentence_encoder_from_huggingface(folder, dtype=None, max_length=None):
    """A `SentenceEncoder` from a folder of the sentence-transformers library.

    The encoder inside is a BERT, ALBERT, ELECTRA or RoFormer (`models.encoder_from_huggingface`).
    `modules.json` says what stands there: pooling, projections (its Dense), normalisation, the
    length at which texts are cut and the similarity are taken over.

    Args:
        folder: path, with `modules.json`, `config.json`, `model.safetensors`, and `tokenizer.json`
            or `vocab.txt`.
        dtype: dtype policy of the encoder, or its name. Defaults to the global policy.
        max_length: int, tokens at which texts are cut. None: that of the folder.

    Returns:
        A `SentenceEncoder` that gives the same vectors.

    Raises:
        ValueError: if the folder holds another kind of encoder, module, pooling, activation or
            similarity, a default prompt, or a tokenizer that splits Chinese into words first (that
            of RoFormers whose vocabulary holds such words), which are not known here.

    Example:

    ```python
    encoder = sentence_encoder_from_huggingface("all-MiniLM-L6-v2", dtype="mixed_bfloat16")
    encoder.similarity(["How old are you?"], ["What is your age?"])
    ```
    """
    folder = model_folder(folder)
    modules = [
        (module["type"].rpartition(".")[2], path_inside(folder, module["path"], "modules.json"))
        for module in _modules(folder)
    ]
    kinds = [kind for kind, _ in modules]
    projected = kinds[2:-1] if kinds[-1] == "Normalize" else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(projected) - {"Dense"}:
        raise ValueError(
            "The modules known here are Transformer, Pooling, any number of Dense, and Normalize, "
            f"in this order. Received: {kinds} in {str(folder)!r}"
        )
    base = modules[0][1]
    config = _read(folder / "config_sentence_transformers.json", {})
    similarity, prompt = config.get("similarity_fn_name"), config.get("default_prompt_name")
    if similarity not in SIMILARITIES or prompt is not None:
        raise ValueError(
            f"Known here are the similarities {sorted(filter(None, SIMILARITIES))}, and no default "
            f"prompt. Received: similarity_fn_name={similarity!r}, default_prompt_name={prompt!r} "
            f"in {str(folder)!r}"
        )
    encoder = encoder_from_huggingface(base, dtype=dtype)
    settings = _read(base / "sentence_bert_config.json", {})
    normalize = kinds[-1] == "Normalize"
    sentences = SentenceEncoder(
        encoder,
        _tokenizer(base, settings),
        pooling=_pooling(modules[1][1]),
        normalize=normalize,
        score=SIMILARITIES[similarity],
        max_length=_longest(base, settings, encoder) if max_length is None else max_length,
    )
    for kind, place in modules:
        if kind == "Dense":
            sentences.model = project(sentences.model, _dense(place), normalize)
    return sentences


def _modules(folder):
    modules = _read(folder / "modules.json")
    if not isinstance(modules, list) or len(modules) < 2:
        raise ValueError(
            f"A folder of sentence-transformers lists its modules in modules.json, a Transformer "
            f"and a Pooling at least. Received: {modules!r:.80} in {str(folder)!r}"
        )
    return modules


def _read(path, default=None):
    """The content of a JSON file, or `default` where there is none."""
    if default is not None and not path.is_file():
        return default
    try:
        return load_json(read_text(path), path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}). Received: {str(path)!r}") from None


def _longest(folder, settings, encoder):
    """The number of tokens at which texts are cut."""
    positions = getattr(encoder, "max_sequence_length", None)
    if positions is None:  # rotary ones have no end, but the folder's have
        positions = _read(folder / "config.json").get("max_position_embeddings", ROTARY_LENGTH)
    # Old folders have it beside the model, new ones in the settings of the tokenizer.
    tokens = _read(folder / "tokenizer_config.json", {}).get("model_max_length")
    return int(min(settings.get("max_seq_length") or tokens or positions, positions))


def _tokenizer(folder, settings):
    if settings.get("do_lower_case", False):
        raise ValueError(
            "A text that is lowered before a tokenizer which keeps the case is not known here. "
            f"Received: do_lower_case=True in {str(folder)!r}"
        )
    return Tokenizer.from_huggingface(folder)


def _pooling(folder):
    config = _read(folder / "config.json")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [name for name, flag in POOLINGS.items() if config.get(flag)]
        modes += [flag for flag in UNKNOWN if config.get(flag)]
    modes = [NAMES.get(mode, mode) for mode in ([modes] if isinstance(modes, str) else modes)]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ValueError(
            f"The poolings known here are {sorted(POOLINGS)}, one of them. Received: {modes} in "
            f"{str(folder)!r}"
        )
    return modes[0]


def _dense(folder):
    """A projection with its weights, computed in float32."""
    config = _read(folder / "config.json")
    activation = config.get("activation_function", "Tanh")
    name = activation and activation.rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ValueError(
            f"The activations known here are {sorted(filter(None, ACTIVATIONS))}. "
            f"Received: {activation!r} in {str(folder)!r}"
        )
    weights = read_safetensors(folder)
    if np.ndim(weights.get("linear.weight")) != 2:
        raise ValueError(
            "Expected the matrix of a Dense as linear.weight. "
            f"Received: tensors={sorted(weights)} in {str(folder)!r}"
        )
    units, width = weights["linear.weight"].shape
    dense = keras.layers.Dense(
        units,
        activation=ACTIVATIONS[name],
        use_bias="linear.bias" in weights,
        dtype="float32",
        name=folder.name,
    )
    table = [NamedWeight(folder.name, "kernel", "linear.weight", True)]
    table += [NamedWeight(folder.name, "bias", "linear.bias")] if dense.use_bias else []
    assign_weights(keras.Sequential([keras.Input((width,)), dense]), table, weights)
    return dense
