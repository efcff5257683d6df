import json
import tracemalloc

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from keras_ext.data import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cafe", "café", "Cafe", "Café", "中", "中国", "##国"]
CONTENT = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel"}}


@pytest.fixture
def folder(tmp_path):
    """Makes a folder from the content of its files."""

    def make(words=WORDS, **files):
        if words is not None:
            (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        for name, content in {"config": {"model_type": "bert"}, **files}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return make


def tokens(tokenizer, text):
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    return [backend.id_to_token(i) for i in tokenizer.encode(text).ids]


BERT = {"tokenizer_class": "BertTokenizer"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "cafe"),
        ({"do_lower_case": True}, "cafe"),
        ({"do_lower_case": False}, "Café"),
        ({"do_lower_case": False, "strip_accents": True}, "Cafe"),
        ({"do_lower_case": True, "strip_accents": False}, "café"),
    ],
)
@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_the_casing_is_that_of_the_settings(folder, settings, expected, file):
    path = folder(tokenizer_config={**BERT, **settings})
    if file == "tokenizer.json":
        Tokenizer.from_vocab(path / "vocab.txt").save(path / file)
        (path / "vocab.txt").unlink()
    tokenizer = Tokenizer.from_huggingface(path)
    assert tokens(tokenizer, "Café") == [expected]
    assert tokens(Tokenizer.from_json(tokenizer.to_json()), "Café") == [expected]


def test_without_settings_a_tokenizer_json_keeps_its_casing(folder):
    path = folder()
    for lowercase in (True, False):
        Tokenizer.from_vocab(path / "vocab.txt", lowercase).save(path / "tokenizer.json")
        found = tokens(Tokenizer.from_huggingface(path), "Café")
        assert found == ["cafe" if lowercase else "Café"]


def test_chinese_characters_stand_alone_unless_the_settings_say_otherwise(folder):
    path = folder(tokenizer_config=BERT)
    assert tokens(Tokenizer.from_huggingface(path), "中国") == ["中", "[UNK]"]
    path = folder(tokenizer_config={**BERT, "tokenize_chinese_chars": False})
    assert tokens(Tokenizer.from_huggingface(path), "中国") == ["中国"]


@pytest.mark.parametrize("file", ["special_tokens_map", "tokenizer_config"])
def test_special_tokens_are_those_of_the_folder_and_are_saved(folder, tmp_path, file):
    words = ["[CLS]", "[PAD]", "<a>", "<b>", "<c>", "<d>", "cafe", "[SEP]", "[UNK]"]
    named = {"pad_token": "<a>", "unk_token": {"content": "<b>"}, "cls_token": "<c>"}
    path = folder(words, **{file: {**named, "sep_token": "<d>"}})
    tokenizer = Tokenizer.from_huggingface(path)
    for _ in range(2):
        roles = (tokenizer.pad_id, tokenizer.unknown_id, tokenizer.start_id, tokenizer.end_id)
        assert roles == (2, 3, 4, 5)
        assert tokenizer.encode("cafe zzz").ids.tolist() == [6, 3]
        tokenizer.save(tmp_path / "saved.json")
        tokenizer = Tokenizer.from_file(tmp_path / "saved.json")


def test_what_a_template_names_goes_before_the_usual_names():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>"]
    backend = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    assert Tokenizer(backend).start_id == 2
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 4), ("</s>", 5)]
    )
    assert (Tokenizer(backend).start_id, Tokenizer(backend).end_id) == (4, 5)


@pytest.mark.slow
def test_minilm_is_read_as_hugging_face_reads_it(minilm):
    tokenizer = Tokenizer.from_huggingface(minilm)
    assert tokenizer.to_json() == Tokenizer.from_file(minilm / "tokenizer.json").to_json()
    text = "Déjà vu: UNBELIEVABLE 中国!"
    found = Tokenizer.from_vocab(minilm / "vocab.txt").encode(text).ids.tolist()
    assert tokenizer.encode(text).ids.tolist() == found


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"tokenizer_config": {"do_lower_case": "no"}}, "do_lower_case to be true or false"),
        ({"tokenizer_config": {"do_basic_tokenize": False}}, "do_basic_tokenize=False"),
        ({"tokenizer_config": {"tokenizer_class": "BertweetTokenizer"}}, "BertweetTokenizer"),
        ({"tokenizer_config": {"cls_token": "<s>"}}, "not in the vocabulary.*'cls_token': '<s>'"),
        ({"special_tokens_map": {"cls_token": 3}}, "cls_token to be one token"),
        (
            {"special_tokens_map": {"cls_token": "[SEP]"}, "tokenizer_config": {"cls_token": "中"}},
            "cls_token to be one token.*中.*SEP",
        ),
        ({"config": {"model_type": "roformer"}}, "jieba"),
        ({"tokenizer_config": {"tokenizer_class": "RoFormerTokenizerFast"}}, "jieba"),
        ({"tokenizer_config": []}, "tokenizer_config.json: expected a JSON object"),
    ],
)
def test_what_is_not_known_is_refused(folder, files, match):
    path = folder(**files)
    with pytest.raises(ValueError, match=match):
        Tokenizer.from_huggingface(path)


def test_a_sentencepiece_model_says_what_is_needed(folder):
    path = folder(None, tokenizer_config={"tokenizer_class": "AlbertTokenizer"})
    (path / "spiece.model").write_bytes(b"\n\0")
    with pytest.raises(ValueError, match="tokenizer.json.*save_pretrained.*'spiece.model'"):
        Tokenizer.from_huggingface(path)


def test_a_name_on_the_hub_is_told_how_to_be_downloaded():
    with pytest.raises(ValueError, match="download BAAI/bge-small-en"):
        Tokenizer.from_huggingface("BAAI/bge-small-en")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"[PAD]\n[UNK]\n\0\n", "line 3: a NUL character"),
        (bytes(1000), "NUL bytes"),
        (b"\xff\xfe[\0P\0", "not UTF-8"),
        (b"", "empty"),
    ],
)
def test_a_vocabulary_that_is_something_else_is_named(tmp_path, content, match):
    (tmp_path / "vocab.txt").write_bytes(content)
    for read, path in (
        (Tokenizer.from_vocab, tmp_path / "vocab.txt"),
        (Tokenizer.from_huggingface, tmp_path),
    ):
        with pytest.raises(ValueError, match=f"vocab.txt.*{match}"):
            read(path)


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece", "BPE"])
def test_an_id_far_above_the_others_takes_no_memory(tmp_path, kind):
    model = {"WordLevel": models.WordLevel, "WordPiece": models.WordPiece}.get(kind, models.BPE)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    more = {"merges": []} if kind == "BPE" else {}
    backend = tokenizers.Tokenizer(model({**vocabulary, "far": 2**31}, **more, unk_token="[UNK]"))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"an id above {2**24}.*id={2**31}"):
        Tokenizer(backend)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    far = {"type": kind, "vocab": {**vocabulary, "far": 2**31}, "unk_token": "[UNK]", **more}
    if kind == "WordPiece":
        far |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**CONTENT, "model": far}))
    for read, path in (
        (Tokenizer.from_file, tmp_path / "tokenizer.json"),
        (Tokenizer.from_huggingface, tmp_path),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        with pytest.raises(ValueError, match=f"an id above.*id={2**31}"):
            read(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": {"type": "WordLevel", "vocab": {"[PAD]": 0}, "unk_token": "b"}}, "'b'"),
        ({"added_tokens": [{"id": 2**31, "content": "x"}]}, "not a tokenizer"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "?"}]}}, "not a tokenizer"),
    ],
)
def test_a_damaged_tokenizer_json_is_named(tmp_path, change, match):
    words = {word: i for i, word in enumerate(WORDS)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**CONTENT, "model": model, **change}))
    with pytest.raises(ValueError, match=f"tokenizer.json: .*{match}"):
        Tokenizer.from_file(path)


def test_an_added_token_with_another_id_than_it_says_is_refused(tmp_path):
    words = {word: i for i, word in enumerate(WORDS)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content = {
        **CONTENT,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
        "added_tokens": [{"id": 2**31, "content": "x", **flags}],
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"token 'x' cannot have the id {2**31}"):
        Tokenizer.from_file(path)


def test_a_deep_tokenizer_json_is_no_recursion_error(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": ' + "[" * 10**5 + "]" * 10**5 + "}")
    with pytest.raises(ValueError, match="tokenizer.json: .*more than 100 levels"):
        Tokenizer.from_file(path)


def test_a_model_without_its_unknown_token_is_refused():
    words = {word: i for i, word in enumerate(["[PAD]", "<unk>", "[CLS]", "[SEP]"])}
    backend = tokenizers.Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    with pytest.raises(ValueError, match=r"not in the vocabulary.*unk_token='\[UNK\]'"):
        Tokenizer(backend)


def test_an_empty_name_of_the_unknown_token_is_none():
    """As byte-level BPE has it, to which no text is unknown."""
    words = {word: i for i, word in enumerate(["<pad>", "<unk>", "<s>", "</s>"])}
    assert Tokenizer(tokenizers.Tokenizer(models.BPE(words, [], unk_token=""))).unknown_id == 1
