"""A lock that the system takes away from a process that ends, however it ends."""

import contextlib
import errno
import os
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PAUSE = 0.01  # seconds between two attempts


@contextlib.contextmanager
def folder_lock(folder, seconds):
    """A context in which nobody else has the lock of a folder, no other thread either.

    Nothing is written: it is a lock on the folder as the system knows it (`flock`).

    Args:
        folder: path of the folder.
        seconds: float, how long to wait for somebody else who has it.

    Returns:
        Context manager that gives a bool: False where there are no such locks, as on Windows, on
        some network file systems, and for a folder that may not be read. All may enter then.

    Raises:
        BlockingIOError: if somebody else still has it after that time.
        OSError: if the folder does not exist.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with folder_lock(folder, 0) as mine:
    ...     pass
    """
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        yield False
        return
    try:
        mine = _lock(descriptor, seconds)
        try:
            yield mine
        finally:
            if mine:  # a child process may hold a copy of the descriptor, and with it the lock
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _lock(descriptor, seconds):
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                message = f"another process holds its lock, for {seconds:.0f} s at least"
                raise BlockingIOError(errno.EAGAIN, message) from None
        except OSError:
            return False
        else:
            return True
        time.sleep(PAUSE)
