"""Loading a `.keras` file that anybody may have written."""

import zipfile
from pathlib import Path

import h5py
import keras

from keras_ext.checkpoints.assign import value_faults
from keras_ext.checkpoints.config_sizes import check_claims
from keras_ext.checkpoints.hdf5_file import lies_elsewhere, walk
from keras_ext.files.file_kind import ZIP, file_kind, wrong_kind
from keras_ext.files.text_file import load_json

WEIGHTS = "model.weights.h5"


def load_keras_file(path, load=None):
    """Loads a `.keras` file that holds no more than it seems, and whose weights are numbers.

    Keras itself runs no code from the file, but would unpack gigabytes of blanks from it.

    Args:
        path: the file.
        load: function from the path to a `keras.Model`. None: Keras' own, without compiling.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if the file is no such archive, is packed, nests its description too deeply,
            claims or holds more weights than fit in it, or keeps them elsewhere; naming each weight
            with a value that is not finite.
    """
    try:
        _check_archive(Path(path))
    except (KeyError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a .keras file: {error}") from error
    model = keras.models.load_model(path, compile=False) if load is None else load(path)
    faults = []
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            value = keras.ops.convert_to_numpy(weight)
            faults += value_faults(weight.path, value, weight.dtype)
    if faults:
        raise ValueError(
            "The model has weights that are no numbers.\n  "
            + "\n  ".join(faults)
            + f"\nReceived: path={str(path)!r}"
        )
    return model


def _check_archive(path):
    kind = file_kind(path)
    if kind != ZIP:
        raise ValueError(wrong_kind(path, "a .keras file", kind))
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        _check_size(path, size, sum(part.file_size for part in archive.infolist()))
        config = load_json(archive.read("config.json"), f"{path}, config.json")
        check_claims(config if isinstance(config, dict) else {}, size, path)
        with archive.open(WEIGHTS) as part, h5py.File(part) as file:
            bad, held = [], 0
            for name, item in walk(file):
                values = isinstance(item, h5py.Dataset)
                if item is None or values and lies_elsewhere(item):
                    bad.append(name)
                elif values:
                    held += item.nbytes
    if bad:
        raise ValueError(
            "Weights are damaged, links, or kept in other files: "
            f"{', '.join(bad)}. Received: path={str(path)!r}"
        )
    _check_size(path, size, held)


def _check_size(path, size, claimed):
    # Keras packs nothing that it writes.
    if claimed > size:
        raise ValueError(
            f"The file of {size} bytes claims to hold {claimed}. Expected a .keras file as Keras "
            f"writes it, which is not packed. Received: path={str(path)!r}"
        )
