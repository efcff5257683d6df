import errno
import os
import shutil

import pytest

from keras_ext.tasks.replaced_files import REPLACED, leftovers, replaced_files

NAMES = ("a", "b", "last")
STARTS = ["no folder", "no folder above it", "an empty folder", "old files", "some old files"]


def write(folder, content, then=lambda new: None):
    """Replaces the files; a function of the folder of new ones runs when these are written."""
    with replaced_files(folder, NAMES) as new:
        fill(new, content)
        then(new)


def fill(folder, content):
    for name in NAMES:
        (folder / name).write_text(f"{content} {name}")


def content_of(folder):
    """The content that all files have; None if there is a mixture or less."""
    texts = [(folder / name).read_text() for name in NAMES if (folder / name).exists()]
    content = texts[0].partition(" ")[0] if texts else None
    return content if texts == [f"{content} {name}" for name in NAMES] else None


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


class Moves:
    """`os.replace` that calls a function before each move and after it."""

    def __init__(self, watch):
        self.watch, self.replace, self.moments = watch, os.replace, 0

    def __call__(self, source, target):
        self._moment()
        self.replace(source, target)
        self._moment()

    def _moment(self):
        self.moments += 1
        self.watch(self.moments)


def write_watched(folder, content, patch, watch):
    """`write`, and the number of moments at which `watch` was called."""
    moves = Moves(watch)
    with patch.context() as patched:
        patched.setattr(os, "replace", moves)
        write(folder, content)
    return moves.moments


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "broken disk")], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_an_error_at_any_moment_leaves_all_as_it_was(tmp_path, monkeypatch, start, error):
    target = make_start(start, tmp_path / "whole")
    moments = write_watched(target, "new", monkeypatch, lambda moment: None)
    assert content_of(target) == "new"
    for stop in range(1, moments + 1):
        place = tmp_path / str(stop)
        target = make_start(start, place)
        before = tree(place)

        def watch(moment, place=place, before=before, stop=stop):
            if moment == stop:
                raise error
            # Not even a kill while all is put back loses an old file.
            assert {*before.values()} <= {*tree(place).values()}

        with pytest.raises(type(error)) as raised:
            write_watched(target, "new", monkeypatch, watch)
        if stop < moments:
            assert tree(place) == before
        else:  # all had been done
            assert content_of(target) == "new"
            assert sorted(os.listdir(target)) == sorted(NAMES)
        if isinstance(error, OSError):
            assert str(target) in str(raised.value)
            assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("start", STARTS)
def test_a_process_killed_at_any_moment_loses_nothing(tmp_path, monkeypatch, start):
    place, snapshots = tmp_path / "place", tmp_path / "snapshots"
    target = make_start(start, place)
    moments = write_watched(
        target, "new", monkeypatch, lambda moment: shutil.copytree(place, snapshots / str(moment))
    )
    for moment in range(1, moments + 1):
        left = snapshots / str(moment)
        found = left / target.relative_to(place)
        in_place, *others = (content_of(folder) for folder in (found, *leftovers(found)))
        assert {f"new {name}" for name in NAMES} <= {*tree(left).values()}
        if start == "old files":
            assert {"old", "new"} & {in_place, *others}
        elif start.startswith("no folder"):
            assert in_place == "new" or not found.exists()
        before = tree(left)
        if (found / REPLACED).exists():
            with pytest.raises(FileExistsError, match=f"{REPLACED}.*{found}"):
                write(found, "third", pytest.fail)
            assert tree(left) == before
        else:
            write(found, "third")
            assert content_of(found) == "third"
            assert sorted(os.listdir(found)) == sorted(NAMES)


def test_what_a_killed_process_left_is_removed(tmp_path):
    fill(tmp_path, "old")
    for name in ("one", "two"):
        (tmp_path / f".keras_ext-written-{name}" / "new").mkdir(parents=True)
        fill(tmp_path / f".keras_ext-written-{name}" / "new", "half")
    (tmp_path / "other").write_text("other")
    write(tmp_path, "new")
    assert tree(tmp_path) == {"other": "other", **{name: f"new {name}" for name in NAMES}}


@pytest.mark.parametrize("start", STARTS)
def test_the_first_of_two_writers_to_end_succeeds(tmp_path, start):
    target = make_start(start, tmp_path / "place")
    with pytest.raises(OSError, match=str(target)):
        write(target, "late", lambda new: write(target, "early"))
    assert content_of(target) == "early"
    assert sorted(os.listdir(target)) == sorted(NAMES)


@pytest.mark.parametrize("start", ["an empty folder", "old files"])
def test_a_writer_is_refused_while_another_moves_its_files(tmp_path, monkeypatch, start):
    target = make_start(start, tmp_path / "place")
    late = replaced_files(target, NAMES)
    fill(late.__enter__(), "late")

    def intrude(moment):
        if moment == 1:
            with pytest.raises(FileExistsError, match="another process is moving"):
                late.__exit__(None, None, None)
            with pytest.raises(FileExistsError, match="another process is moving"):
                write(target, "third", pytest.fail)  # before it wrote anything

    write_watched(target, "early", monkeypatch, intrude)
    assert content_of(target) == "early"
    assert sorted(os.listdir(target)) == sorted(NAMES)


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


def test_links_to_files_are_replaced_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    fill(tmp_path / "elsewhere", "old")
    (tmp_path / "target").mkdir()
    for name in NAMES:
        (tmp_path / "target" / name).symlink_to(tmp_path / "elsewhere" / name)
    write(tmp_path / "target", "new")
    assert content_of(tmp_path / "elsewhere") == "old"
    assert content_of(tmp_path / "target") == "new"
