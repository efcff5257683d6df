import re
import sys

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import rectified_flow as example
from image_data import made

SMALL = "--channels 8 16 --epochs 1 --reflow-epochs 1 --pairs 20 --steps 3 --batch-size 16"


@pytest.mark.slow
def test_it_trains_straightens_draws_and_carries(monkeypatch, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype("uint8")
    np.savez(tmp_path / "data.npz", x=images, y=np.arange(40) % 4)
    output = tmp_path / "new" / "folder"
    arguments = ["rectified_flow.py", *SMALL.split(), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--data", str(tmp_path / "data.npz")])
    example.main()
    printed = capsys.readouterr().out
    for name in ("trajectories", "one_step", "transport"):
        assert plt.imread(output / f"{name}.png").std() > 0.05
    assert "from 0 to 1 to 2 to 3" in printed
    found = re.findall(r"straightness +([\d.]+), cost +([\d.]+)", printed)
    assert len(found) == 4 and all(np.isfinite(float(each)) for pair in found for each in pair)
    assert "distilled        one step is" in printed
    model = keras.saving.load_model(output / "model.keras")
    assert model.sample(2, 1, seed=0).x.shape == (2, 8, 8, 1)


def test_two_sets_have_as_many_images_and_no_class_in_common():
    images = made(
        np.arange(9, dtype="uint8").repeat(4).reshape(9, 2, 2), [0, 1, 2, 3, 3, 3, 3, 0, 2]
    )
    x1, x0, source, target = example.split(images, 0)
    assert len(x0) == len(x1) == 3 and (source, target) == ("0 to 1", "2 to 3")
    low = images.values[images.labels < 2].ravel()
    assert np.isin(x1, low).all() and not np.isin(x0, low).any()
