import deepnorm
import gau_cost
import gau_depth
import gau_initial_ratio
import keras
import matplotlib.pyplot as plt
import ner_gau
import numpy as np
import pytest

from keras_ext.data import read_records
from keras_ext.layers import GatedAttentionUnit

pytestmark = pytest.mark.slow


def test_one_fused_kernel_makes_the_output_small():
    sizes, ratios = (64, 128, 16), {}
    for name in gau_initial_ratio.INITIALISATIONS:
        ratios[name] = gau_initial_ratio.ratio(name, 32, sizes, 0)
    assert ratios["Xavier, one kernel"] < ratios["LeCun"] / 10
    assert ratios["LeCun"] < ratios["Xavier, three kernels"]


def test_kernels_have_the_variance_of_their_names():
    rng = np.random.default_rng(0)
    first, last = gau_initial_ratio.kernels("Xavier, one kernel", rng, 64, 128, 16)
    assert first.shape == (64, 272) and last.shape == (128, 64)
    assert first.var() == pytest.approx(2 / (64 + 272), rel=0.05)
    first, last = gau_initial_ratio.kernels("LeCun", rng, 64, 128, 16)
    assert first.var() == pytest.approx(1 / 64, rel=0.05)
    assert last.var() == pytest.approx(1 / 128, rel=0.05)


def test_what_a_token_sees_of_itself_and_of_others_adds_up(capsys):
    words = "--width 16 --units 24 --key-size 8 --lengths 6 --seeds 1".split()
    gau_initial_ratio.main(words)
    second = capsys.readouterr().out.partition("Where it comes from")[2]
    rows = [line.strip("| ").split(" | ") for line in second.splitlines() if "| 6 |" in line]
    assert [row[0] for row in rows] == gau_initial_ratio.INITIALISATIONS
    for row in rows:
        whole, itself, others = map(float, row[2:])
        # The sides of a triangle, printed with two digits.
        assert abs(itself - others) * 0.9 < whole < (itself + others) * 1.1


def test_layers_are_resized_to_a_ratio():
    layers = gau_depth.make_layers("transformer half", 4, 32)
    assert len(layers) == 4 == len(gau_depth.make_layers("gau", 4, 32))
    assert len(gau_depth.make_layers("transformer", 4, 32)) == 8
    for layer in layers:
        layer.build((None, None, 32))
    gau_depth.resize(layers, 0.01, length=8)
    for layer in layers:
        assert gau_depth.initial_ratio(layer, 8, 32) == pytest.approx(0.01, rel=1e-3)


def test_arms_are_trained_once_and_drawn(data_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_EXT_DATA", str(data_folder))
    sizes = "--blocks 2 --width 16 --length 8 --steps 3 --batch-size 2 --no-xla"
    words = [*sizes.split(), "--folder", str(tmp_path), "--arms", "gau", "gau large"]
    gau_depth.main(words)
    first = capsys.readouterr().out
    assert "| gau |" in first and "| gau large |" in first
    monkeypatch.setattr(gau_depth, "train", None)
    gau_depth.main(words)
    assert capsys.readouterr().out == first
    assert plt.imread(tmp_path / "gau_depth.png").std() > 0.05


def test_frequencies_alone_and_smoothing():
    assert gau_depth.unigram_entropy(np.array([0, 1, 2, 3])) == pytest.approx(np.log(4))
    np.testing.assert_allclose(gau_depth.smooth([1, 3, 5, 7], over=2), [1, 2, 4, 6])


def test_both_encoders_have_as_many_weights():
    counts = []
    for kind in ("GAUEncoder", "RoFormerEncoder"):
        encoder = ner_gau.make_encoder(kind, 500, width=128, blocks=2)
        counts.append(encoder.count_params())
        units = [layer for layer in encoder.layers if isinstance(layer, GatedAttentionUnit)]
        assert len(units) == (4 if kind == "GAUEncoder" else 0)
        keras.utils.clear_session()
    assert counts[0] == pytest.approx(counts[1], rel=0.02)


def test_entities_with_both_encoders(data_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_EXT_DATA", str(data_folder))
    sizes = "--sentences 16 --epochs 1 --batch-size 16 --width 32 --blocks 1 --rates 1e-3"
    monkeypatch.setattr(ner_gau, "read_records", lambda path: read_records(path)[:16])
    ner_gau.main([*sizes.split(), "--results", str(tmp_path / "runs.jsonl"), "--seeds", "0"])
    printed = capsys.readouterr().out
    assert "| GAUEncoder |" in printed and "| RoFormerEncoder |" in printed


def test_cost_of_units_and_chunks(capsys):
    words = "--repeats 1 --no-memory --lengths 8 16 --batch 1 --width 8 --heads 2 --key-size 4"
    gau_cost.main([*words.split(), "--chunk-size", "4"])
    printed = capsys.readouterr().out
    assert printed.count("| two GAU |") == 3 == printed.count("| two FLASH |")


def test_deep_stacks(data_folder, monkeypatch, capsys):
    small = "--width 8 --length 4 --batch 2".split()
    monkeypatch.setattr(deepnorm, "OPTIMIZERS", {"Adam": deepnorm.OPTIMIZERS["Adam"]})
    deepnorm.main(["--parts", "one_step", "--depths", "1", *small])
    assert "| DeepNorm |" in capsys.readouterr().out
    deepnorm.main(["--data", str(data_folder), "--parts", "size", "--sizes", "2", *small])
    assert "| 2 |" in capsys.readouterr().out


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the script runs on TensorFlow")
def test_fused_attention_gives_the_same(capsys):
    from fused_attention import main

    main(["--sizes", "2x8x2x4", "--repeats", "1"])
    assert capsys.readouterr().out.count("| 2x8x2x4 |") == 6
