"""Each key of a bundle's `config.json` with every wrong value, and without: the error names it."""

import json
import shutil

import keras
import pytest
from tasks.recognizers import make_recognizer
from tasks.sentences import make_encoder

from keras_ext.tasks import EntityRecognizer, SentenceEncoder, bundle

WRONG = [
    None,
    True,
    1,
    2,
    -1,
    1.0,
    1.5,
    "1",
    "spam",
    [],
    [1],
    ["a", None],
    {},
    {"a": "b"},
    {"a": 1},
]
TASKS = {"EntityRecognizer": EntityRecognizer, "SentenceEncoder": SentenceEncoder}
# The values that are of the right type; what is wrong with them is found elsewhere.
GOOD = {
    "format_version": [1],
    "labels": [[]],
    "versions": [{}, {"a": "b"}],
    "settings.head": ["1", "spam"],
    "settings.pooling": ["1", "spam"],
    "settings.score": ["1", "spam"],
    "settings.normalize": [True],
    "settings.max_length": [1, 2],
    "settings.head_size": [1, 2],
    "settings.stride": [1, 2, -1],
    **dict.fromkeys(("sha256.model.keras", "sha256.tokenizer.json"), ["1", "spam"]),
    "sha256.config.json": ["1", "spam"],
}
KEYS = {
    "EntityRecognizer": ["labels", *(f"settings.{x}" for x in ("head", "stride", "head_size"))],
    "SentenceEncoder": [f"settings.{x}" for x in ("pooling", "normalize", "score")],
}
COMMON = [
    "format",
    "format_version",
    "task",
    "settings",
    "versions",
    "sha256",
    "settings.max_length",
    "sha256.model.keras",
    "sha256.tokenizer.json",
    "sha256.config.json",
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    make_recognizer().save(folder / "EntityRecognizer")
    make_encoder().save(folder / "SentenceEncoder")
    return folder


@pytest.fixture
def load(bundles, tmp_path, monkeypatch):
    """Loads a bundle of a task, with another config and, if asked for, its digest."""
    monkeypatch.setattr(keras.models, "load_model", lambda *args, **kwargs: keras.Model())

    def load(task, config, signed=False):
        shutil.copytree(bundles / task, tmp_path / "bundle", dirs_exist_ok=True)
        if signed:
            config["sha256"]["config.json"] = bundle._config_sha256(config)
        (tmp_path / "bundle" / "config.json").write_text(json.dumps(config))
        return TASKS[task].load(tmp_path / "bundle")

    return load


def config_of(bundles, task):
    return json.loads((bundles / task / "config.json").read_text())


def part_of(config, key):
    """The object that holds a key, such as "settings.head" or "sha256.model.keras"."""
    outer, _, inner = key.partition(".")
    return (config[outer], inner) if inner else (config, outer)


def same(value, other):
    return type(value) is type(other) and value == other


@pytest.mark.parametrize(
    ("task", "key"), [(task, key) for task in TASKS for key in [*COMMON, *KEYS[task]]]
)
def test_each_key_with_each_wrong_value(bundles, load, task, key):
    refused = 0
    for value in WRONG:
        config = config_of(bundles, task)
        part, name = part_of(config, key)
        if same(value, part[name]):
            continue
        part[name] = value
        with pytest.raises(ValueError, match=r"config\.json") as raised:
            load(task, config)
        if any(same(value, good) for good in GOOD.get(key, ())):
            assert "config.json was changed after saving" in str(raised.value)
        else:
            assert key in str(raised.value)
            refused += 1
    assert refused >= 10
    config = config_of(bundles, task)
    part, name = part_of(config, key)
    del part[name]
    with pytest.raises(ValueError, match=r"config\.json") as raised:
        load(task, config)
    if key != "versions":  # which nothing needs
        assert key in str(raised.value)


@pytest.mark.parametrize("task", TASKS)
def test_a_setting_that_is_not_known(bundles, load, task):
    config = config_of(bundles, task)
    config["settings"]["colour"] = "red"
    with pytest.raises(ValueError, match=r"config\.json.*settings.*not known.*colour"):
        load(task, config, signed=True)


CHANGES = [
    ("EntityRecognizer", "labels", ["person"], "scores for 2 labels.*labels=1"),
    ("EntityRecognizer", "labels", ["person", "place", "time"], "scores for 2 labels.*labels=3"),
    ("EntityRecognizer", "labels", [], "Labels.*labels="),
    ("EntityRecognizer", "labels", ["person", "person"], "each once"),
    ("EntityRecognizer", "settings.head_size", 8, "head_size=16.*head_size=8"),
    ("EntityRecognizer", "settings.head", "full", "EfficientGlobalPointer.*GlobalPointer"),
    ("EntityRecognizer", "settings.head", "spam", "head='spam'"),
    ("EntityRecognizer", "settings.stride", 99, "stride=99"),
    ("SentenceEncoder", "settings.pooling", "max", "pooling='mean'.*pooling='max'"),
    ("SentenceEncoder", "settings.normalize", False, "normalize=True.*normalize=False"),
    ("SentenceEncoder", "settings.score", "spam", "score='spam'"),
    ("SentenceEncoder", "settings.max_length", 2, "max_length=2"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "key", "value", "message"), CHANGES)
def test_what_does_not_fit_the_model_is_found_at_load(
    bundles, load, monkeypatch, task, key, value, message
):
    monkeypatch.undo()  # the model counts
    config = config_of(bundles, task)
    part, name = part_of(config, key)
    part[name] = value
    with pytest.raises(ValueError, match=rf"config\.json.*bundle.*{message}"):
        load(task, config, signed=True)


@pytest.mark.parametrize("task", TASKS)
def test_a_bundle_with_its_own_digest_is_loaded(bundles, load, monkeypatch, task):
    monkeypatch.undo()
    load(task, config_of(bundles, task), signed=True)


def test_a_bundle_of_a_model_without_scores_of_spans(bundles, tmp_path):
    recognizer = EntityRecognizer.load(bundles / "EntityRecognizer")
    recognizer.model = make_encoder().model
    recognizer.save(tmp_path / "bundle")
    with pytest.raises(ValueError, match=r"config\.json.*span_scores"):
        EntityRecognizer.load(tmp_path / "bundle")
