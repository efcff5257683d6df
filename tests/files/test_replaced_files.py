import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import keras_ext
from keras_ext.files import folder_lock, hidden_folder
from keras_ext.files.hidden_folder import WRITTEN
from keras_ext.files.replaced_files import COMPLETE, current_file, replaced_file, replaced_files

NAMES = ("a", "b", "last")
STARTS = ["no folder", "no folder above it", "an empty folder", "old files", "some old files"]
CALLS = ["replace", "mkdir", "fsync", "chmod"]


def write(folder, content, then=lambda new: None, names=NAMES):
    """Replaces the files; a function of the folder of new ones runs when these are written."""
    with replaced_files(folder, names) as new:
        fill(new, content, names)
        then(new)


def fill(folder, content, names=NAMES):
    for name in names:
        (folder / name).write_text(f"{content} {name}")


def texts_in(folder):
    """The texts of the files as one who knows of `COMPLETE` finds them."""
    paths = {name: current_file(folder, name) for name in NAMES}
    return {name: path.read_text() for name, path in paths.items() if path.exists()}


def texts_of(content, names=NAMES):
    return {name: f"{content} {name}" for name in names}


def tree(folder):
    """The texts of all files below a folder by their paths, and None for folders."""
    paths = folder.rglob("*")
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_text() for p in paths}


def make_start(start, place):
    """A path to write to, and what there is."""
    place.mkdir()
    if start == "no folder":
        return place / "target"
    if start == "no folder above it":
        return place / "above" / "below" / "target"
    (place / "target").mkdir()
    if start != "an empty folder":
        fill(place / "target", "old")
    if start == "some old files":
        (place / "target" / "b").unlink()
    return place / "target"


@contextlib.contextmanager
def watched(watch):
    """A context that calls a function of a running number before and after what the system does."""
    moment, at_it = 0, False

    def step():
        nonlocal moment, at_it
        if not at_it:
            at_it, moment = True, moment + 1
            try:
                watch(moment)
            finally:
                at_it = False

    def watching(call):
        def run(*args, **kwargs):
            step()
            call(*args, **kwargs)
            step()

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, watching(getattr(os, name)))
        yield


def count_moments(folder, names=NAMES):
    moments = []
    with watched(moments.append):
        write(folder, "new", names=names)
    assert texts_in(folder).items() >= texts_of("new", names).items()
    return len(moments)


@pytest.mark.parametrize("names", [NAMES, ("a",)], ids=["several", "one"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "broken disk")], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_an_error_at_any_moment_leaves_all_as_it_was(tmp_path, start, error, names):
    moments, stopped = count_moments(make_start(start, tmp_path / "whole"), names), 0
    for stop in range(1, moments + 1):
        place = tmp_path / str(stop)
        target = make_start(start, place)
        before = tree(place)

        def watch(moment, stop=stop):
            if moment == stop:
                raise error

        raised = None
        try:
            with watched(watch):
                write(target, "new", names=names)
        except type(error) as fault:
            raised = fault
        for left in place.rglob(f"{WRITTEN}*"):
            left.rmdir()  # an empty one, if the interruption came just after it was made
        if raised and (stop < moments - 3 or tree(place) == before):
            assert tree(place) == before
        else:  # all had been done: the last move, after which one file is synced
            # Or it was of no account: that a folder could not be made which is there.
            assert texts_in(target).items() >= texts_of("new", names).items()
            assert set(os.listdir(target)) <= {*NAMES}
        if isinstance(raised, OSError):
            assert str(target) in str(raised)
            assert raised.errno == errno.EIO
        stopped += raised is not None
    assert stopped > 0.8 * moments


@pytest.mark.parametrize("start", STARTS)
def test_a_copy_made_at_any_moment_is_old_or_new(tmp_path, start):
    """A copy of all is what a kill or a power cut at that moment would leave."""
    place, copies = tmp_path / "place", tmp_path / "copies"
    target = make_start(start, place)
    old = texts_in(target)
    with watched(lambda moment: shutil.copytree(place, copies / str(moment))):
        write(target, "new")
    found = []
    for moment in range(1, len(os.listdir(copies)) + 1):
        copy = copies / str(moment) / target.relative_to(place)
        found.append(texts_in(copy))
        write(copy, "third")
        assert texts_in(copy) == texts_of("third")
        # What the killed process left is gone, also where it left it.
        assert sorted(os.listdir(copy)) == sorted(NAMES)
        assert not [*copy.parent.glob(f"{WRITTEN}*")]
    assert found[0] == old and found[-1] == texts_of("new")
    change = found.index(texts_of("new"))
    assert found == [old] * change + [texts_of("new")] * (len(found) - change)


LEAN = f"""
import os, sys, types
package = types.ModuleType("keras_ext")  # without what its __init__ loads
package.__path__ = [{str(Path(keras_ext.__file__).parent)!r}]
sys.modules["keras_ext"] = package
from pathlib import Path
from keras_ext.files.replaced_files import replaced_files
folder, names = Path(sys.argv[1]), {NAMES!r}
"""
WRITES = """
with replaced_files(folder, names) as new:
    for name in names:
        (new / name).write_text(f"new {name}")
"""
DIES = """
left = int(sys.argv[2])
def replace(source, target, replace=os.replace):
    global left
    left -= 1
    if not left:
        os._exit(9)
    replace(source, target)
os.replace = replace
"""


def test_a_process_that_dies_between_two_moves(tmp_path):
    """Of what it had locked nothing is locked when it is dead."""
    found = []
    for move in range(1, 10):
        target = make_start("old files", tmp_path / str(move))
        child = [sys.executable, "-c", LEAN + DIES + WRITES, str(target), str(move)]
        assert subprocess.run(child, check=False).returncode == (9 if move < 9 else 0)
        found.append(texts_in(target)["last"].partition(" ")[0])
        write(target, "third")
        assert texts_in(target) == texts_of("third")
        assert sorted(os.listdir(target)) == sorted(NAMES)
    # Eight moves: the whole becomes complete, three files leave and three come, and it is done.
    assert found == ["old"] + 8 * ["new"]


@pytest.mark.parametrize("start", ["no folder", "old files"])
def test_what_living_processes_write_stays_and_what_dead_ones_wrote_goes(tmp_path, start):
    target = make_start(start, tmp_path / "place")
    place = target if target.exists() else target.parent
    waits = "with replaced_files(folder, names): print(os.getpid(), flush=True), sys.stdin.read()"
    child = [sys.executable, "-c", LEAN + waits, str(target)]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        (left,) = place.glob(f"{WRITTEN}*/new")
        (left / "a").write_text("half")
        write(place / "other" if start == "no folder" else target, "second")
        assert (left / "a").read_text() == "half"
        writer.kill()
    write(place / "other" if start == "no folder" else target, "third")
    assert not [*place.glob(f"{WRITTEN}*")]


def test_where_there_are_no_locks_leftovers_go_when_they_are_old(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "fcntl", None)
    for name in ("young", "old"):
        (tmp_path / f"{WRITTEN}{name}" / "new").mkdir(parents=True)
    os.utime(tmp_path / f"{WRITTEN}old", (0, 0))
    fill(tmp_path, "old")
    write(tmp_path, "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*NAMES, f"{WRITTEN}young"])
    (tmp_path / COMPLETE).mkdir()
    fill(tmp_path / COMPLETE, "moving")
    with pytest.raises(FileExistsError, match=f"{COMPLETE}.*{tmp_path}"):
        write(tmp_path, "late")
    assert texts_in(tmp_path) == texts_of("moving")
    os.utime(tmp_path / COMPLETE, (0, 0))
    write(tmp_path, "later")
    assert texts_in(tmp_path) == texts_of("later")
    assert sorted(os.listdir(tmp_path)) == sorted([*NAMES, f"{WRITTEN}young"])


def test_a_folder_that_was_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    made, mkdtemp = [], hidden_folder.tempfile.mkdtemp

    def removed(*args):
        made.append(mkdtemp(*args))
        if len(made) == 1:
            hidden_folder.remove_what_dead_writers_left(tmp_path)
        return made[-1]

    monkeypatch.setattr(hidden_folder.tempfile, "mkdtemp", removed)
    write(tmp_path, "new")
    assert len(made) == 2
    assert texts_in(tmp_path) == texts_of("new")


@pytest.mark.parametrize("start", STARTS)
def test_of_two_writers_the_last_counts(tmp_path, start):
    target = make_start(start, tmp_path / "place")
    write(target, "late", lambda new: write(target, "early"))
    assert texts_in(target) == texts_of("late")
    assert sorted(os.listdir(target)) == sorted(NAMES)


def test_a_writer_waits_while_another_moves_its_files(tmp_path, monkeypatch):
    target = make_start("old files", tmp_path / "place")
    waits, pause = threading.Event(), folder_lock.time.sleep
    second = threading.Thread(target=write, args=(target, "second"))

    def sleep(seconds):
        waits.set()
        pause(seconds)

    def intrude(moment):
        if (target / COMPLETE).exists() and not second.ident:
            second.start()
            assert waits.wait(10)
            assert texts_in(target) == texts_of("first")

    monkeypatch.setattr(folder_lock.time, "sleep", sleep)
    with watched(intrude):
        write(target, "first")
    second.join()
    assert texts_in(target) == texts_of("second")
    assert sorted(os.listdir(target)) == sorted(NAMES)


def test_a_writer_does_not_wait_for_ever(tmp_path, monkeypatch):
    target = make_start("old files", tmp_path / "place")
    monkeypatch.setattr("keras_ext.files.replaced_files.PATIENCE", 0.05)
    with folder_lock.folder_lock(target, 0):
        with pytest.raises(BlockingIOError, match=f"another process holds its lock.*{target}"):
            write(target, "new")
        with replaced_file(target / "a") as new:  # one file needs no lock
            new.write_text("one")
    assert tree(target) == {**texts_of("old"), "a": "one"}


def test_one_file_written_where_a_process_was_killed_counts(tmp_path):
    fill(tmp_path, "old")
    (tmp_path / COMPLETE).mkdir()
    fill(tmp_path / COMPLETE, "killed")
    with replaced_file(tmp_path / "a") as new:
        new.write_text("one")
    assert tree(tmp_path) == {**texts_of("killed"), "a": "one"}


def fill_the_disk(new):
    (new / "b").write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(new):
    raise KeyboardInterrupt


def lose_a_file(new):
    (new / "b").unlink()


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (fill_the_disk, OSError, "No space left on device: '.*target'"),
        (lose_a_file, FileNotFoundError, "target"),
        (interrupt, KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("start", STARTS)
def test_an_error_while_files_are_written(tmp_path, start, fault, error, message):
    target = make_start(start, tmp_path / "place")
    before = tree(tmp_path)
    with pytest.raises(error, match=message):
        write(target, "new", fault)
    assert tree(tmp_path) == before


def test_a_file_that_cannot_be_moved_out_of_the_way(tmp_path, monkeypatch):
    """As one of another user in a folder such as /tmp, or one that was made immutable."""
    fill(tmp_path, "old")
    replace = os.replace

    def refuse(source, target):
        if Path(source) == tmp_path / "a":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        write(tmp_path, "new")
    assert tree(tmp_path) == texts_of("old")


def test_all_is_synced_before_the_next_step_needs_it(tmp_path, monkeypatch):
    done, replace, fsync = [], os.replace, os.fsync

    def syncing(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def moving(source, target):
        done.append("move")
        replace(source, target)

    fill(tmp_path, "old")
    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", moving)
    write(tmp_path, "new")
    whole = tmp_path.name
    assert done == [*NAMES, "new", "move", whole, *6 * ["move"], whole, "move"]
    done.clear()
    with replaced_file(tmp_path / "above" / "a") as new:
        new.write_text("new")
    assert done == ["a", "new", "move", whole]
    done.clear()
    with replaced_file(tmp_path / "above" / "a") as new:
        new.write_text("newer")
    assert done == ["a", "new", "move", "above"]


def test_modes(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o731)
    inode = (tmp_path / "kept").stat().st_ino
    umask = os.umask(0o027)
    try:
        write(tmp_path / "kept", "new")
        write(tmp_path / "above" / "made", "new")
    finally:
        os.umask(umask)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o731
    assert (tmp_path / "kept").stat().st_ino == inode
    for path in (tmp_path / "above", tmp_path / "above" / "made"):
        assert path.stat().st_mode & 0o777 == 0o750
    for path in [*(tmp_path / "above" / "made").iterdir(), *(tmp_path / "kept").iterdir()]:
        assert path.stat().st_mode & 0o777 == 0o640
    (tmp_path / "kept" / "b").chmod(0o604)
    write(tmp_path / "kept", "newer")
    modes = [(tmp_path / "kept" / name).stat().st_mode & 0o777 for name in NAMES]
    assert modes[1] == 0o604 and modes[0] == modes[2] != 0o604


def test_links_to_files_of_several_are_replaced_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    fill(tmp_path / "elsewhere", "old")
    (tmp_path / "target").mkdir()
    for name in NAMES:
        (tmp_path / "target" / name).symlink_to(tmp_path / "elsewhere" / name)
    write(tmp_path / "target", "new")
    assert texts_in(tmp_path / "elsewhere") == texts_of("old")
    assert texts_in(tmp_path / "target") == texts_of("new")


def test_a_link_to_one_file_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("there", "not there"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "there").write_text("old")
    for name in ("there", "not there"):
        with replaced_file(tmp_path / name) as new:
            new.write_text("new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "elsewhere" / name).read_text() == "new"
        assert os.listdir(tmp_path / "elsewhere").count(name) == 1


def test_a_file_of_any_name(tmp_path):
    path = tmp_path / "above" / ("n" * 255)
    for content in ("first", "second"):
        with replaced_file(path) as new:
            new.write_text(content)
        assert path.read_text() == content
        assert os.listdir(path.parent) == [path.name]


def test_what_is_no_file_is_written_itself_or_refused(tmp_path):
    """A pipe stands for /dev/null: broken code, run by root, would replace that for everybody."""
    with pytest.raises(IsADirectoryError, match=str(tmp_path)), replaced_file(tmp_path):
        pytest.fail("it is entered")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with replaced_file(tmp_path / "pipe") as new:
        assert new == tmp_path / "pipe"
        new.write_text("new")
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "gold").write_text("years of work")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may all
    with pytest.raises(PermissionError, match="gold"), replaced_file(tmp_path / "gold"):
        pytest.fail("it is entered")
    assert tree(tmp_path) == {"gold": "years of work"}
