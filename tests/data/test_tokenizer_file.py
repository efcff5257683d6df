"""Each key of a `tokenizer.json` with every wrong type, and without: the error names it."""

import json

import pytest
import tokenizers
from tokenizers import models

from keras_ext.data import Tokenizer

VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "red": 4}
MODELS = {
    "WordPiece": models.WordPiece(VOCABULARY, unk_token="[UNK]"),
    "WordLevel": models.WordLevel(VOCABULARY, unk_token="[UNK]"),
    "BPE": models.BPE(VOCABULARY, [], unk_token="[UNK]"),
    "Unigram": models.Unigram([(word, 0.0) for word in VOCABULARY], unk_id=1),
}
VALUES = [None, True, 5, -1, 1.5, "spam", [], [1], {}, {"a": "b"}]


def content_of(kind):
    backend = tokenizers.Tokenizer(MODELS[kind])
    backend.add_special_tokens(["[PAD]"])
    return json.loads(backend.to_str())


def works(content):
    """Whether the library reads a file, and a text with unknown words by it."""
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        backend.encode("red \u2603", add_special_tokens=False)
    except Exception:
        return False
    return True


def changed(part, key):
    """The part with each other value of a key, and without it."""
    for value in VALUES:
        if value != part[key] or type(value) is not type(part[key]):
            yield {**part, key: value}
    yield {other: value for other, value in part.items() if other != key}


def check(tmp_path, contents, key):
    """A file that does not work is refused, naming file and key; the number of those."""
    path = tmp_path / "a" / "tokenizer.json"
    path.parent.mkdir()
    refused = 0
    for content in contents:
        path.write_text(json.dumps(content))
        if works(content):
            Tokenizer.from_file(path)
        else:
            with pytest.raises(ValueError, match=key) as raised:
                Tokenizer.from_file(path)
            assert str(path) in str(raised.value)
            refused += 1
    return refused


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind in MODELS for key in content_of(kind)["model"]]
)
def test_each_key_of_the_model(tmp_path, kind, key):
    content = content_of(kind)
    models = changed(content["model"], key)
    # What is no matter of types ("unk_id" of no word) the library says, of the model.
    name = '"model' if key in ("unk_id", "vocab") and kind == "Unigram" else rf'"model\.{key}"'
    if kind != "Unigram":
        name = {"vocab": r'"model\.(vocab|unk_token)"|in the vocabulary', "dropout": '"model'}.get(
            key, name
        )
    assert check(tmp_path, ({**content, "model": model} for model in models), name) >= 4


@pytest.mark.parametrize("key", [key for key in content_of("WordPiece") if key != "model"])
def test_each_other_key(tmp_path, key):
    assert check(tmp_path, changed(content_of("WordPiece"), key), f'"{key}"') >= 7


@pytest.mark.parametrize("kind", MODELS)
def test_without_a_model(tmp_path, kind):
    content = content_of(kind)
    assert check(tmp_path, changed(content, "model"), '"model') == len(VALUES) + 1


@pytest.mark.parametrize("kind", ["WordPiece", "WordLevel", "BPE"])
def test_a_token_for_unknown_words_that_is_not_in_the_vocabulary(kind):
    content = content_of(kind)
    content["model"]["unk_token"] = "[NONE]"
    with pytest.raises(ValueError, match=r"model\.unk_token.*Received: unk_token='\[NONE\]'"):
        Tokenizer.from_json(json.dumps(content))
    with pytest.raises(ValueError, match="not in the vocabulary"):
        Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)))


def test_a_tokenizer_that_needs_no_token_for_unknown_words():
    content = content_of("BPE")
    content["model"]["unk_token"] = None
    assert Tokenizer.from_json(json.dumps(content)).encode("\u2603").ids.size == 0


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "[" * 100_000, "{" * 9, '{"model": '])
def test_what_is_no_json_object(text):
    with pytest.raises(ValueError, match="not a tokenizer"):
        Tokenizer.from_json(text)
