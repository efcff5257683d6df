import re
import sys

import gau_long as example
import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

SMALL = "--layers 1 --width 16 --steps 12 --length 8 --test-length 32 --window 4 --batch-size 4"


def run(monkeypatch, folder, *more):
    arguments = ["gau_long.py", *SMALL.split(), "--output", str(folder), *map(str, more)]
    monkeypatch.setattr(sys, "argv", arguments)
    example.main()


@pytest.mark.slow
def test_it_trains_reads_longer_text_and_draws(monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path / "new")
    printed = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"step +\d+: loss ([\d.]+)", printed)]
    assert len(losses) == 3 and losses[-1] < losses[0]
    rows = re.findall(
        r"^(as trained|divided by 8|ReRoPE, window 4|both)((?: +\d\.\d+){3})$",
        printed,
        re.MULTILINE,
    )
    cells = {name: [float(cell) for cell in line.split()] for name, line in rows}
    assert list(cells) == ["as trained", "divided by 8", "ReRoPE, window 4", "both"]
    assert cells["as trained"] != cells["ReRoPE, window 4"]
    assert plt.imread(tmp_path / "new" / "gau_long.png").std() > 0.05


def test_the_loss_at_each_place_is_that_of_the_next_character():
    inputs = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="bool", name="padding_mask")
    # It is sure of the id after the one it sees.
    scores = 20.0 * keras.ops.one_hot(keras.ops.mod(inputs + 1, 5), 5)
    model = keras.Model({"token_ids": inputs, "padding_mask": mask}, scores)
    ids = np.arange(40, dtype="int32") % 5
    np.testing.assert_allclose(example.loss_by_place(model, ids, 6, pieces=3), 0, atol=1e-6)
    assert example.loss_by_place(model, ids[::-1].copy(), 6, pieces=3).min() > 10


@pytest.mark.slow
def test_text_of_ones_own(monkeypatch, tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("ab" * 300, "utf-8")
    run(monkeypatch, tmp_path, "--text", path)
    assert "step   10" in capsys.readouterr().out
    path.write_text("ab" * 30, "utf-8")
    with pytest.raises(SystemExit, match="longer than 33 characters. Received: 54 and 6"):
        run(monkeypatch, tmp_path, "--text", path)
