"""The small files of a folder of sentence-transformers: which modules, with which settings."""

from pathlib import Path
from typing import NamedTuple

from keras_ext.files.json_fields import check_fields
from keras_ext.files.text_file import load_json, path_inside, read_text

POOLINGS = {  # our name -> the flags of old files; new ones hold `pooling_mode`
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}
NAMES = {"lasttoken": "last"}
UNKNOWN = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")
SIMILARITIES = {None: "cosine", "cosine": "cosine", "dot": "dot"}
ACTIVATIONS = {"Identity": "linear", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", None: "linear"}

# What keys of each file should be, where it has them: `json_fields.KINDS`.
MODULE = {"type": "a string", "path": "a string"}
MODULE_OPTIONAL = {"idx": "an integer", "name": "a string"}
WHOLE = {
    "similarity_fn_name": "a string or null",
    "default_prompt_name": "a string or null",
    "prompts": "an object of strings",
}
TEXTS = {"max_seq_length": "a positive integer or null", "do_lower_case": "true, false or null"}
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


class FolderSettings(NamedTuple):
    """What the small files of a folder say.

    Attributes:
        encoder: path of the encoder's folder.
        pooling: str, mode of `layers.Pooling`.
        projections: list of tuples, the path of a Dense and the dict of its file, with an
            `activation` of Keras.
        normalize: bool, whether vectors get length 1.
        score: str, "cosine" or "dot".
        texts: dict, how the encoder takes texts (`sentence_bert_config.json`).
        tokens: dict, the settings of the tokenizer.
    """

    encoder: Path
    pooling: str
    projections: list
    normalize: bool
    score: str
    texts: dict
    tokens: dict


def read_settings(folder):
    """Reads the small files of a folder.

    Args:
        folder: path.

    Returns:
        `FolderSettings`.

    Raises:
        ValueError: naming file and key, if one of them has the wrong type or a value that is not
            known here.
    """
    modules = [(module["type"].rpartition(".")[2], module["path"]) for module in _modules(folder)]
    kinds = [kind for kind, _ in modules]
    normalize = kinds[-1] == "Normalize"
    projected = kinds[2:-1] if normalize else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(projected) - {"Dense"}:
        raise ValueError(
            "The modules known here are Transformer, Pooling, any number of Dense, and Normalize, "
            f"in this order. Received: type={kinds} in {str(folder / 'modules.json')!r}"
        )
    paths = [path_inside(folder, path, "modules.json") for _, path in modules]
    return FolderSettings(
        encoder=paths[0],
        pooling=_pooling(paths[1]),
        projections=[(path, _projection(path)) for path in paths[2 : 2 + len(projected)]],
        normalize=normalize,
        score=_score(folder),
        texts=read_fields(paths[0] / "sentence_bert_config.json", TEXTS, {}),
        tokens=read_fields(paths[0] / "tokenizer_config.json", TOKENS, {}),
    )


def _score(folder):
    path = folder / "config_sentence_transformers.json"
    config = read_fields(path, WHOLE, {})
    similarity, prompt = config.get("similarity_fn_name"), config.get("default_prompt_name")
    if similarity not in SIMILARITIES or prompt is not None:
        raise ValueError(
            f"Known here are the similarities {sorted(filter(None, SIMILARITIES))}, and no default "
            f"prompt. Received: similarity_fn_name={similarity!r}, default_prompt_name={prompt!r} "
            f"in {str(path)!r}"
        )
    return SIMILARITIES[similarity]


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


def _pooling(folder):
    config = read_fields(folder / "config.json", POOL)
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
    config = read_fields(path, PROJECTION)
    activation = config.get("activation_function", "Tanh")
    name = activation and activation.rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ValueError(
            f"The activations known here are {sorted(filter(None, ACTIVATIONS))}. "
            f"Received: activation_function={activation!r} in {str(path)!r}"
        )
    return {**config, "activation": ACTIVATIONS[name]}


def read_fields(path, fields, default=None):
    """The object in a JSON file.

    Args:
        path: path of the file.
        fields: dict from keys that it may have to what they should be, keys of `json_fields.KINDS`.
        default: dict, what there is where the file is not. None: an error.

    Returns:
        A dict.

    Raises:
        ValueError: naming the file, and the key if one of these is something else.
    """
    if default is not None and not path.is_file():
        return default
    content = _read_json(path)
    check_fields(content, path, {}, fields)
    return content


def _read_json(path):
    try:
        return load_json(read_text(path), path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}). Received: {str(path)!r}") from None
