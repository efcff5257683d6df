"""Folders of the sentence-transformers library: which modules, with which settings."""

import json
import re
from pathlib import Path

import keras
import numpy as np

from keras_ext.data import Tokenizer
from keras_ext.files.json_fields import check_fields
from keras_ext.files.replaced_files import current_file
from keras_ext.models import RoFormerEncoder, encoder_from_huggingface
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
# Tokenizers that look whole words up before they split them; the first is what a RoFormer has
# where the folder does not say.
BY_WORDS = (None, "RoFormerTokenizer", "RoFormerTokenizerFast")
CHINESE_WORD = re.compile("[\u3400-\u9fff]{2,}")
# What keys of each file should be, where it has them: `json_fields.KINDS`.
MODULE = {"type": "a string", "path": "a string"}
MODULE_OPTIONAL = {"idx": "an integer", "name": "a string"}
WHOLE = {
    "similarity_fn_name": "a string or null",
    "default_prompt_name": "a string or null",
    "prompts": "an object of strings",
}
CUT = {"max_seq_length": "a positive integer or null", "do_lower_case": "true, false or null"}
POSITIONS = {"max_position_embeddings": "a positive integer"}
TOKENS = {
    "model_max_length": "a positive number or null",  # "no limit" is written as 1e30
    "do_lower_case": "true or false",
    "tokenizer_class": "a string or null",
}
POOL = {
    "pooling_mode": "a string or a list of strings",
    **dict.fromkeys((*POOLINGS.values(), *UNKNOWN), "true or false"),
}
PROJECTION = {
    "in_features": "a positive integer",
    "out_features": "a positive integer",
    "bias": "true or false",
    "activation_function": "a string or null",
}
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
    folder = Path(folder)
    modules = [(module["type"].rpartition(".")[2], module["path"]) for module in _modules(folder)]
    kinds = [kind for kind, _ in modules]
    projected = kinds[2:-1] if kinds[-1] == "Normalize" else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(projected) - {"Dense"}:
        raise ValueError(
            "The modules known here are Transformer, Pooling, any number of Dense, and Normalize, "
            f"in this order. Received: type={kinds} in {str(folder / 'modules.json')!r}"
        )
    base = folder / modules[0][1]
    config = _read(folder / "config_sentence_transformers.json", WHOLE, {})
    similarity, prompt = config.get("similarity_fn_name"), config.get("default_prompt_name")
    if similarity not in SIMILARITIES or prompt is not None:
        raise ValueError(
            f"Known here are the similarities {sorted(filter(None, SIMILARITIES))}, and no default "
            f"prompt. Received: similarity_fn_name={similarity!r}, default_prompt_name={prompt!r} "
            f"in {str(folder / 'config_sentence_transformers.json')!r}"
        )
    cut = _read(base / "sentence_bert_config.json", CUT, {})
    tokens = _read(base / "tokenizer_config.json", TOKENS, {})
    pooling = _pooling(folder / modules[1][1])
    projections = [
        (folder / path, _projection(folder / path)) for kind, path in modules[2:] if kind == "Dense"
    ]
    # All small files are read: what is slow comes after the errors.
    encoder = encoder_from_huggingface(base, dtype=dtype)
    normalize = kinds[-1] == "Normalize"
    sentences = SentenceEncoder(
        encoder,
        _tokenizer(base, cut, tokens, encoder),
        pooling=pooling,
        normalize=normalize,
        score=SIMILARITIES[similarity],
        max_length=_longest(base, cut, tokens, encoder) if max_length is None else max_length,
    )
    for path, config in projections:
        sentences.model = project(sentences.model, _dense(path, config), normalize)
    return sentences


def _modules(folder):
    path = folder / "modules.json"
    modules = _read_json(path)
    if not isinstance(modules, list) or len(modules) < 2:
        raise ValueError(
            f"A folder of sentence-transformers lists its modules in modules.json, a Transformer "
            f"and a Pooling at least. Received: {modules!r:.80} in {str(folder)!r}"
        )
    for number, module in enumerate(modules):
        check_fields(module, path, MODULE, MODULE_OPTIONAL, within=f"[{number}]")
    return modules


def _read(path, fields, default=None):
    """The object in a JSON file, or `default` where there is none; the fields it has are checked."""
    if default is not None and not path.is_file():
        return default
    content = _read_json(path)
    check_fields(content, path, {}, fields)
    return content


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}). Received: {str(path)!r}") from None


def _longest(folder, cut, tokens, encoder):
    """The number of tokens at which texts are cut."""
    positions = getattr(encoder, "max_sequence_length", None)
    if positions is None:  # rotary ones have no end, but the folder's have
        config = _read(current_file(folder, "config.json"), POSITIONS)
        positions = config.get("max_position_embeddings", ROTARY_LENGTH)
    # Old folders have it beside the model, new ones in the settings of the tokenizer.
    limit = cut.get("max_seq_length") or tokens.get("model_max_length") or positions
    return int(min(limit, positions))


def _tokenizer(folder, cut, tokens, encoder):
    if cut.get("do_lower_case"):
        raise ValueError(
            "A text that is lowered before a tokenizer which keeps the case is not known here. "
            f"Received: do_lower_case=True in {str(folder)!r}"
        )
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    elif (folder / "vocab.txt").is_file():
        lowercase = tokens.get("do_lower_case", True)
        tokenizer = Tokenizer.from_vocab(folder / "vocab.txt", lowercase)
    else:
        raise ValueError(
            "Expected the tokenizer as tokenizer.json or vocab.txt; a fast tokenizer of Hugging Face "
            f"writes the former. Received: neither of them in {str(folder)!r}"
        )
    by_words = isinstance(encoder, RoFormerEncoder) and tokens.get("tokenizer_class") in BY_WORDS
    model = json.loads(tokenizer.to_json())["model"]
    if (
        by_words
        and model["type"] == "WordPiece"
        and any(map(CHINESE_WORD.fullmatch, model["vocab"]))
    ):
        raise ValueError(
            "A tokenizer that splits Chinese into words (by jieba) before it looks them up is not "
            "known here: it would give other tokens. "
            f"Received: tokenizer_class={tokens.get('tokenizer_class')!r} in {str(folder)!r}"
        )
    return tokenizer


def _pooling(folder):
    config = _read(folder / "config.json", POOL)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [name for name, flag in POOLINGS.items() if config.get(flag)]
        modes += [flag for flag in UNKNOWN if config.get(flag)]
    modes = [NAMES.get(mode, mode) for mode in ([modes] if isinstance(modes, str) else modes)]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ValueError(
            f"The poolings known here are {sorted(POOLINGS)}, one of them. "
            f"Received: pooling_mode={modes} in {str(folder / 'config.json')!r}"
        )
    return modes[0]


def _projection(folder):
    """What the file of a projection says, with a known activation."""
    path = folder / "config.json"
    config = _read(path, PROJECTION)
    activation = config.get("activation_function", "Tanh")
    name = activation and activation.rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ValueError(
            f"The activations known here are {sorted(filter(None, ACTIVATIONS))}. "
            f"Received: activation_function={activation!r} in {str(path)!r}"
        )
    return {**config, "activation": ACTIVATIONS[name]}


def _dense(folder, config):
    """A projection with its weights, computed in float32."""
    weights = read_safetensors(folder)
    if np.ndim(weights.get("linear.weight")) != 2:
        raise ValueError(
            "A Dense of sentence-transformers has a matrix linear.weight, and maybe linear.bias. "
            f"Received: { ({name: x.shape for name, x in weights.items()}) } in {str(folder)!r}"
        )
    kernel, bias = weights["linear.weight"].T, weights.get("linear.bias")
    found = {"in_features": kernel.shape[0], "out_features": kernel.shape[-1]}
    found["bias"] = bias is not None
    for key, value in found.items():
        if config.get(key, value) != value:
            raise ValueError(
                f'In config.json, "{key}" should be {value!r}, as the tensors say. '
                f"Received: {key}={config[key]!r} in {str(folder)!r}"
            )
    dense = keras.layers.Dense(
        kernel.shape[1],
        activation=config["activation"],
        use_bias=bias is not None,
        dtype="float32",
        name=folder.name,
    )
    dense.build((None, kernel.shape[0]))
    dense.set_weights([kernel] if bias is None else [kernel, bias])
    return dense
