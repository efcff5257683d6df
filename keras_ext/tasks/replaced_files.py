"""Files of a folder that belong together: all of the new ones appear in it, or none does."""

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
from pathlib import Path

WRITTEN = ".keras_ext-written-"  # begins the name of a folder of new files, until they are in place
REPLACED = ".keras_ext-replaced"  # the folder of the old files, while the new ones are put in place


@contextlib.contextmanager
def replaced_files(folder, names):
    """A context with a new folder, whose files are in `folder` when it ends.

    A folder that exists is never renamed nor made anew, so it may be a mount point, lie where
    nothing can be written, or be where a process works; it keeps its mode. New files are written to
    a hidden folder in it. Then the old files are moved to another one, `REPLACED`, and the new ones
    to their place: at any moment one of these three holds all old or all new files. A folder that
    does not exist is written in the nearest one above it, and renamed.

    After an error or an interruption by the user all is as it was. What a killed process left in
    the folder, the next one that succeeds removes; what it left beside one that did not exist, in a
    folder whose name begins with `WRITTEN`, may be deleted. Of several that write into a folder at
    once the first to end succeeds, and the others raise an error.

    Args:
        folder: absolute path without links.
        names: the files' names. Without the last the others count for nothing: it is the first to
            leave and the last to come.

    Raises:
        OSError: naming the folder, if something cannot be written or moved; or if another process
            is moving its files, or was killed while it did.
    """
    try:
        if (folder / REPLACED).exists():
            raise _being_replaced()
        place = next(path for path in (folder, *folder.parents) if path.is_dir())
        with tempfile.TemporaryDirectory("", WRITTEN, place, ignore_cleanup_errors=True) as part:
            new = Path(part) / "new"
            new.mkdir()  # unlike its parent, with the permissions that the umask gives
            yield new
            for name in names:
                with (new / name).open("rb+") as file:
                    os.fsync(file.fileno())  # else a power cut could leave neither old nor new
            if place == folder:
                _replace(new, folder, names)
                for left in set(folder.glob(f"{WRITTEN}*")) - {Path(part)}:
                    shutil.rmtree(left, ignore_errors=True)
            else:
                _appear(new, folder, place)
    except OSError as error:
        message = f"Cannot write to this folder: {error.strerror or error}"
        raise OSError(error.errno, message, str(folder)) from error


def leftovers(folder):
    """The folders of old and new files in a folder whose files are being replaced, or were to be.

    Args:
        folder: path.

    Returns:
        List of paths: that of the old ones, where it exists, and those of new ones.
    """
    found = [folder / REPLACED, *sorted(folder.glob(f"{WRITTEN}*/new"))]
    return [path for path in found if path.is_dir()]


def _being_replaced():
    return FileExistsError(
        errno.EEXIST,
        "another process is moving its files, or was killed while it did. If none is, "
        f"{REPLACED} in it holds the old ones and {WRITTEN}*/new the new ones, as far as they are "
        "not in their place: move those that you want there, and delete these two folders",
    )


def _replace(new, folder, names):
    """Moves the old files to a folder beside `new`, and the new ones to their place."""
    replaced, old_are_out = folder / REPLACED, False
    try:
        replaced.mkdir()
    except FileExistsError:
        raise _being_replaced() from None
    try:
        for name in reversed(names):
            _move(name, folder, replaced)
        old_are_out = True
        for name in names:
            os.replace(new / name, folder / name)
        os.replace(replaced, new.with_name("old"))
    except BaseException:
        if replaced.exists():  # else the interruption came after the last step
            for name in reversed(names):
                if old_are_out:
                    (folder / name).unlink(missing_ok=True)
            for name in names:
                _move(name, replaced, folder)
            replaced.rmdir()
        raise


def _move(name, source, target):
    if os.path.lexists(source / name):
        os.replace(source / name, target / name)


def _appear(new, folder, place):
    """Gives a new folder its name, and makes those between it and `place`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, folder)
    except BaseException:
        for path in itertools.takewhile(lambda path: path != place, folder.parents):
            with contextlib.suppress(OSError):  # one that is not empty stays
                path.rmdir()
        raise
