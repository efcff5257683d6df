"""A hidden folder to write in, which is removed by others if its writer died, and only then."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from keras_ext.files.folder_lock import folder_lock

WRITTEN = ".keras_ext-written-"  # begins the names of these folders
ABANDONED = 86400.0  # where there are no locks: the seconds after which a writer counts as dead


@contextlib.contextmanager
def hidden_folder(place):
    """A context with a new folder in another one, whose lock says that its writer lives.

    Args:
        place: path of the folder to make it in.

    Returns:
        Context manager that gives its path. When it ends, the folder is gone.

    Raises:
        OSError: if it cannot be made.

    Example:

    >>> with hidden_folder(Path(tempfile.mkdtemp())) as folder:
    ...     folder.is_dir()
    True
    """
    with contextlib.ExitStack() as locks:
        while True:
            folder = Path(tempfile.mkdtemp("", WRITTEN, place))
            with contextlib.suppress(OSError):  # somebody else tries whether it has a lock
                locks.enter_context(folder_lock(folder, 1.0))
            if folder.is_dir():  # else it was removed before it had
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_what_dead_writers_left(place):
    """Removes the folders that `hidden_folder` made in a process that was killed since.

    Args:
        place: path of the folder in which they were made.
    """
    for left in place.glob(f"{WRITTEN}*"):
        with contextlib.suppress(OSError):  # its writer lives, or is another user, or it is gone
            with folder_lock(left, 0.0) as dead:
                if dead or is_abandoned(left):
                    shutil.rmtree(left)


def is_abandoned(folder):
    """Whether a folder was last changed so long ago that whoever made it has to be dead.

    Args:
        folder: path of the folder.
    """
    return time.time() - folder.stat().st_mtime > ABANDONED
