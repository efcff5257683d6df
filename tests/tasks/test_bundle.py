import json
import subprocess
import sys

import pytest

from keras_ext.tasks import EntityRecognizer

# KerasHub's own classes are found by Keras, so the child does not import it.
CHILD = """
import json, sys
from keras_ext.tasks import EntityRecognizer
recognizer = EntityRecognizer.load(sys.argv[1])
entities = recognizer.predict(json.loads(sys.argv[2]), threshold=-4.0)
print("RESULT" + json.dumps([[e.to_dict() for e in found] for found in entities]))
"""


@pytest.fixture
def bundle(trained, tmp_path):
    trained.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_fresh_process_predicts_the_same_to_the_bit(trained, bundle, records):
    check_fresh_process(trained, bundle, [record["text"] for record in records[:5]])


@pytest.mark.filterwarnings("ignore")
def test_a_fresh_process_loads_a_keras_hub_backbone(trained, tmp_path, records):
    keras_hub = pytest.importorskip("keras_hub")
    size = trained.tokenizer.vocabulary_size
    backbone = keras_hub.models.BertBackbone(size, 1, 2, 16, 32, max_sequence_length=32)
    recognizer = EntityRecognizer(
        backbone, trained.tokenizer, ["person"], max_length=32, stride=8, head_size=8
    )
    recognizer.save(tmp_path / "bundle")
    check_fresh_process(recognizer, tmp_path / "bundle", [records[0]["text"]])


def check_fresh_process(recognizer, bundle, texts):
    texts = [*texts, "", "☃ Ada", "Bo saw Old Oslo Town. " * 5]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(bundle), json.dumps(texts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    received = json.loads(child.stdout.split("RESULT")[1])
    expected = recognizer.predict(texts, threshold=-4.0)
    assert received == [[e.to_dict() for e in found] for found in expected]


def test_the_folder_holds_what_it_says(bundle):
    assert sorted(p.name for p in bundle.iterdir()) == [
        "config.json",
        "model.keras",
        "tokenizer.json",
    ]
    config = json.loads((bundle / "config.json").read_text())
    assert config["task"] == "EntityRecognizer"
    assert config["labels"] == ["person", "place"]
    assert set(config["versions"]) == {"keras_ext", "keras", "backend", "python"}


def test_a_loaded_recognizer_trains_on(bundle, records):
    recognizer = EntityRecognizer.load(bundle)
    recognizer.compile(learning_rate=0.003)
    recognizer.fit(records[:8], epochs=1, verbose=0)
    recognizer.save(bundle)  # replaces its own bundle
    assert EntityRecognizer.load(bundle).predict("Ada") == recognizer.predict("Ada")


@pytest.mark.parametrize("name", ["model.keras", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_damage_is_named(bundle, name, damage):
    path = bundle / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "other":
        path.write_text("<html>404</html>")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        EntityRecognizer.load(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "spam"}, "not one of a keras_ext bundle"),
        ({"format_version": 2}, "format 2"),
        ({"task": "SentenceEncoder"}, "holds a SentenceEncoder"),
        ({"labels": None}, "lacks"),
        ({"labels": ["place", "person"]}, r"config\.json was changed"),
    ],
)
def test_foreign_configs_are_refused(bundle, change, message):
    config = {**json.loads((bundle / "config.json").read_text()), **change}
    config = {key: value for key, value in config.items() if value is not None}
    (bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        EntityRecognizer.load(bundle)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_config_that_is_none_is_refused(bundle, content):
    (bundle / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        EntityRecognizer.load(bundle)


def test_a_bundle_with_a_users_file_in_it_is_not_replaced(trained, bundle):
    (bundle / "notes.txt").write_text("which run this was")
    with pytest.raises(ValueError, match="something else"):
        trained.save(bundle)
    assert (bundle / "notes.txt").read_text() == "which run this was"


def test_paths_that_are_no_bundle(trained, tmp_path):
    with pytest.raises(ValueError, match="bundle"):
        EntityRecognizer.load(tmp_path / "nowhere")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="something else"):
        trained.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ValueError, match="something else"):
        trained.save(tmp_path / "thesis.txt")
