import json
import sys

import encoder_side
import encoder_step
import factored_loss
import keras
import numpy as np
import optimizer_quality
import optimizers
import pytest
import span_decoding
from character_model import character_model, pieces
from memory import peak_memory
from ner_pretrained import decode_bio

pytestmark = pytest.mark.slow


def run(monkeypatch, script, arguments):
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments.split()])
    script.main()


def needed_here(prepare, *arguments):
    """In place of `peak_memory`, without its process: the function to measure runs once."""
    prepare(*arguments)()
    return 7.0


@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        (factored_loss, "--repeats 1 --heads 3 --cases 2 --batch 2 --length 16", 3),
        (span_decoding, "--repeats 1 --batch 2 --length 32 --heads 5", 4),
    ],
)
def test_both_sides_give_the_same(monkeypatch, capsys, script, arguments, rows):
    """The scripts end with an error where the two sides they time differ."""
    monkeypatch.setattr(script, "peak_memory", needed_here)
    run(monkeypatch, script, arguments)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(table) == 1 + rows


def test_peak_memory_is_that_of_the_scores_of_all_pairs():
    sizes = {"batch": 4, "length": 256, "heads": 40, "head_size": 8, "count": 4}
    scores = 4 * 4 * 40 * 256**2 / 1e6  # MB
    needed = peak_memory(factored_loss.prepare, "dense", "eager", sizes)
    assert scores < needed < 12 * scores


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the script runs on TensorFlow")
def test_our_encoder_has_as_many_weights_as_that_of_bert4keras(monkeypatch, capsys):
    """The script ends with an error where it has not; a side that is not installed it leaves out."""
    sizes = "--rounds 1 --layers-width 1x24 --batch 2 --length 8 --vocabulary 30 --modes graph"
    run(monkeypatch, encoder_step, f"{sizes} --sides bert4keras/BERT")
    assert "| BertEncoder | graph |" in capsys.readouterr().out


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the script runs on TensorFlow")
def test_our_encoder_has_as_many_weights_as_that_of_keras_hub():
    pytest.importorskip("keras_hub")
    sizes = {"vocabulary_size": 30, "num_layers": 1, "num_heads": 12, "hidden_dim": 24}
    sizes["intermediate_dim"] = 96
    weights = []
    for name in ("BertEncoder/gelu_tanh", "KerasHub/BertBackbone"):
        _, make_steps, arguments = encoder_side.SIDES[name]
        steps = make_steps(sizes, encoder_side.draw_batch(30, batch=2, length=8), **arguments)
        (run_step,), _ = encoder_side.compiled(steps, [["inference", "graph"]])
        assert np.isfinite(run_step()).all()
        weights.append(steps.weights)
    assert weights[0] == weights[1] > 0


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ([0, 1, 2, 2, 0, 3], [[0, 1, 3], [1, 5, 5]]),
        ([1, 1, 2], [[0, 0, 0], [0, 1, 2]]),  # B B I
        ([2, 2, 0, 4], [[0, 0, 1], [1, 3, 3]]),  # an I that continues nothing starts a span
        ([1, 4, 4], [[0, 0, 0], [1, 1, 2]]),  # I of another type starts a span
        ([1, 0, 2], [[0, 0, 0], [0, 2, 2]]),
        ([], []),
    ],
)
def test_bio_tags_are_read_as_conlleval_does(tags, spans):
    np.testing.assert_array_equal(decode_bio(np.array(tags)), np.array(spans).reshape(-1, 3))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the script runs on TensorFlow")
def test_optimizer_state_and_steps(monkeypatch, capsys):
    """Of 4 bytes a weight, AdamW keeps two, one more to accumulate; Tiger keeps one."""
    sizes = "--vocabulary 30 --layers 1 --width 64 --rows 4 --steps 2 --repeats 1 --modes graph"
    run(monkeypatch, optimizers, f"{sizes} --no-memory")
    cells = [
        line.strip("| ").split(" | ")
        for line in capsys.readouterr().out.splitlines()
        if "graph" in line
    ]
    state = {(name, int(steps)): float(held) for name, steps, _, held, *_ in cells}
    expected = {("AdamW", 1): 8, ("AdamW", 2): 12, ("Tiger", 1): 4, ("Tiger", 2): 4}
    # What counts steps is 12 bytes and more, a flag for each variable: little beside 87,000 weights.
    assert {key: state[key] for key in expected} == pytest.approx(expected, abs=0.02)
    assert len(cells) == 7


def test_pieces_are_followed_by_their_next_characters():
    x, y = pieces(np.arange(10), [0, 4], 3)
    assert x.tolist() == [[0, 1, 2], [4, 5, 6]]
    assert y.tolist() == [[1, 2, 3], [5, 6, 7]]


def test_character_model_sees_only_the_past():
    model = character_model(characters=7, width=32, layers=2)
    text = np.array([[1, 2, 3, 4, 5]])
    other = np.array([[1, 2, 3, 6, 5]])
    scores, changed = (keras.ops.convert_to_numpy(model(ids)) for ids in (text, other))
    np.testing.assert_allclose(scores[:, :3], changed[:, :3], rtol=1e-5, atol=1e-6)
    assert abs(scores[:, 3:] - changed[:, 3:]).min(axis=-1).max() > 1e-4


def test_best_rate_and_lowest_point():
    rates = [1e-3, 1e-2, 1e-1]
    # A parabola in log10(rate) whose lowest point is at 10^-2.2.
    losses = {rate: [(np.log10(rate) + 2.2) ** 2 + 1] for rate in rates}
    assert optimizer_quality.best_rate(losses, lower=True) == 1e-2
    assert optimizer_quality.lowest_point(losses) == f"{10**-2.2:.1e}"
    losses[1e-1] = [float("nan")]
    assert optimizer_quality.best_rate(losses, lower=True) == 1e-2
    assert optimizer_quality.lowest_point({1e-2: [1.0], 1e-3: [2.0]}) == "≥ 1.0e-02"
    assert optimizer_quality.best_rate({1e-3: [0.1, 0.3], 1e-2: [0.25, 0.25]}, lower=False) == 1e-2


def test_interrupted_runs_go_on(tmp_path):
    runs = []

    def measure(rate, seed):
        runs.append((rate, seed))
        return rate + seed

    path = tmp_path / "runs.jsonl"
    first = optimizer_quality.Runs(path)
    assert first.score(measure, rate=0.5, seed=1) == first.score(measure, rate=0.5, seed=1) == 1.5
    again = optimizer_quality.Runs(path)
    assert again.score(measure, rate=0.5, seed=1) == 1.5
    assert again.score(measure, rate=0.5, seed=2) == 2.5
    assert runs == [(0.5, 1), (0.5, 2)]


@pytest.mark.parametrize(
    ("part", "sizes", "table"),
    [
        ("width", "--steps 2 --length 256 --layers 1 --seeds 0 --widths 32", "| Tiger | 32 |"),
        (
            "cluener",
            "--sentences 32 --dev-sentences 4 --epochs 1 --width 32 --layers 1 --seeds 0",
            "| Tiger |",
        ),
    ],
)
def test_optimizer_quality(data_folder, tmp_path, capsys, part, sizes, table):
    path = tmp_path / "runs.jsonl"
    words = [part, *sizes.split(), "--rates", "0.001", "--optimizers", "Tiger"]
    optimizer_quality.main([*words, "--results", str(path)])
    assert table in capsys.readouterr().out
    for record in map(json.loads, path.read_text().splitlines()):
        assert np.isfinite(record["score"])
