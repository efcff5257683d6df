"""Folders of sentence-transformers: what is honoured, and what is refused."""

import contextlib
import json

import keras
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file

from keras_ext.checkpoints import load_huggingface_weights, save_huggingface
from keras_ext.data import read_pairs
from keras_ext.models import AlbertEncoder, BertEncoder, ElectraEncoder, RoFormerEncoder
from keras_ext.sentences import SentenceEncoder, sentence_transformers_folder
from tests.tasks.sentences import TEXTS

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "green", "grey", "car", "tree", "a"]
SIZES = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
ENCODERS = {
    BertEncoder: {"max_sequence_length": 16},
    AlbertEncoder: {"max_sequence_length": 16, "embedding_dim": 4},
    ElectraEncoder: {"max_sequence_length": 16, "embedding_dim": 4},
    RoFormerEncoder: {},
}
MODULES = {
    "Transformer": "",
    "Pooling": "1_Pooling",
    "Dense": "2_Dense",
    "Normalize": "3_Normalize",
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def make_folder(tmp_path):
    """Writes a folder of the modules; returns its path and the encoder inside."""

    def make(
        kinds=("Transformer", "Pooling"),
        pooling=None,
        settings=None,
        activation="Tanh",
        kind=BertEncoder,
        words=WORDS,
    ):
        keras.utils.set_random_seed(1)
        encoder = kind(len(words), **SIZES, **ENCODERS[kind])
        save_huggingface(encoder, tmp_path)
        (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        modules = [
            {"idx": i, "name": str(i), "path": MODULES.get(kind, kind), "type": f"somewhere.{kind}"}
            for i, kind in enumerate(kinds)
        ]
        write(tmp_path / "modules.json", modules)
        write(tmp_path / "1_Pooling/config.json", pooling or {"pooling_mode": "mean"})
        write(tmp_path / "config_sentence_transformers.json", settings or {})
        write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 12})
        write(
            tmp_path / "2_Dense/config.json",
            {"activation_function": activation and f"torch.nn.modules.activation.{activation}"},
        )
        random = np.random.default_rng(0)
        weights = {
            "linear.weight": random.normal(size=(4, 8)).astype("float32"),
            "linear.bias": random.normal(size=4).astype("float32"),
        }
        save_file(weights, tmp_path / "2_Dense/model.safetensors")
        return tmp_path, encoder, weights

    return make


def hidden_states(encoder, ids):
    row = np.array([[2, *ids, 3]], "int32")
    inputs = {"token_ids": row, "segment_ids": 0 * row, "padding_mask": row > 0}
    return keras.ops.convert_to_numpy(encoder(inputs))[0]


POOLED = [
    ({"pooling_mode": "cls"}, lambda hidden: hidden[0]),
    ({"pooling_mode": "lasttoken"}, lambda hidden: hidden[-1]),
    ({"pooling_mode": ["max"]}, lambda hidden: hidden.max(axis=0)),
    (
        {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
        lambda hidden: hidden.mean(axis=0),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "pool"), POOLED)
def test_poolings(make_folder, config, pool):
    folder, encoder, _ = make_folder(pooling=config)
    loaded = SentenceEncoder.from_huggingface(folder)
    assert loaded.settings["max_length"] == 12 and not loaded.settings["normalize"]
    shorter = SentenceEncoder.from_huggingface(folder, max_length=5)
    assert shorter.settings["max_length"] == 5
    expected = pool(hidden_states(encoder, [4, 8]))
    np.testing.assert_allclose(loaded.encode("red car"), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "function"), [("Tanh", np.tanh), ("Identity", lambda x: x), (None, lambda x: x)]
)
def test_a_projection_stands_before_the_normalisation(make_folder, activation, function):
    folder, encoder, weights = make_folder(tuple(MODULES), activation=activation)
    loaded = SentenceEncoder.from_huggingface(folder)
    expected = hidden_states(encoder, [4, 8]).mean(axis=0)
    expected = function(weights["linear.weight"] @ expected + weights["linear.bias"])
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(loaded.encode("red car"), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "expected"), [(9, 9), (10**30, 16), (None, 16)])
def test_the_longest_text_of_new_folders(make_folder, tokens, expected):
    folder, *_ = make_folder()
    write(folder / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    if tokens is not None:
        write(folder / "tokenizer_config.json", {"model_max_length": tokens})
    assert SentenceEncoder.from_huggingface(folder).settings["max_length"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_each_kind_of_encoder(make_folder, kind):
    folder, encoder, _ = make_folder(kind=kind)
    loaded = SentenceEncoder.from_huggingface(folder)
    assert loaded.settings["max_length"] == 12
    for text, ids in (("red car", [4, 8]), ("a grey tree", [10, 7, 9])):
        expected = hidden_states(encoder, ids).mean(axis=0)
        np.testing.assert_allclose(loaded.encode(text), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positions", "tokens", "expected"),
    [(None, None, 1536), (9, None, 9), (9, 10**30, 9), (9, 7, 7), (None, 10**30, 1536)],
)
def test_the_longest_text_of_rotary_positions(make_folder, positions, tokens, expected):
    folder, *_ = make_folder(kind=RoFormerEncoder)
    (folder / "sentence_bert_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    assert "max_position_embeddings" not in config
    if positions is not None:
        write(folder / "config.json", {**config, "max_position_embeddings": positions})
    if tokens is not None:
        write(folder / "tokenizer_config.json", {"model_max_length": tokens})
    loaded = SentenceEncoder.from_huggingface(folder)
    assert loaded.settings["max_length"] == expected
    longer = SentenceEncoder.from_huggingface(folder, max_length=2000)
    assert longer.settings["max_length"] == 2000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words", "settings", "known"),
    [
        (RoFormerEncoder, ["\u6c7d\u8f66"], None, False),
        (RoFormerEncoder, ["\u6c7d\u8f66"], {"tokenizer_class": "RoFormerTokenizer"}, False),
        (RoFormerEncoder, ["\u6c7d\u8f66"], {"tokenizer_class": "BertTokenizer"}, True),
        (RoFormerEncoder, ["\u6c7d", "##\u8f66"], {"tokenizer_class": "RoFormerTokenizer"}, True),
        (BertEncoder, ["\u6c7d\u8f66"], None, True),
    ],
)
def test_a_tokenizer_that_knows_chinese_words(make_folder, kind, words, settings, known):
    folder, *_ = make_folder(kind=kind, words=[*WORDS, *words])
    if settings is not None:
        write(folder / "tokenizer_config.json", settings)
    if known:
        assert SentenceEncoder.from_huggingface(folder)
    else:
        with pytest.raises(ValueError, match="jieba.*Received: tokenizer_class"):
            SentenceEncoder.from_huggingface(folder)


def test_a_sentencepiece_tokenizer(make_folder):
    """As ALBERT's: with its own names of the special tokens, and pieces that have a score."""
    folder, encoder, _ = make_folder(kind=AlbertEncoder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="tokenizer.json, or as vocab.txt.*AutoTokenizer"):
        SentenceEncoder.from_huggingface(folder)
    pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "\u2581red", "\u2581c", "ar", "a", "r"]
    model = tokenizers.models.Unigram([(piece, -1.0 - i) for i, piece in enumerate(pieces)], 1)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    backend.save(str(folder / "tokenizer.json"))
    expected = hidden_states(encoder, [4, 5, 6]).mean(axis=0)
    loaded = SentenceEncoder.from_huggingface(folder)
    np.testing.assert_allclose(loaded.encode("red car"), expected, atol=1e-6)


def test_the_similarity_is_taken_over(make_folder):
    folder, *_ = make_folder(settings={"similarity_fn_name": "dot"})
    assert SentenceEncoder.from_huggingface(folder).settings["score"] == "dot"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ("Transformer", "Pooling", "LSTM")}, "modules known"),
        ({"kinds": ("Pooling",)}, "lists its modules"),
        ({"pooling": {"pooling_mode": "weightedmean"}}, "poolings known"),
        ({"pooling": {"pooling_mode_mean_sqrt_len_tokens": True}}, "poolings known"),
        (
            {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}},
            "poolings known",
        ),
        ({"settings": {"similarity_fn_name": "euclidean"}}, "similarities"),
        ({"settings": {"default_prompt_name": "query"}}, "prompt"),
        ({"kinds": tuple(MODULES), "activation": "SiLU"}, "activations known"),
    ],
)
def test_what_is_not_known_is_refused(make_folder, arguments, message):
    folder, *_ = make_folder(**arguments)
    with pytest.raises(ValueError, match=f"(?s){message}.*Received"):
        SentenceEncoder.from_huggingface(folder)


WRONG = [None, True, 3, 3.5, "spam", [], [1], {}, {"a": "b"}, {"a": 1}]
# Of each file, the keys that are read, a good value, and which of those above are good, too.
FIELDS = {
    "modules.json": {
        "idx": (0, [3]),
        "name": ("0", ["spam"]),
        "path": ("", ["spam"]),
        "type": ("somewhere.Transformer", []),
    },
    "config_sentence_transformers.json": {
        "similarity_fn_name": ("cosine", [None]),
        "default_prompt_name": (None, [None]),
        "prompts": ({"query": "query: "}, [{}, {"a": "b"}]),
    },
    "sentence_bert_config.json": {
        "max_seq_length": (12, [None, 3]),
        "do_lower_case": (False, [None, True]),
    },
    "tokenizer_config.json": {
        "model_max_length": (int(1e30), [None, 3, 3.5]),
        "do_lower_case": (True, [True]),
        "tokenizer_class": ("BertTokenizer", [None, "spam"]),
    },
    "1_Pooling/config.json": {
        "pooling_mode": ("mean", []),
        "pooling_mode_cls_token": (False, [True]),
    },
    "2_Dense/config.json": {
        "in_features": (8, [3]),
        "out_features": (4, [3]),
        "bias": (True, [True]),
        "activation_function": ("torch.nn.modules.activation.Tanh", [None]),
    },
}
KEYS = [(file, key) for file, fields in FIELDS.items() for key in fields]


def good_fields(file):
    return {key: value for key, (value, _) in FIELDS[file].items()}


@pytest.fixture
def read_folder(make_folder, monkeypatch):
    """Writes what stands in a file, and reads the small files of a folder, up to the encoder."""
    folder, *_ = make_folder(tuple(MODULES))
    (folder / "tokenizer_config.json").write_text("{}")
    first, *others = json.loads((folder / "modules.json").read_text())

    class Read(Exception):
        pass

    def stop(*args, **kwargs):
        raise Read

    monkeypatch.setattr(sentence_transformers_folder, "encoder_from_huggingface", stop)

    def read(file, content):
        is_first = file == "modules.json" and isinstance(content, dict)
        write(folder / file, [content, *others] if is_first else content)
        with contextlib.suppress(Read):
            SentenceEncoder.from_huggingface(folder)

    return read


@pytest.mark.slow
@pytest.mark.parametrize(("file", "key"), KEYS)
def test_each_key_with_each_wrong_value(read_folder, file, key):
    good, (_, also) = good_fields(file), FIELDS[file][key]
    read_folder(file, good)
    for value in WRONG:
        fields = {**good, key: value}
        if any(type(value) is type(other) and value == other for other in also):
            read_folder(file, fields)
            continue
        with pytest.raises(ValueError, match=key) as raised:
            read_folder(file, fields)
        assert file.rpartition("/")[2] in str(raised.value)
    del good[key]
    if key in ("path", "type"):
        with pytest.raises(ValueError, match=rf'modules\.json lacks "\[0\]\.{key}"'):
            read_folder(file, good)
    elif key != "pooling_mode":
        read_folder(file, good)


@pytest.mark.slow
@pytest.mark.parametrize("file", FIELDS)
@pytest.mark.parametrize("content", [[], [1, 2], None, 3, "spam", [{}, {}]])
def test_each_file_with_something_else(read_folder, file, content):
    with pytest.raises(ValueError, match=file.rpartition("/")[2]):
        read_folder(file, content)


def test_a_folder_with_all_that_is_read(make_folder):
    folder, *_ = make_folder(tuple(MODULES))
    expected = SentenceEncoder.from_huggingface(folder).encode("red car")
    for file in set(FIELDS) - {"modules.json"}:
        write(folder / file, good_fields(file))
    np.testing.assert_array_equal(
        SentenceEncoder.from_huggingface(folder).encode("red car"), expected
    )


@pytest.mark.parametrize(
    ("key", "value"), [("in_features", 4), ("out_features", 8), ("bias", False)]
)
def test_a_projection_whose_file_and_tensors_disagree(make_folder, key, value):
    folder, *_ = make_folder(tuple(MODULES))
    write(folder / "2_Dense/config.json", {key: value})
    with pytest.raises(ValueError, match=f'config.json, "{key}" should be .*{key}={value}'):
        SentenceEncoder.from_huggingface(folder)


@pytest.mark.parametrize("weights", [{"weight": np.ones((4, 8))}, {"linear.weight": np.ones(8)}])
def test_a_projection_without_its_matrix(make_folder, weights):
    folder, *_ = make_folder(tuple(MODULES))
    save_file(weights, folder / "2_Dense/model.safetensors")
    with pytest.raises(ValueError, match=r"linear\.weight.*2_Dense"):
        SentenceEncoder.from_huggingface(folder)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(ValueError, match=r"modules\.json cannot be read"):
        SentenceEncoder.from_huggingface(tmp_path)


def test_a_name_on_the_hub_is_told_how_to_be_downloaded():
    with pytest.raises(ValueError, match="download BAAI/bge-small-en --local-dir bge-small-en"):
        SentenceEncoder.from_huggingface("BAAI/bge-small-en")


def test_modules_lie_in_the_folder(make_folder):
    folder, *_ = make_folder()
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../other"
    write(folder / "modules.json", modules)
    with pytest.raises(ValueError, match="modules.json names what is not in its folder.*other"):
        SentenceEncoder.from_huggingface(folder)


def test_deep_json_is_no_recursion_error(make_folder):
    folder, *_ = make_folder()
    for name in (
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ):
        text = (folder / name).read_text()
        (folder / name).write_text("[" * 10**5 + "]" * 10**5)
        with pytest.raises(ValueError, match=f"(?s){name}.*more than 100 levels"):
            SentenceEncoder.from_huggingface(folder)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x["linear.weight"].astype("int8"), "dtype: linear.weight.*int8; quantised"),
        (lambda x: x["linear.weight"] * np.float32("nan"), "values: linear.weight, 32 of 32"),
        (lambda x: x["linear.bias"], "has a matrix linear.weight"),
    ],
)
def test_the_weights_of_a_projection_are_checked(make_folder, change, match):
    folder, _, weights = make_folder(kinds=("Transformer", "Pooling", "Dense"))
    changed = {**weights, "linear.weight": change(weights)}
    save_file(changed, folder / "2_Dense/model.safetensors")
    with pytest.raises(ValueError, match=match):
        SentenceEncoder.from_huggingface(folder)


@pytest.mark.slow
def test_minilm_on_sts_b(data_folder, minilm):
    encoder = SentenceEncoder.from_huggingface(minilm)
    assert encoder.settings == {
        "pooling": "mean",
        "normalize": True,
        "score": "cosine",
        "max_length": 256,
    }
    # sentence-transformers gives 0.8203 for the same weights.
    scores = encoder.evaluate(read_pairs(data_folder / "stsbenchmark_en" / "sts-test.csv"))
    assert scores.spearman == pytest.approx(0.8203, abs=0.001)
    hits = encoder.search("How old are you?", ["What is your age?", "It is old.", *TEXTS], k=1)
    assert hits[0].text == "What is your age?"


def test_the_tokenizer_file_is_preferred(make_folder):
    folder, encoder, _ = make_folder()
    loaded = SentenceEncoder.from_huggingface(folder)
    loaded.tokenizer.save(folder / "tokenizer.json")
    (folder / "vocab.txt").unlink()
    again = SentenceEncoder.from_huggingface(folder)
    np.testing.assert_array_equal(again.encode("red car"), loaded.encode("red car"))
    assert load_huggingface_weights(encoder, folder)
