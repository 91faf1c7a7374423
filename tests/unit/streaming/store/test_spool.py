"""What a process has on its way to a store outlives it only until another one spools something."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streaming.delta.log_mirror import LogMirror
from streaming.store import spool
from streaming.store.place import Place
from streaming.store.spool import spool_folder, spooled

CHILD = """
import sys
from pathlib import Path
from streaming.store.spool import keep_spool_in, spool_folder
keep_spool_in(Path(sys.argv[1]))
folder = spool_folder("rows-")
(folder / "file").write_text("rows")
print(folder, flush=True)
sys.stdin.read()
"""


@contextmanager
def child(root: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    command = [sys.executable, "-c", CHILD, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_process_has_left_goes_and_what_others_use_stays(tmp_path: Path) -> None:
    with child(tmp_path) as (killed, left), child(tmp_path) as (_, used):
        killed.kill()
        killed.wait()
        assert (left / "file").is_file()
        mine = spool_folder("rows-", tmp_path)
        assert not left.parent.exists()
        assert (used / "file").is_file()
    assert mine.is_dir()
    assert spool_folder("rows-", tmp_path).parent == mine.parent


def test_the_copy_of_a_log_lies_in_the_spool_and_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool._SPOOL, "root", tmp_path)
    copy = LogMirror(Place("s3://lake/rows"))
    (own,) = tmp_path.iterdir()
    assert [each.name.startswith("flagstream-log-") for each in own.iterdir()] == [True]
    del copy
    assert list(own.iterdir()) == []


def test_a_spooled_folder_is_removed_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), spooled("rows-", tmp_path) as folder:
        (folder / "file").write_text("rows")
        raise RuntimeError
    assert not folder.exists()


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.ENOTSUP])
def test_where_a_folder_cannot_be_locked_it_lies_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As on a share of a network, which locks no folder that is open to be read."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with spooled("rows-", tmp_path) as folder:
        assert not folder.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "is_raised"), [(errno.EROFS, False), (errno.ENOSPC, True)])
def test_without_a_right_to_write_there_it_lies_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_raised: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(spool, "_made", refuse)
    if is_raised:
        with pytest.raises(OSError, match="No space left"):
            spool_folder("rows-", tmp_path)
        return
    folder = spool_folder("rows-", tmp_path)
    assert not folder.is_relative_to(tmp_path)
    shutil.rmtree(folder)
