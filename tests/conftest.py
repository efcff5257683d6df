import os
from pathlib import Path

import keras
import pytest


@pytest.fixture(autouse=True)
def seeds():
    """Every test draws the same random numbers, alone or among others."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def data_folder():
    """The folder with the real data sets."""
    if "KERAS_EXT_DATA" not in os.environ:
        pytest.skip("the variable KERAS_EXT_DATA, the folder with the real data sets, is unset")
    folder = Path(os.environ["KERAS_EXT_DATA"])
    assert folder.is_dir(), f"KERAS_EXT_DATA names no folder: {folder}"
    return folder
