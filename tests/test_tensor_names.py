"""The names and shapes of tensors in saved files are a format: a golden file holds them."""

import io
import zipfile
from pathlib import Path

import h5py
import keras
import pytest
from test_all import LAYER_ROWS

GOLDEN = Path(__file__).with_name("golden") / "tensors.txt"


def tensors(row, folder):
    """One line for each tensor in the file of a model that holds the row's object."""
    path = Path(folder) / f"{row}.keras"
    row.saved_model("float32").save(path)
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    lines = []
    with h5py.File(content) as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
                lines.append(f"{row} {name} {item.shape}")

        file.visititems(visit)
    return sorted(lines)


@pytest.fixture(scope="module")
def golden():
    return GOLDEN.read_text("utf-8").splitlines()


@pytest.mark.parametrize("row", LAYER_ROWS, ids=str)
def test_tensor_names_are_those_of_the_golden_file(row, golden, tmp_path):
    keras.backend.clear_session()  # Keras numbers the layers of a kind within a session
    expected = [line for line in golden if line.startswith(f"{row} ")]
    assert tensors(row, tmp_path) == expected, (
        "Saved files would not load any more. `python tests/test_tensor_names.py` writes the file "
        "anew, if they are meant not to: say so in CHANGELOG.md."
    )


def main():
    """Writes the golden file."""
    import tempfile

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for row in LAYER_ROWS:
            keras.backend.clear_session()
            lines += tensors(row, folder)
    GOLDEN.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
