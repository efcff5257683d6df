import os

import pytest
from filelock import FileLock, Timeout
from legacy.oracle import HALVES, generate


@pytest.fixture(scope="session")
def legacy(tmp_path_factory):
    """The folder with a folder for each case of cases.py, written by the real bert4keras.

    It is written once for a run of the tests. Where several processes share the run, two of them
    write a half each.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "legacy"
    for timeout in (0, -1):  # first what nobody is at, then what others are at
        for half in range(HALVES):
            try:
                with FileLock(shared / f"legacy-{half}.lock", timeout=timeout):
                    write(folder, half)
            except Timeout:
                pass
    return folder


def write(folder, half):
    """Writes a half, unless it was written before."""
    begun, written = (folder.with_name(f"legacy-{half}.{end}") for end in ("begun", "written"))
    if written.exists():
        return
    if begun.exists():
        pytest.fail("the cases could not be written; another worker says why")
    begun.touch()
    try:
        print(generate(folder, half))
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)
    written.touch()
