import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

SCRIPT = Path(__file__).with_name("on_replicas.py")


@pytest.fixture(scope="session")
def two_replicas():
    """Runs a case on two replicas: `two_replicas("module.function", **arguments)`.

    The module lies in this folder, its function takes the strategy and the arguments, and what it
    returns, made of lists, dicts, numbers and text, is returned. All cases share one process.
    """
    if keras.backend.backend() != "tensorflow":
        pytest.skip("replicas are TensorFlow's")
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)],
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
