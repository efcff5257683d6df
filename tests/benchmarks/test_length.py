import math

import attention_entropy
import initialization
import keras
import length
import numpy as np
import pytest

pytestmark = pytest.mark.slow


def test_strings_are_of_the_asked_lengths_and_of_all_symbols():
    ids = length.strings(np.random.default_rng(0), 500, 2, 6, 8)
    assert ids.shape == (500, 8)
    tokens = ids > 0
    assert set(tokens.sum(axis=1)) == {2, 3, 4, 5, 6}
    assert (tokens[:, :-1] >= tokens[:, 1:]).all()  # padding is at the end
    shares = np.bincount(ids[tokens])[1:] / tokens.sum()
    np.testing.assert_allclose(shares, [0.2] * 5, atol=0.04)
    uneven = length.strings(np.random.default_rng(0), 500, 20, 20, 20, uneven=True)
    commonest = [np.bincount(row).max() / 20 for row in uneven]
    assert np.mean(commonest) > 0.4  # of even strings about 0.36


def test_the_tasks():
    ids = np.array([[3, 1, 2, 1, 0, 0], [5, 4, 3, 2, 1, 1]])
    assert length.solve("sort", ids).tolist() == [[1, 1, 2, 3, 0, 0], [1, 1, 2, 3, 4, 5]]
    assert length.solve("copy", ids).tolist() == [[0, 0, 0, 3, 0, 0], [0, 0, 0, 5, 4, 3]]


def test_a_guess_from_the_place_gives_the_commonest_answer_there():
    ids = np.array([[1, 2], [1, 3], [2, 1], [3, 3]])  # sorted: 12 13 12 33
    assert length.guess_share("sort", ids) == (3 + 2) / 8


def test_a_local_mask_and_a_scale_leave_the_weights_as_they_are():
    ids = length.strings(np.random.default_rng(0), 3, 30, 30, 30)
    plain = length.length_model("plain", 256, width=16, layers=1)
    for arguments, same in [
        ({"window": 30}, True),
        ({"window": 5}, False),
        ({"scale": "log_n"}, False),
        ({"positions": "random"}, False),
    ]:
        arguments = {
            "positions": "plain",
            "max_position": 256,
            "width": 16,
            "layers": 1,
        } | arguments
        other = length.length_model(**arguments)
        other.set_weights(plain.get_weights())
        first, second = (keras.ops.convert_to_numpy(model(ids)) for model in (plain, other))
        assert np.allclose(first, second, atol=1e-5) == same


def test_a_wrong_arm_is_refused(capsys):
    assert length.arm("random+log_n") == ("random", "log_n")
    with pytest.raises(SystemExit):
        length.main(["--arms", "plain+log-n"])
    assert "Expected plain or random" in capsys.readouterr().err


def test_the_scripts_print_their_tables(tmp_path, capsys):
    sizes = "--tasks copy --arms plain+log_n --seeds 0 --lengths 24 --steps 1 --count 8"
    length.main([*sizes.split(), "--results", str(tmp_path / "runs.jsonl")])
    table = capsys.readouterr().out
    assert table.count("| copy |") == 2
    initialization.main("--width 8 --blocks 2 --rows 4 --seeds 0".split())
    assert "| geometric | 1.000 |" in capsys.readouterr().out
    attention_entropy.main("--lengths 64 512 --rows 20".split())
    assert "| 512 | 2.008 |" in capsys.readouterr().out


def test_gain_of_a_chain_of_linear_blocks_is_that_of_the_widths():
    for mean in ("arithmetic", "fan_in"):
        forward, backward = initialization.gains(mean, "linear", 64, 3, 16, seed=0)
        assert forward == pytest.approx(initialization.MEANS[mean], rel=0.15)
        assert backward == pytest.approx(initialization.MEANS[mean], rel=0.15)


def test_entropy_and_gradient_of_even_scores():
    assert attention_entropy.mean_entropy(50, 0.0, 4, seed=0) == pytest.approx(math.log(50))
    means, best = attention_entropy.gradient_sizes(50, [0.0, 1e-4], 4, seed=0)
    assert means == pytest.approx([0, 1e-4 * (1 - 1 / 50)], rel=1e-3)
    assert best.tolist() == [1e-4] * 4
