"""Runs scripts with the real bert4keras, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ROOT / "build" / "legacy"
HALVES = 2
INSTALL = "python -m pip install --no-deps --target build/legacy -r tests/legacy/requirements.txt"


def missing_packages(folder=PACKAGES):
    """The lines of requirements.txt that are not installed in a folder."""
    lines = (HERE / "requirements.txt").read_text("utf-8").splitlines()
    needed = [line for line in lines if line and not line.startswith("#")]
    names = {line: line.replace("-", "_").replace("==", "-") for line in needed}
    return [line for line in needed if not (folder / f"{names[line]}.dist-info").is_dir()]


def generate(output, half, packages=PACKAGES):
    """Writes a folder for each case of a half of cases.py.

    Args:
        output: Path of a folder, which may hold the other half.
        half: 0 or 1.
        packages: Path of the folder with bert4keras and tf-keras.

    Returns:
        What the process printed: the number of cases and the seconds.
    """
    return run_legacy("generate.py", output, half, packages=packages)


def run_legacy(script, *arguments, packages=PACKAGES):
    """Runs a script of this folder with the real bert4keras, in a process of its own.

    Args:
        script: Its name.
        *arguments: What it is given.
        packages: Path of the folder with bert4keras and tf-keras.

    Returns:
        What the process printed.

    Raises:
        RuntimeError: If a package is missing, with the command that installs it, or if the process
            failed, with the end of what it wrote.
    """
    missing = missing_packages(packages)
    if missing:
        raise RuntimeError(f"not installed in {packages}: {missing}; in {ROOT}, run: {INSTALL}")
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1",
        "TF_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join([str(packages), *([inherited] if inherited else [])]),
    }
    process = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(f"{script} failed:\n{process.stderr[-4000:]}")
    return process.stdout
