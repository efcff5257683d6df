import flows
import keras
import pytest


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="nothing that a backend can change")
def test_the_table_of_rectified_flow(capsys):
    words = "rectified --seeds 0 --steps 1 2 --count 200 --data 600 --epochs 2 --reflow-steps 3"
    flows.main(words.split())
    printed = capsys.readouterr().out
    for row in ("closed form", "rectified once", "rectified twice", "independent pairs"):
        assert f"| {row} |" in printed
    assert "Floor:" in printed and "Reflow divides S by" in printed
    closed = next(line for line in printed.splitlines() if line.startswith("| closed form"))
    assert 0.5 < float(closed.split("|")[2].split()[0]) < 0.9  # .701 of many samples
