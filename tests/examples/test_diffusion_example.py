import gzip
import importlib.util
import re
import struct
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from image_data import read_images
from PIL import Image

# By its path: `diffusion` is the folder of tests.
PATH = Path(__file__).parents[2] / "examples" / "diffusion.py"
SPEC = importlib.util.spec_from_file_location("diffusion_example", PATH)
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)

SMALL = "--channels 8 16 --epochs 2 --steps 3 --compared 24 --calls 4 --batch-size 16"


def pictures(count=40, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size)).astype("uint8")


@pytest.mark.slow
def test_it_trains_draws_measures_and_a_fresh_process_draws_the_same(monkeypatch, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=pictures(60), y=np.arange(60) % 2)
    output = tmp_path / "new" / "folder"
    arguments = ["diffusion.py", *SMALL.split(), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--data", str(tmp_path / "data.npz")])
    monkeypatch.setattr(example, "CURVES", {"ddim": 1, "heun": 2})
    example.main()
    printed = capsys.readouterr().out
    for name in ("samples", "trajectory", "guidance", "quality"):
        assert plt.imread(output / f"{name}.png").std() > 0.05
    assert "bit for bit: True" in printed
    assert np.isfinite(float(re.search(r"at most ([\d.]+)", printed)[1]))
    assert "(without a model 8.000)" in printed
    assert re.search(r"ddim +4 calls [\d.]+", printed)
    distances = re.search(r"samples ([\d.]+) ([\d.]+), held-out images ([\d.]+)", printed)
    assert all(float(distance) > 0 for distance in distances.groups())


def test_the_nearest_is_the_nearest(rng):
    x, others = rng.normal(size=(5, 2, 2, 1)), rng.normal(size=(9, 2, 2, 1))
    expected = [min(np.linalg.norm(a - b) for b in others) for a in x]
    np.testing.assert_allclose(example.nearest(x, others), expected)
    np.testing.assert_allclose(example.nearest(x, x), 0, atol=1e-6)


def test_digits():
    images = read_images()
    assert images.values.shape == (1797, 8, 8, 1) and images.width == 0.125
    assert images.values.min() == -1 and images.values.max() == 1
    assert images.names == list("0123456789") and images.labels[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("compressed", [False, True])
def test_idx(tmp_path, compressed):
    x = pictures()
    files = {"images-idx3-ubyte": x, "labels-idx1-ubyte": (np.arange(40) % 4 + 3).astype("uint8")}
    for name, values in files.items():
        head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        data = head + values.tobytes()
        (tmp_path / f"some-{name}").write_bytes(gzip.compress(data) if compressed else data)
    images = read_images(tmp_path / "some-images-idx3-ubyte")
    np.testing.assert_allclose(images.values[..., 0], x / 127.5 - 1, atol=1e-6)
    assert images.names == ["3", "4", "5", "6"] and images.labels[:5].tolist() == [0, 1, 2, 3, 0]
    path = tmp_path / "cut-off"
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9]) + b"12")
    with pytest.raises(ValueError, match="cut off"):
        read_images(path)


def test_mnist(data_folder):
    images = read_images(data_folder / "mnist_t10k" / "t10k-images-idx3-ubyte.gz")
    assert images.values.shape == (10000, 28, 28, 1) and len(images.names) == 10
    assert images.labels[:4].tolist() == [7, 2, 1, 0]


def test_a_folder_of_files(tmp_path):
    for i, (name, ending) in enumerate((("cat", "png"), ("dog", "png"), ("cat", "jpg"))):
        (tmp_path / name).mkdir(exist_ok=True)
        flat = np.full((9 + i, 12, 3), 255 * (name == "cat"), "uint8")
        Image.fromarray(flat).save(tmp_path / name / f"{i}.{ending}")
    images = read_images(tmp_path, size=8)
    assert images.values.shape == (3, 8, 8, 3) and images.names == ["cat", "dog"]
    np.testing.assert_array_equal(images.labels, [0, 0, 1])
    np.testing.assert_allclose(images.values.mean(axis=(1, 2, 3)), [1, 1, -1], atol=0.02)
    assert read_images(tmp_path).values.shape == (3, 32, 32, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="PNG or JPEG"):
        read_images(tmp_path / "empty")


def test_arrays(tmp_path):
    np.save(tmp_path / "x.npy", pictures())
    images = read_images(tmp_path / "x.npy")
    assert images.labels is None and images.names == [] and images.width == 2 / 255
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((4, 5, 6, 3)))
    images = read_images(tmp_path / "x.npy")
    assert images.values.min() < -0.9 and images.width is None
    np.save(tmp_path / "x.npy", np.full((4, 5, 6), 3.5))
    with pytest.raises(ValueError, match="from 3.5"):
        read_images(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", images=pictures(4), labels=np.arange(3))
    with pytest.raises(ValueError, match="Expected 4 labels"):
        read_images(tmp_path / "x.npz")
