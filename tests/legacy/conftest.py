import os

import pytest
from filelock import FileLock
from legacy.oracle import generate


@pytest.fixture(scope="session")
def legacy(tmp_path_factory):
    """The folder with a folder for each case of cases.py, written by the real bert4keras.

    It is written once for a run of the tests, also where several processes share the run.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, unfinished = shared / "legacy", shared / "legacy-unfinished"
    with FileLock(shared / "legacy.lock"):
        if not folder.is_dir():
            if unfinished.is_dir():
                pytest.fail("the cases could not be written; another worker says why")
            try:
                print(generate(unfinished))
            except RuntimeError as error:
                pytest.fail(str(error), pytrace=False)
            unfinished.rename(folder)
    return folder
