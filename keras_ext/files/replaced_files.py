"""Files are replaced whole: old ones or new ones are there, whatever happens meanwhile."""

import contextlib
import errno
import itertools
import os
import shutil
from pathlib import Path

from keras_ext.files.folder_lock import folder_lock
from keras_ext.files.hidden_folder import hidden_folder, is_abandoned, remove_what_dead_writers_left

COMPLETE = ".keras_ext-complete"  # the folder of written files, while they are put in their place
OLD = ".old"  # in it, the folder of those that they replace
PATIENCE = 10.0  # seconds that a writer waits for one that puts its files in their place
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextlib.contextmanager
def replaced_file(path):
    """A context with the path of a new file, which replaces another one when it ends.

    As `replaced_files`, which says more. A link is followed. What is there and no regular file, such
    as "/dev/stdout" or a pipe, cannot be lost, and is written itself.

    Args:
        path: path of the file. Folders are made.

    Returns:
        Context manager that gives a path with the same name in another folder.

    Raises:
        OSError: naming the file, if it cannot be written.

    Example:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "notes.txt")
    >>> with replaced_file(path) as new:
    ...     size = new.write_text("new")
    >>> path.read_text()
    'new'
    """
    path = Path(path)
    if path.is_dir() or (path.is_file() and not os.access(path, os.W_OK)):
        fault = errno.EISDIR if path.is_dir() else errno.EACCES
        raise OSError(fault, os.strerror(fault), str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    with replaced_files(path.parent, (path.name,)) as new:
        yield new / path.name


@contextlib.contextmanager
def replaced_files(folder, names):
    """A context with a new folder, whose files are in another one when it ends: all, or none.

    New files are written to a hidden folder, in the folder itself or, where that does not exist, in
    the nearest one above it. They are synced to the disk; a file that replaces one gets its mode.
    One file is then renamed, and so is a folder that does not exist. Of several files the hidden
    folder is renamed to `COMPLETE`, and from that moment on `current_file` finds the new ones in it;
    old ones go to a folder in it, the new ones to their place, and then it goes. Whoever takes over
    from a killed process only has to go on with that, and the next writer does.

    The folder itself is never renamed nor made anew, so it may be a mount point, lie where nothing
    can be written, or be where a process works. After an error or an interruption by the user all
    is as it was. Of several writers the last one counts. What killed ones left, the next one in the
    same folder removes; what a living one writes, nobody.

    Args:
        folder: path; links are followed.
        names: the files' names. The last one leaves first and comes last: other programs, which do
            not know of `COMPLETE`, must need it.

    Returns:
        Context manager that gives the path of the new folder.

    Raises:
        OSError: naming the folder, or the one file, if something cannot be written or moved.
    """
    folder = Path(os.path.realpath(folder))
    where = folder if len(names) > 1 else folder / names[0]
    try:
        place = next(path for path in (folder, *folder.parents) if path.is_dir())
        for left_in in {place, folder.parent}:  # in the latter by those who were to make the folder
            remove_what_dead_writers_left(left_in)
        with hidden_folder(place) as hidden:
            new = hidden / "new"
            new.mkdir()  # unlike the hidden one, with the permissions that the umask gives
            yield new
            for name in names:
                with (new / name).open("rb+") as file:
                    if (folder / name).is_file():
                        shutil.copymode(folder / name, new / name)
                    os.fsync(file.fileno())  # else a power cut could leave neither old nor new
            _sync(new)
            if place == folder or not _appear(new, folder, place):
                _put(new, folder, names)
    except OSError as error:
        message = f"Cannot be written: {error.strerror or error}"
        raise OSError(error.errno or errno.EIO, message, str(where)) from error


def current_file(folder, name):
    """The path of a file of a folder, also while files are replaced, or where that was cut short.

    Args:
        folder: path of the folder.
        name: the file's name.

    Returns:
        Path; of a file that does not exist, the one where it would be.
    """
    complete = folder / COMPLETE / name
    return complete if complete.is_file() else folder / name


def _sync(folder):
    """Makes sure that the names in a folder outlive a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may not be read; on Windows no folder may
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _appear(new, folder, place):
    """Gives a new folder its name; False if somebody else was faster."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, folder)
        for path in itertools.takewhile(lambda path: path != place.parent, folder.parents):
            _sync(path)
    except BaseException as error:
        if not new.exists():
            os.replace(folder, new)
        elif isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        for path in itertools.takewhile(lambda path: path != place, folder.parents):
            with contextlib.suppress(OSError):  # one that is not empty stays
                path.rmdir()
        raise
    return True


def _put(new, folder, names):
    """Puts the files of `new` in their place, as `replaced_files` says."""
    several = len(names) > 1
    # Nobody waits for a lock to rename one file.
    needed = several or (folder / COMPLETE).exists()
    with folder_lock(folder, PATIENCE) if needed else contextlib.nullcontext() as locked:
        _go_on(folder, names, new.with_name("finished"), locked)
        if several:
            _exchange(new, folder, names)
        else:
            os.replace(new / names[0], folder / names[0])
            _sync(folder)


def _exchange(new, folder, names):
    complete = folder / COMPLETE
    (new / OLD).mkdir()  # so that `complete` is never empty: another one could take its name
    try:
        os.replace(new, complete)
        _sync(folder)
        for name in reversed(names):
            _move(name, folder, complete / OLD)
        for name in names:
            os.replace(complete / name, folder / name)
        _sync(folder)
        os.replace(complete, new)
    except BaseException:
        if not new.exists():  # else it had not begun, or was done
            for name in reversed(names):
                if not (complete / name).exists():
                    os.replace(folder / name, complete / name)
            for name in names:
                _move(name, complete / OLD, folder)
            os.replace(complete, new)
        raise


def _go_on(folder, names, finished, locked):
    """Puts the files that a killed process left in `COMPLETE` in their place."""
    complete = folder / COMPLETE
    if not complete.exists():
        return
    if not locked and not is_abandoned(complete):
        message = f"another process moves its files, or was killed ({COMPLETE} is what it left)"
        raise FileExistsError(errno.EEXIST, message)
    left = set(os.listdir(complete)) - {OLD}
    for name in sorted(left, key=[*left - {*names}, *names].index):
        os.replace(complete / name, folder / name)
    _sync(folder)
    os.replace(complete, finished)


def _move(name, source, target):
    if os.path.lexists(source / name):
        os.replace(source / name, target / name)
