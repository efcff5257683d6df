import re
import sys

import masked_text
import numpy as np
import pytest

SMALL = "--layers 1 --hidden-dim 16 --epochs 1 --length 12 --steps 1 4 --shown 2"


@pytest.mark.slow
def test_it_trains_writes_fills_a_hole_and_is_loaded(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["masked_text.py", *SMALL.split(), "--output", str(tmp_path)])
    masked_text.main()
    printed = capsys.readouterr().out
    assert "draws the same: True" in printed
    distances = [float(each) for each in re.findall(r"(?:steps|corpus): ([\d.]+)", printed)]
    assert len(distances) == 3 and all(0 < each <= 1 for each in distances)
    nats, chance = map(
        float, re.search(r"at most ([\d.]+) nats a word, ([\d.]+)", printed).groups()
    )
    assert 0 < nats < 2 * chance
    assert re.search(r"_ _", printed)


def test_texts(tmp_path):
    path = tmp_path / "texts.txt"
    lines = [f"Is the {thing}-room open, Ann's {i}?" for thing in ("a", "b") for i in "123456"]
    path.write_text("\n".join([*lines, lines[0], "Rare words."]) + "\n", "utf-8")
    ids, words = masked_text.read_texts(path, 10, 2)
    assert ids.shape == (12, 10) and words[0] == "" and words[-1] is None
    assert masked_text.text_of(ids[0], words) == "Is the a-room open, Ann's 1?"
    masked = np.where(np.arange(10) == 1, len(words) - 1, ids[0])
    assert masked_text.text_of(masked, words) == "Is _ a-room open, Ann's 1?"
    with pytest.raises(SystemExit, match="0 texts of at most 3"):
        masked_text.read_texts(path, 3, 2)


def test_distance():
    a = np.array([[1, 2, 0, 0], [1, 3, 0, 0]])
    assert masked_text.distance(a, a) == 0
    assert masked_text.distance(a, a + np.int64(4) * (a > 0)) == 1
    assert masked_text.distance(a, a[:1]) == 0.5
