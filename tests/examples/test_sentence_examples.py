"""The examples of sentence vectors, on small files and from scratch."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sentence_vectors_cosent as cosent
import simcse
from sentence_plots import label_groups

from keras_ext.data import read_pairs
from keras_ext.tasks import SentenceEncoder

DATA = Path(__file__).parents[2] / "examples" / "data"


def run(monkeypatch, example, *arguments):
    monkeypatch.setattr(sys, "argv", ["example.py", *map(str, arguments)])
    example.main()


@pytest.fixture
def files(tmp_path):
    """Small files of the project's pairs in three formats: train, dev, test."""
    pairs = read_pairs(DATA / "graded_train.tsv")
    paths = [tmp_path / name for name in ("train.tsv", "dev.csv", "test.jsonl")]
    paths[0].write_text("".join(f"{a}\t{b}\t{s}\n" for a, b, s in pairs[:64]), "utf-8")
    rows = [f'"{a}","{b}",{s}\n' for a, b, s in pairs[64:96]]
    paths[1].write_text("sentence1,sentence2,score\n" + "".join(rows), "utf-8")
    lines = [json.dumps({"text1": a, "text2": b, "score": s}) + "\n" for a, b, s in pairs[:48]]
    paths[2].write_text("".join(lines), "utf-8")
    return paths


@pytest.mark.slow
def test_cosent_from_scratch_on_files(monkeypatch, tmp_path, capsys, files):
    train, dev, test = files
    output = tmp_path / "output"
    run(
        monkeypatch,
        cosent,
        *("--train", train, "--dev", dev, "--test", test, "--encoder", "scratch"),
        *("--epochs", 8, "--chunk-size", 8, "--precision", "mixed_bfloat16", "--output", output),
    )
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("Spearman"))
    before, after = float(line.split()[1]), float(line.split()[3])
    assert after > before + 0.05  # the test pairs were trained on
    picture = plt.imread(output / "scores.png")
    assert picture.shape[0] > 400 and picture[..., :3].std() > 0.05
    encoder = SentenceEncoder.load(output / "bundle")
    assert encoder.evaluate(read_pairs(test)).spearman == pytest.approx(after, abs=1e-4)


@pytest.mark.slow
def test_simcse_learns_from_bare_texts(monkeypatch, tmp_path, capsys):
    texts = simcse.read_texts(None)[:40]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", "utf-8")
    run(
        monkeypatch,
        simcse,
        *("--texts", tmp_path / "texts.txt", "--encoder", "scratch", "--epochs", 2),
        *("--batch-size", 16, "--chunk-size", 4, "--output", tmp_path / "output"),
    )
    printed = capsys.readouterr().out
    assert "40 bare texts" in printed and "after " in printed
    assert SentenceEncoder.load(tmp_path / "output" / "bundle").encode("a").shape == (128,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "train.tsv"], "--train, --dev and --test"),
        (["--encoder", "scratch", "--train", "a", "--dev", "b", "--test"], "expected one argument"),
    ],
)
def test_arguments_that_do_not_fit(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run(monkeypatch, cosent, *arguments)
    assert message in capsys.readouterr().err


def test_files_of_another_form_are_refused(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("a\tb\nc\td\n", "utf-8")
    with pytest.raises(SystemExit, match="score"):
        cosent.scored_pairs(path)
    with pytest.raises(SystemExit, match="one text in each line"):
        simcse.read_texts(path)


def test_labels_are_shown_in_few_groups():
    few = label_groups(np.array([2.0, 0.0, 2.0]))
    assert list(few) == ["0", "2"] and few["2"].tolist() == [True, False, True]
    labels = np.linspace(0, 5, 26)
    many = label_groups(labels)
    assert list(many) == ["0 to 1", "1 to 2", "2 to 3", "3 to 4", "4 to 5"]
    assert sum(rows.sum() for rows in many.values()) == len(labels)
