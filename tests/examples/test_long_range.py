import ast
import itertools
import random
import re
import statistics
import sys

import listops
import long_range as example
import matplotlib.pyplot as plt
import numpy as np
import pytest

SMALL = "--length 16 --steps 16 --examples 40 --test-examples 20 --layers 1 --width 8 --seeds 2"


def value_by_python(tokens):
    """The value by Python's own parser: nothing of the solver's stack."""
    functions = {
        "MAX": lambda *x: sorted(x)[-1],
        "MIN": lambda *x: sorted(x)[0],
        "MED": lambda *x: statistics.median_low(x),
        "SUM_MOD": lambda *x: divmod(sum(x), 10)[1],
    }
    source = "".join(f"{t}(" if t in functions else ")," if t == ")" else f"{t}," for t in tokens)
    tree = ast.parse(source.removesuffix(","), mode="eval")
    return eval(compile(tree, "expression", "eval"), functions)


def test_the_solver_agrees_with_python():
    rng = random.Random(0)
    for size in [*range(4, 40)] * 10:
        tokens = listops.grow(rng, size)
        assert len(tokens) == size
        assert listops.solve(tokens) == value_by_python(tokens)
    for operation, values in itertools.product(listops.OPERATIONS, ("12", "921", "9355")):
        tokens = [operation, *values, ")"]
        assert listops.solve(tokens) == value_by_python(tokens)
    assert listops.solve("SUM_MOD MED 5 9 2 8 ) MAX 7 MIN 4 6 ) ) )".split()) == 2


@pytest.mark.parametrize("text", ["", "MAX", "MAX )", "MAX 1 2", "1 2", ")", "1 )", "MAX 12 ) )"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match="Expected (an|one closed) expression"):
        listops.solve(text.split())


def test_expressions_are_balanced_different_and_as_long_as_asked():
    ids, values = listops.make(60, 24, seed=1)
    assert np.bincount(values).tolist() == [6] * 10
    assert len(np.unique(ids, axis=0)) == 60
    lengths = (ids > 0).sum(1)
    assert lengths.min() >= 12 and lengths.max() <= 24
    for row, value in zip(ids, values, strict=True):
        assert value_by_python([listops.TOKENS[i] for i in row if i]) == value
    np.testing.assert_array_equal(ids, listops.make(60, 24, seed=1)[0])
    assert not np.array_equal(ids, listops.make(60, 24, seed=2)[0])
    # The order says nothing of the value.
    assert len(set(values[:20])) > 4


def arguments(monkeypatch, *more):
    monkeypatch.setattr(sys, "argv", ["long_range.py", *SMALL.split(), *map(str, more)])
    return example.arguments()


def test_pixels_are_digits_twice_as_large_at_many_places(monkeypatch):
    task = example.pixels(arguments(monkeypatch))
    (x, y), (other, _) = task.train, task.test
    assert x.shape == (40, 256) and other.shape == (20, 256) and y.dtype == "int32"
    assert x.min() == 1 and x.max() <= 17 < task.vocabulary_size - 1
    # Each pixel of the small picture is four, from an even or an odd row and column on.
    pictures = x.reshape(-1, 16, 16)
    found = [place_of(picture) for picture in pictures]
    assert None not in found and len(set(found)) == 4


def place_of(picture):
    """Where blocks of 2 x 2 equal pixels begin, at an even or an odd row and column."""
    for row, column in itertools.product((0, 1), repeat=2):
        blocks = picture[row:, column:][:14, :14].reshape(7, 2, 7, 2)
        if (blocks == blocks[:, :1, :, :1]).all():
            return row, column
    return None


def test_batches_pass_over_all_rows_before_any_comes_again():
    rows = example.batches(10, 6, 4, seed=0)
    assert rows.shape == (24,)
    assert sorted(rows[:10]) == sorted(rows[10:20]) == [*range(10)]
    assert rows[:10].tolist() != rows[10:20].tolist()


def test_the_rule_that_was_fixed_beforehand():
    # Mean 0.2; the standard error of 0.1, 0.2, 0.3 is 0.1 / sqrt(3).
    assert example.verdict([0.1, 0.2, 0.3]) == (
        "difference +0.200, two standard errors 0.115: self-pretraining is better"
    )
    assert example.verdict([0.0, 0.1, 0.2]).endswith("0.115: null result")
    assert example.verdict([-0.1, -0.2, -0.3]).endswith("self-pretraining is worse")
    assert example.verdict([0.3]).endswith("no result")


@pytest.mark.slow
def test_it_trains_both_ways_and_draws(monkeypatch, tmp_path, capsys):
    arguments(monkeypatch, "--output", tmp_path / "new")
    example.main()
    printed = capsys.readouterr().out
    assert "16 steps in all, of them 8 of self-pretraining" in printed
    rows = re.findall(r"^ +([01])((?: +[01]\.\d+){3}) +\d+ s$", printed, re.MULTILINE)
    assert [seed for seed, _ in rows] == ["0", "1"]
    scratch, pretrained = np.array([[float(x) for x in row.split()[:2]] for _, row in rows]).T
    means = re.search(r"^mean +([\d.]+) +([\d.]+)$", printed, re.MULTILINE).groups()
    np.testing.assert_allclose(
        [float(x) for x in means], [scratch.mean(), pretrained.mean()], atol=2e-3
    )
    assert re.search(
        r"two standard errors [\d.]+: (null result|self-pretraining is (better|worse))", printed
    )
    assert plt.imread(tmp_path / "new" / "long_range_listops.png").std() > 0.05


@pytest.mark.parametrize("more", [("--pretrain-share", 1.0), ("--seeds", 0), ("--steps", 3)])
def test_what_cannot_be_compared_is_refused(monkeypatch, more, capsys):
    with pytest.raises(SystemExit):
        arguments(monkeypatch, *more)
    assert "--pretrain-share lies in (0, 1)" in capsys.readouterr().err
