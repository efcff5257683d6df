"""A Python process of its own that the tests ask for the results of functions.

    python child.py

Each line of the input is a JSON list: "module.function" and a dict of arguments. What the function
returns is printed as a line of JSON, `{"returned": value}`, or `{"raised": traceback}`.
"""

import contextlib
import json
import os
import subprocess
import sys
import traceback
from importlib import import_module


@contextlib.contextmanager
def start(**environment):
    """Starts the process, with the paths of this one.

    Yields:
        A function `run("module.function", **arguments)`.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": paths, **environment},
    ) as process:

        def run(function, /, **arguments):
            process.stdin.write(json.dumps([function, arguments]) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "raised" not in answer, answer["raised"]
            return answer["returned"]

        yield run


def answer(name, arguments):
    """What a function returns, or the error that it raises."""
    module, _, function = name.rpartition(".")
    try:
        return {"returned": getattr(import_module(module), function)(**arguments)}
    except Exception:
        return {"raised": traceback.format_exc()}


if __name__ == "__main__":
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            result = answer(*json.loads(line))
        print(json.dumps(result), flush=True)
