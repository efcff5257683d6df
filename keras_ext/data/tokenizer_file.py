"""Reading a `tokenizer.json`, and what is wrong with one by its keys, which the library leaves out."""

import json

import tokenizers
from tokenizers import models

from keras_ext.files.json_fields import check_fields
from keras_ext.files.text_file import load_json, read_text

NAME = "tokenizer.json"
WORDS = {"vocab": "an object of integers", "unk_token": "a string"}
OPTIONAL_WORD = "a string or null"
SWITCH = "true, false or null"
# For each kind of model: the keys that it must have, and those that it may have.
MODELS = {
    "WordLevel": (WORDS, {}),
    "WordPiece": (
        {
            **WORDS,
            "continuing_subword_prefix": "a string",
            "max_input_chars_per_word": "a positive integer",
        },
        {},
    ),
    "BPE": (
        {"vocab": "an object of integers", "merges": "a list of strings or of lists"},
        {
            "unk_token": OPTIONAL_WORD,
            "continuing_subword_prefix": OPTIONAL_WORD,
            "end_of_word_suffix": OPTIONAL_WORD,
            "dropout": "a number or null",
            "fuse_unk": SWITCH,
            "byte_fallback": SWITCH,
            "ignore_merges": SWITCH,
        },
    ),
    "Unigram": (
        {"vocab": "a list of lists"},
        {"unk_id": "an integer or null", "byte_fallback": "true or false"},
    ),
}


def checked_backend(path):
    """The `tokenizers.Tokenizer` of a `tokenizer.json`.

    Args:
        path: The file.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        ValueError: If the file is no tokenizer; the message names it.
    """
    return backend_of_json(read_text(path), path)


def backend_of_json(text, source):
    """The `tokenizers.Tokenizer` of the text of a `tokenizer.json`.

    Args:
        text: JSON string.
        source: What the text is, for the message.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        ValueError: If the text is no tokenizer, or an added token has another id than it says.
    """
    content = load_json(text, f"{source}: not a tokenizer")
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more specific
        fault = fault_of(content, error)
        raise ValueError(f"{source}: not a tokenizer: {fault}. Received: {text!r:.80}") from None
    for added in content.get("added_tokens") or ():
        if backend.token_to_id(added["content"]) != added["id"]:
            raise ValueError(
                f"{source}: the added token {added['content']!r:.80} cannot have the id "
                f"{added['id']}: ids follow those of the vocabulary"
            )
    return backend


def check_unknown_token(backend):
    """Raises ValueError unless a tokenizer has a token for what its vocabulary does not hold.

    Args:
        backend: `tokenizers.Tokenizer`. Without this token it would fail, but only at a text.
    """
    model = backend.model
    if isinstance(model, models.Unigram):
        content = json.loads(backend.to_str())["model"]
        if content["unk_id"] is None and not content["byte_fallback"]:
            raise ValueError(
                'The tokenizer has no token for unknown words. In its file, "model.unk_id" should '
                "be the number of one in the vocabulary. Received: unk_id=None"
            )
    elif model.unk_token and model.token_to_id(model.unk_token) is None:
        raise ValueError(
            'The token for unknown words is not in the vocabulary. In the file, "model.unk_token" '
            f'should be a key of "model.vocab". Received: unk_token={model.unk_token!r}'
        )


def fault_of(content, error):
    """What is wrong with the JSON of no `tokenizer.json`, naming the key where possible.

    Args:
        content: the value that the file holds.
        error: what the library says of it.

    Returns:
        Str.

    Example:

    >>> fault_of({}, "?")
    'tokenizer.json lacks "model", which should be an object. Received: path=\\'tokenizer.json\\''
    """
    try:
        check_fields(content, NAME, {"model": "an object"})
        for key in sorted(set(content) - {"model"}):
            if _is_read({other: value for other, value in content.items() if other != key}):
                return f'In {NAME}, "{key}" is at fault ({error}). Received: {content[key]!r:.80}'
        model = content["model"]
        if "type" in model:
            check_fields(model, NAME, {"type": "a string"}, within="model")
            if model["type"] not in MODELS:
                raise ValueError(
                    f'In {NAME}, "model.type" should be one of {sorted(MODELS)}. '
                    f"Received: type={model['type']!r}"
                )
            check_fields(model, NAME, *MODELS[model["type"]], within="model")
    except ValueError as fault:
        return str(fault)
    return f'In {NAME}, "model" is at fault ({error})'


def _is_read(content):
    try:
        tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception:  # the library raises nothing more specific
        return False
    return True
