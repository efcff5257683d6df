"""The names and shapes of tensors in saved files are a format: a golden file holds them.

    python tests/tensor_names.py

writes the golden file anew, if files that were saved before are meant not to load any more.
"""

import io
import tempfile
import zipfile
from pathlib import Path

import h5py
import keras

GOLDEN = Path(__file__).with_name("golden") / "tensors.txt"


def tensors(path):
    """`name shape` of each tensor in the file of a model."""
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    lines = []
    with h5py.File(content) as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
                lines.append(f"{name} {item.shape}")

        file.visititems(visit)
    return sorted(lines)


def golden(row):
    """What the golden file says of a row."""
    lines = GOLDEN.read_text("utf-8").splitlines()
    return [line.removeprefix(f"{row} ") for line in lines if line.startswith(f"{row} ")]


def main():
    """Writes the golden file."""
    from test_all import LAYER_ROWS

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        for row in LAYER_ROWS:
            keras.backend.clear_session()  # Keras numbers the layers of a kind within a session
            row.saved_model("float32").save(path)
            lines += [f"{row} {line}" for line in tensors(path)]
    GOLDEN.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
