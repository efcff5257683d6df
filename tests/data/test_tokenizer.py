import re
import time

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, processors

from keras_ext.data import Tokenizer
from keras_ext.data.tokenizer import fit_offsets

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def surfaces(tokenizer, text):
    return [text[start:end] for start, end in tokenizer.encode(text).offsets]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_offsets_of_any_text_lie_in_it_in_order(data, texts, kinds):
    text = data.draw(texts)
    for tokenizer in kinds.values():
        ids, offsets = tokenizer.encode(text)
        assert ids.dtype == offsets.dtype == np.int32
        assert ids.shape == (len(offsets),)
        assert offsets.shape == (len(ids), 2)
        assert np.all((ids >= 0) & (ids < tokenizer.vocabulary_size))
        assert np.all((offsets >= 0) & (offsets <= len(text)))
        assert np.all(offsets[:, 0] <= offsets[:, 1])
        assert np.all(np.diff(offsets, axis=0) >= 0)
        for start, end in offsets:
            assert text[start:end] == text[start:end].strip()


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_character_tokenizer_covers_every_visible_character_once(data, texts, kinds):
    text = data.draw(texts)
    offsets = kinds["characters"].encode(text).offsets
    visible = [[i, i + 1] for i, c in enumerate(text) if not c.isspace()]
    assert [pair for pair in offsets.tolist() if pair[0] < pair[1]] == visible


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_lone_surrogates_count_as_the_replacement_character(data, texts, kinds):
    text = data.draw(texts)
    replaced = re.sub("[\ud800-\udfff]", "\ufffd", text)
    for tokenizer in kinds.values():
        for ours, theirs in zip(tokenizer.encode(text), tokenizer.encode(replaced), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_batch_equals_its_texts(kinds):
    texts = ["", " ", "new york", "a\ud800b", "中 a"] * 60
    for tokenizer in kinds.values():
        for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
            for ours, theirs in zip(encoding, tokenizer.encode(text), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert kinds["bytes"].encode_batch([]) == []


def test_words_are_found_where_they_stand(kinds):
    text = "New\tYork\r\ncafé 😀 ab"
    found = surfaces(kinds["wordpiece"], text)
    assert found == ["New", "York", "café", "😀", "a", "b"]


def test_a_combining_accent_belongs_to_its_word(kinds):
    assert surfaces(kinds["wordpiece"], "cafe\u0301 a\u0301\u0323.") == [
        "cafe\u0301", "a\u0301\u0323", "."
    ]  # fmt: skip
    assert surfaces(kinds["wordpiece"], "a\u0301b") == ["a\u0301", "b"]


def test_blanks_belong_to_no_token(kinds):
    assert surfaces(kinds["bytes"], "a  a b") == ["a", "", "a", "", "b"]
    assert surfaces(kinds["metaspace"], "a\u3000 ab") == ["a", "", "", "ab"]


@pytest.mark.parametrize("text", ["", " \t\r\n", "\u0301\0\u200b"])
def test_texts_without_tokens_give_empty_arrays(kinds, text):
    ids, offsets = kinds["wordpiece"].encode(text)
    assert ids.shape == (0,)
    assert offsets.shape == (0, 2)
    assert offsets.dtype == np.int32


def test_unknown_symbols_are_unknown_tokens(kinds):
    encoding = kinds["characters"].encode("ቀቁ ቂ")
    assert encoding.ids.tolist() == [kinds["characters"].unknown_id] * 3
    assert encoding.offsets.tolist() == [[0, 1], [1, 2], [3, 4]]


def test_special_tokens_in_a_text_are_ordinary_characters(tmp_path):
    words = [*SPECIALS, "[", "sep", "]"]
    backend = tokenizers.Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(SPECIALS)
    tokenizer = Tokenizer(backend)
    assert tokenizer.encode("[sep]").ids.tolist() == [4, 5, 6]
    assert tokenizer.end_id not in tokenizer.encode("[SEP]").ids
    tokenizer.save(tmp_path / "t.json")
    assert tokenizer.end_id not in Tokenizer.from_file(tmp_path / "t.json").encode("[SEP]").ids


def test_truncation_padding_and_added_tokens_of_a_file_are_off(kinds):
    backend = tokenizers.Tokenizer.from_str(kinds["wordpiece"].to_json())
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = Tokenizer.from_json(backend.to_str())
    assert tokenizer.encode("a " * 9).ids.tolist() == [4] * 9
    assert tokenizer.encode("a").ids.tolist() == [4]


def test_the_given_backend_is_not_changed(kinds):
    backend = tokenizers.Tokenizer.from_str(kinds["wordpiece"].to_json())
    backend.enable_truncation(4)
    Tokenizer(backend)
    assert backend.truncation["max_length"] == 4


def test_what_is_saved_is_loaded(kinds, tmp_path):
    for tokenizer in kinds.values():
        tokenizer.save(tmp_path / "t.json")
        loaded = Tokenizer.from_file(tmp_path / "t.json")
        assert (
            loaded.to_json()
            == tokenizer.to_json()
            == Tokenizer.from_json(loaded.to_json()).to_json()
        )
        text = "new café 中文 ab\u0301\r\n😀"
        for ours, theirs in zip(tokenizer.encode(text), loaded.encode(text), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert loaded.vocabulary_size == tokenizer.vocabulary_size


def test_characters_are_sorted_by_count_then_code_point():
    tokenizer = Tokenizer.from_characters(iter(["b a\n", "ab c", "zz z", "\ud800\ud801"]))
    ids = {c: int(tokenizer.encode(c).ids[0]) for c in "zabc\ufffd"}
    assert ids == {"z": 4, "a": 5, "b": 6, "\ufffd": 7, "c": tokenizer.unknown_id}
    assert tokenizer.vocabulary_size == 8
    specials = ("pad_id", "unknown_id", "start_id", "end_id")
    assert [getattr(tokenizer, name) for name in specials] == [0, 1, 2, 3]


def test_a_vocabulary_file_gives_its_line_numbers(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*SPECIALS, "new", "\u2028", "new", "É", "e", ""]).encode())
    tokenizer = Tokenizer.from_vocab(path)
    assert tokenizer.vocabulary_size == 9
    assert tokenizer.encode("NEW É").ids.tolist() == [6, 8]
    cased = Tokenizer.from_vocab(path, lowercase=False)
    assert cased.encode("new NEW É").ids.tolist() == [6, cased.unknown_id, 7]


def test_names_of_special_tokens_of_other_families_are_known(kinds):
    specials = ("pad_id", "unknown_id", "start_id", "end_id")
    assert [getattr(kinds["bytes"], name) for name in specials] == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("[PAD]", "has no pad token"),
        ("[UNK]", "for unknown words is not in the vocabulary"),
        ("[CLS]", "has no start token"),
        ("[SEP]", "has no end token"),
    ],
)
def test_a_missing_special_token_is_an_error(tmp_path, missing, message):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join({*SPECIALS, "a"} - {missing}))
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_vocab(path)


def test_what_is_no_tokenizer_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not a tokenizer.*'{}'"):
        Tokenizer.from_json("{}")
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(ValueError, match="t.json: not a tokenizer"):
        Tokenizer.from_file(tmp_path / "t.json")


@pytest.mark.parametrize("text", [None, b"a", 3, ["a"]])
def test_what_is_no_text_is_an_error(kinds, text):
    with pytest.raises(ValueError, match="a text must be a str. Received"):
        kinds["wordpiece"].encode(text)
    with pytest.raises(ValueError, match="a text must be a str. Received"):
        kinds["wordpiece"].encode_batch(["a", text])


def test_the_text_that_is_no_string_is_named_by_its_index(kinds):
    with pytest.raises(ValueError, match=r"Received: texts\[2\]=3 "):
        kinds["wordpiece"].encode_batch(["a", "b", 3, None])
    with pytest.raises(ValueError, match=r"Received: texts\[1\]=None "):
        Tokenizer.from_characters(["a", None])


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["a", "中", "new york\n", "a\u0301 ", "😀 ", "\0", "\ud800 a"])
def test_a_hundred_thousand_characters_take_seconds_at_most(kinds, piece):
    text = piece * (100_000 // len(piece))
    for name in ("wordpiece", "characters"):
        started = time.perf_counter()
        kinds[name].encode(text)
        assert time.perf_counter() - started < 5


def test_fitted_offsets_by_hand():
    text = " ab \u0301 c\u0301\u0302d"  # a mark after a blank has no token before it
    #       0123  4   567   8   9
    offsets = [[0, 4], [3, 5], [5, 6], [6, 7], [9, 10]]
    assert fit_offsets(text, offsets).tolist() == [[1, 3], [4, 5], [6, 6], [6, 9], [9, 10]]
    assert fit_offsets("e\u0301", [[0, 1], [1, 2]]).tolist() == [[0, 1], [1, 2]]
    assert fit_offsets("é\u0301", [[0, 1], [0, 1]]).tolist() == [[0, 1], [0, 2]]
    assert fit_offsets(" \u0301", [[0, 1]]).tolist() == [[1, 1]]
    assert fit_offsets("", []).shape == (0, 2)
    assert fit_offsets("", [[0, 0]]).tolist() == [[0, 0]]
