import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import mixed_precision_xla as example
import numpy as np
import pytest

from keras_ext.data import read_records

EXAMPLES = Path(__file__).parents[2] / "examples"


def parse(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mixed_precision_xla.py", *map(str, arguments)])
    return example.arguments()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No span scores above the threshold")  # after two epochs
def test_xla_in_half_precision_trains_like_float32_without(monkeypatch):
    small = "--epochs 2 --batch-size 8 --hidden-dim 16 --max-length 16 --dropout 0".split()
    args = parse(monkeypatch, *small)
    train, dev = (
        read_records(EXAMPLES / f"data/nested_{name}.jsonl")[:8] for name in ("train", "dev")
    )
    plain = example.run(args, train, dev, "float32", jit=False)
    both = example.run(args, train, dev, "mixed_bfloat16", jit=True)
    # Sentences longer than 16 tokens are cut into windows, so there is one bucket.
    assert (plain["compilations"], both["compilations"]) == (0, 1)
    assert len(plain["losses"]) == len(both["losses"]) > 4
    assert plain["losses"][-1] < plain["losses"][0] / 2
    np.testing.assert_allclose(both["losses"], plain["losses"], rtol=0.02)
    for row in (plain, both):
        np.testing.assert_allclose(row["losses"][len(row["losses"]) // 2 :].mean(), row["loss"])
        assert 0 < row["step"] < row["whole"] and 0 <= row["f1"] <= 1


def test_four_runs_make_a_table_and_a_picture(monkeypatch, tmp_path, capsys):
    def run(args, train, dev, policy, jit):
        assert len(train) == 7 and len(dev) == 250
        step = (0.08 if policy == "float32" else 0.04) / (1 + jit)
        return {
            "precision": policy,
            "XLA": jit,
            "step": step,
            "compilations": 3 * jit,
            "whole": 9.6,
            "loss": 0.5,
            "f1": 0.25,
            "losses": np.geomspace(5, 0.5, 30) * (1 + jit),
        }

    monkeypatch.setattr(example, "run", run)
    monkeypatch.delenv("KERAS_EXT_DATA", raising=False)
    path = tmp_path / "new" / "curves.png"
    parse(monkeypatch, "--sentences", 7, "--half", "mixed_float16", "--output", path)
    example.main()
    printed = capsys.readouterr().out
    assert "7 sentences of nested_train.jsonl" in printed
    assert re.findall(r"^\| ((?:mixed|float).*) \|$", printed, re.MULTILINE) == [
        "float32 | no | 80.0 | 1.00 | 0 | 10 | 0.5000 | 0.2500",
        "float32 | yes | 40.0 | 2.00 | 3 | 10 | 0.5000 | 0.2500",
        "mixed_float16 | no | 40.0 | 2.00 | 0 | 10 | 0.5000 | 0.2500",
        "mixed_float16 | yes | 20.0 | 4.00 | 3 | 10 | 0.5000 | 0.2500",
    ]
    assert plt.imread(path).std() > 0.05  # lines on the paper


def test_cluener_is_taken_where_it_is(monkeypatch, data_folder):
    monkeypatch.setenv("KERAS_EXT_DATA", str(data_folder))
    assert parse(monkeypatch).train == data_folder / "cluener2020" / "train.json"


def test_the_losses_of_the_steps_are_those_of_the_batches():
    log = example.StepLog()
    for means in ([4.0, 3.0, 4.0], [2.0, 1.0]):  # Keras logs running means
        log.on_epoch_begin(0)
        for batch, mean in enumerate(means):
            log.on_train_batch_begin(batch)
            log.on_train_batch_end(batch, {"loss": mean})
    assert log.losses == [[4.0, 2.0, 6.0], [2.0, 0.0]]
    assert [len(seconds) for seconds in log.seconds] == [3, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--epochs", "1"), "at least 2"), (("--train", "x.jsonl"), "both --train and --dev")],
)
def test_bad_arguments(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit):
        parse(monkeypatch, *arguments)
    assert message in capsys.readouterr().err
