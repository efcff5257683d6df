import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from keras_ext.data import Tokenizer
from keras_ext.files.replaced_files import COMPLETE, current_file
from keras_ext.tasks import EntityRecognizer, SentenceEncoder
from keras_ext.tasks import bundle as bundle_file
from keras_ext.tasks.bundle import load_bundle, save_bundle
from tests.tasks.sentences import SCORED, TEXTS, make_encoder

# KerasHub's own classes are found by Keras, so the child does not import it.
CHILD = """
import json, sys
from keras_ext.tasks import EntityRecognizer, SentenceEncoder
recognizer = EntityRecognizer.load(sys.argv[1])
entities = recognizer.predict(json.loads(sys.argv[2]), threshold=-4.0)
print("RESULT" + json.dumps([[e.to_dict() for e in found] for found in entities]))
"""


@pytest.fixture
def bundle(trained, tmp_path):
    trained.save(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.slow
def test_a_fresh_process_predicts_the_same_to_the_bit(trained, bundle, records):
    check_fresh_process(trained, bundle, [record["text"] for record in records[:5]])


@pytest.mark.slow
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


@pytest.mark.slow
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
        ({"format": "spam"}, "not 'keras_ext bundle'"),
        ({"format_version": 2}, "format_version=2"),
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


def sign(bundle):
    """Gives a bundle the digests of its files, as whoever changes them can."""
    config = json.loads((bundle / "config.json").read_text())
    for name in ("model.keras", "tokenizer.json"):
        config["sha256"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    del config["sha256"]["config.json"]
    text = json.dumps(config, sort_keys=True)
    config["sha256"]["config.json"] = hashlib.sha256(text.encode()).hexdigest()
    (bundle / "config.json").write_text(json.dumps(config))


def test_weights_that_are_no_numbers_are_named(bundle):
    model = keras.models.load_model(bundle / "model.keras")
    weight = model.trainable_weights[-1]
    weight.assign(weight * np.nan)
    model.save(bundle / "model.keras")
    sign(bundle)
    with pytest.raises(ValueError, match=f"(?s)no numbers.*values: {weight.path}.*model.keras"):
        EntityRecognizer.load(bundle)


def test_a_packed_model_is_refused(bundle):
    with zipfile.ZipFile(bundle / "model.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(bundle / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content + b" " * 2**24 * (name == "config.json"))
    sign(bundle)
    with pytest.raises(ValueError, match="claims to hold.*model.keras"):
        EntityRecognizer.load(bundle)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "[" * 10**5, '{"a": 1, "a": 2}'])
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


@pytest.mark.slow
def test_a_trained_recognizer_is_saved_without_its_optimizer(trained, bundle, records):
    assert len(trained.model.optimizer.variables) > 2 * len(trained.model.trainable_variables)
    check_that_it_holds_the_network_only(bundle, trained.model)
    texts = [record["text"] for record in records]
    expected = trained.predict(texts, threshold=-4.0)
    assert any(expected)
    assert EntityRecognizer.load(bundle).predict(texts, threshold=-4.0) == expected
    assert trained.model.optimizer.variables


@pytest.mark.slow
def test_a_trained_encoder_is_saved_without_its_optimizer(tmp_path):
    encoder = make_encoder()
    encoder.compile(optimizer=keras.optimizers.AdamW(0.01), run_eagerly=True)
    encoder.fit(SCORED[:8], epochs=1, verbose=0)
    encoder.save(tmp_path / "bundle")
    check_that_it_holds_the_network_only(tmp_path / "bundle", encoder.model)
    loaded = SentenceEncoder.load(tmp_path / "bundle")
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def check_that_it_holds_the_network_only(bundle, model):
    sizes = {}
    with zipfile.ZipFile(bundle / "model.keras") as archive:
        assert not json.loads(archive.read("config.json"))["compile_config"]
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            weights.visititems(lambda name, item: sizes.update({name: getattr(item, "size", 0)}))
    assert not [name for name in sizes if "optimizer" in name]
    assert sum(sizes.values()) == sum(w.size for w in model.get_weights())


class Toy:
    """The least that is a task. Weight, token and setting are made from one number."""

    def __init__(self, number):
        inputs = keras.Input((1,))
        scale = keras.layers.Dense(1, use_bias=False)
        self.model = keras.Model(inputs, scale(inputs))
        self.model.set_weights([np.full((1, 1), number)])
        self.tokenizer = Tokenizer.from_characters([chr(ord("a") + number)], min_count=1)
        self.settings = {"number": number}


def save_toy(folder, number):
    save_bundle(folder, Toy(number))


def load_toy(folder):
    """The number of a bundle, which its three files share."""
    config, model, tokenizer = load_bundle(folder, "Toy")
    number = config["settings"]["number"]
    assert model.get_weights()[0][0, 0] == number
    assert tokenizer.unknown_id not in tokenizer.encode_ids([chr(ord("a") + number)])[0]
    return number


FOLDERS = {
    # What exists, links, the path to save to, and the folder that then holds the bundle.
    "new": ([], {}, "bundle", "bundle"),
    "new, with those above it": ([], {}, "a/b/bundle", "a/b/bundle"),
    "empty": (["bundle"], {}, "bundle", "bundle"),
    "trailing slash": ([], {}, "bundle/", "bundle"),
    "dots within": (["a"], {}, "a/../bundle/.", "bundle"),
    "working folder": ([], {}, ".", "."),
    "link": (["target"], {"bundle": "target"}, "bundle", "target"),
    "link of a link": (["target"], {"bundle": "one", "one": "target"}, "bundle/", "target"),
    "link to what is not there": ([], {"bundle": "a/target"}, "bundle", "a/target"),
    "link above it": (["target"], {"a": "target"}, "a/bundle", "target/bundle"),
    "home": ([], {}, "~/bundle", "bundle"),
    "long name": ([], {}, "n" * 255, "n" * 255),
}


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_all_kinds(tmp_path, monkeypatch, name):
    folders, links, path, real = FOLDERS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in folders:
        (tmp_path / folder).mkdir()
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
    inode = os.stat(real).st_ino if os.path.exists(real) else None
    before = names_in(tmp_path)
    for number in (1, 2):
        save_toy(path, number)
        assert load_toy(path) == number
        assert sorted(os.listdir(real)) == ["config.json", "model.keras", "tokenizer.json"]
    files = names_in(Path(real))
    above = {str(folder) for folder in [Path(real), *Path(real).parents]} - {"."}
    assert names_in(tmp_path) == before | above | {str(Path(real) / name) for name in files}
    assert [os.readlink(tmp_path / link) for link in links] == [*links.values()]
    assert inode in (None, os.stat(real).st_ino)


@pytest.mark.parametrize("path", ["..", "../../place", "loop", "file", "file/bundle", "n" * 256])
def test_paths_that_cannot_be_saved_to(tmp_path, monkeypatch, path):
    inside = tmp_path / "place" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    (inside / "loop").symlink_to("loop")
    (inside / "file").write_text("years of work")
    before = names_in(tmp_path)
    with pytest.raises((ValueError, OSError), match="inside" if path[0] != "." else "place"):
        save_toy(path, 1)
    assert names_in(tmp_path) == before
    assert (inside / "file").read_text() == "years of work"


@pytest.fixture
def toy(tmp_path):
    save_toy(tmp_path / "bundle", 1)
    return tmp_path / "bundle"


def test_a_mount_point_is_saved_to(toy, monkeypatch):
    """One cannot be renamed or removed, and nothing can be moved out of it or in."""
    replace, device = os.replace, toy.stat().st_dev

    def refuse(path, *args, **kwargs):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    def within(source, target):
        if toy not in Path(source).parents or toy not in Path(target).parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", within)
    for name in ("rename", "renames", "link"):
        monkeypatch.setattr(os, name, refuse)
    save_toy(toy, 2)
    assert load_toy(toy) == 2
    assert toy.stat().st_dev == device


def test_a_folder_in_one_that_cannot_be_written_is_saved_to(toy, monkeypatch):
    refuse_to_make(monkeypatch, lambda path: path.parent == toy.parent)
    save_toy(toy, 2)
    assert load_toy(toy) == 2
    with pytest.raises(PermissionError, match=str(toy.with_name("other"))):
        save_toy(toy.with_name("other"), 2)
    assert os.listdir(toy.parent) == ["bundle"]


def test_a_folder_that_cannot_be_written_is_left_as_it_was(toy, monkeypatch):
    refuse_to_make(monkeypatch, lambda path: path.parent == toy)
    with pytest.raises(PermissionError, match=str(toy)):
        save_toy(toy, 2)
    monkeypatch.undo()
    assert load_toy(toy) == 1
    assert len(os.listdir(toy)) == 3


def refuse_to_make(monkeypatch, where):
    """Lets no folder be made where a function of its path says so; root would be let by modes."""
    mkdir = os.mkdir

    def refusing(path, *args, **kwargs):
        if where(Path(path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refusing)


@pytest.mark.skipif(os.geteuid() == 0, reason="modes do not keep root from writing")
def test_modes_that_forbid_writing(toy):
    toy.parent.chmod(0o555)
    save_toy(toy, 2)
    assert load_toy(toy) == 2
    toy.chmod(0o555)
    with pytest.raises(PermissionError, match=str(toy)):
        save_toy(toy, 3)
    assert load_toy(toy) == 2
    toy.chmod(0o755)
    toy.parent.chmod(0o755)


def test_a_full_disk_leaves_the_old_bundle(toy, monkeypatch):
    def half(self, path):
        path.write_text("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Tokenizer, "save", half)
    for folder in (toy, toy.with_name("other")):
        with pytest.raises(OSError, match=f"No space left on device.*{folder}"):
            save_toy(folder, 2)
    assert load_toy(toy) == 1
    assert len(names_in(toy.parent)) == 4


def test_a_save_cut_short_leaves_a_bundle_that_loads(toy, tmp_path, monkeypatch):
    """A copy of all at each move of a file is what a kill at that moment would leave."""
    copies, replace = [], os.replace

    def copying(source, target):
        copies.append(shutil.copytree(toy, tmp_path / f"copy {len(copies)}"))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", copying)
        patch.setattr(Tokenizer, "save", lambda self, path: path.write_text(self.to_json()))
        save_toy(toy, 2)
    # The new ones are complete; the old ones leave (3), they come (3); what is left goes.
    assert [load_toy(copy) for copy in copies] == [1, 2, 2, 2, 2, 2, 2, 2]
    for copy in copies:
        save_toy(copy, 3)
        assert load_toy(copy) == 3
        assert sorted(os.listdir(copy)) == ["config.json", "model.keras", "tokenizer.json"]


@pytest.mark.parametrize(
    "gone", [[], ["config.json"], ["config.json", "model.keras", "tokenizer.json"]]
)
def test_what_a_killed_save_left_is_no_hindrance(toy, gone):
    left = toy / ".keras_ext-written-0" / "new"
    left.mkdir(parents=True)
    (left / "model.keras").write_text("half")
    for name in gone:
        (toy / name).unlink()
    if gone:
        with pytest.raises(ValueError, match=r"config\.json cannot be read"):
            load_toy(toy)
    else:
        assert load_toy(toy) == 1
    save_toy(toy, 2)
    assert load_toy(toy) == 2
    assert len(os.listdir(toy)) == 3


def test_loading_while_files_are_moved(toy, monkeypatch):
    """At each moment the old bundle is there, or the new one."""
    loaded, replace = [], os.replace

    def move(source, target):
        loaded.append(load_toy(toy))
        replace(source, target)
        loaded.append(load_toy(toy))

    monkeypatch.setattr(os, "replace", move)
    monkeypatch.setattr(Tokenizer, "save", lambda self, path: path.write_text(self.to_json()))
    save_toy(toy, 2)
    assert loaded == [1] + 15 * [2]


def test_a_file_that_moves_just_before_it_is_read(toy, monkeypatch):
    """The reader looks for it in one place, and opens it when it is in the other."""
    looks = []
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    complete = toy / COMPLETE
    save_toy(toy, 1)
    complete.mkdir()
    os.replace(toy / "tokenizer.json", complete / "tokenizer.json")

    def moving(folder, name):
        path = current_file(folder, name)
        looks.append(name)
        if len(looks) == 3:
            os.replace(complete / "tokenizer.json", toy / "tokenizer.json")
        return path

    monkeypatch.setattr(bundle_file, "current_file", moving)
    assert load_toy(toy) == 1
    assert len(looks) == 12  # two attempts, two looks at each of three files


def test_a_bundle_replaced_between_check_and_reading_is_read_anew(toy, monkeypatch):
    load_model = keras.models.load_model

    def late(*args, **kwargs):
        monkeypatch.setattr(keras.models, "load_model", load_model)
        save_toy(toy, 2)
        return load_model(*args, **kwargs)

    monkeypatch.setattr(keras.models, "load_model", late)
    assert load_toy(toy) == 2


def test_a_bundle_that_changes_all_the_time_is_not_called_damaged(toy, monkeypatch):
    config, number = (toy / "config.json").read_text(), itertools.count()

    def change(*args, **kwargs):
        (toy / "config.json").write_text(config + " " * next(number))
        raise OSError("another file than the one that was checked")

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(keras.models, "load_model", change)
    with pytest.raises(ValueError, match=f"replaced while it was read, 20 times.*{toy}"):
        load_toy(toy)


def test_a_bundle_replaced_again_and_again_is_read_at_last(toy, monkeypatch):
    load_model, left = keras.models.load_model, list(range(2, 7))

    def late(*args, **kwargs):
        if left:
            save_toy(toy, left.pop())
        return load_model(*args, **kwargs)

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(keras.models, "load_model", late)
    assert load_toy(toy) == 2


@pytest.mark.slow
def test_two_writers_and_two_readers(toy):
    """Nobody is told anything but what there is."""
    stop, found = threading.Event(), []

    def read():
        while not stop.is_set():
            found.append(load_toy(toy))

    def save(number):
        for _ in range(8):
            save_toy(toy, number)

    readers = [threading.Thread(target=read) for _ in range(2)]
    with ThreadPoolExecutor(2) as writers:
        for reader in readers:
            reader.start()
        saved = [writers.submit(save, number) for number in (2, 3)]
        try:
            for one in saved:
                one.result()
        finally:
            stop.set()
    for reader in readers:
        reader.join()
    assert len(found) > 2 and set(found) <= {1, 2, 3}
    assert len(os.listdir(toy)) == 3
