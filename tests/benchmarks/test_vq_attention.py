import numpy as np
import pytest
import vq_attention

pytestmark = pytest.mark.slow


def test_slope_and_crossover_of_known_costs():
    lengths = [256, 512, 1024, 2048]
    costs = {n: {"full": (n**2 / 1e6, 0.0), "VQ": (n * 600 / 1e6, 0.0)} for n in lengths}
    assert vq_attention.slope([(n, costs[n]["full"][0]) for n in lengths]) == pytest.approx(2)
    assert vq_attention.slope([(n, costs[n]["VQ"][0]) for n in lengths]) == pytest.approx(1)
    assert vq_attention.crossover(costs, "VQ", "full") == pytest.approx(600)
    assert vq_attention.crossover(costs, "full", "VQ") is None


def test_times_of_all_sides(capsys):
    words = "time --lengths 8 24 --width 8 --heads 2 --block 4 --codes 3 --repeats 1 --no-memory"
    vq_attention.main([*words.split(), "--passes", "training"])
    printed = capsys.readouterr().out
    for side in vq_attention.SIDES:
        assert printed.count(f"| {side} |") == 2 and f"{side}: slope of time" in printed


def test_memory_of_a_side(capsys):
    words = "time --lengths 64 --width 8 --heads 2 --block 4 --codes 3 --repeats 1 --passes forward"
    vq_attention.main([*words.split(), "--sides", "VQ"])
    assert "nan" not in capsys.readouterr().out


def test_language_models_of_one_size(data_folder, capsys):
    words = "language --seeds 0 1 --steps 2 --batch 2 --length 24 --block 4 --width 8 --heads 2"
    words += " --layers 1 --codebooks 3 --tests 2"
    vq_attention.main([*words.split(), "--data", str(data_folder)])
    printed = capsys.readouterr().out
    assert "| full attention |" in printed and "| VQ, 3 codes |" in printed
    assert np.char.count(printed, "standard error nan") == 0
