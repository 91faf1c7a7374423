"""A disk that takes nothing is a fault of its own, and a table goes on once it takes something again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake.exceptions import CommitFailedError, DeltaError

from schemas.errors import DiskError
from streaming.delta.faults import table_faults
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.store.place import Place

ROWS = pa.table({"number": pa.array(range(1_000), pa.int64())})
KEEP = timedelta(days=30)


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Callable[[], None]:
    """Leave no byte free; the result makes room again."""
    file = disk / "filling"
    with file.open("wb", buffering=0) as filling, pytest.raises(OSError, match="No space left"):
        while True:
            filling.write(b"x" * 4096)
    return file.unlink


def make_read_only(disk: Path) -> Callable[[], None]:
    mount("-o", "remount,ro", str(disk))
    return lambda: mount("-o", "remount,rw", str(disk))


@pytest.mark.parametrize(("harm", "cause"), [(fill, "No space left"), (make_read_only, "Read-only")])
def test_a_table_says_that_its_disk_takes_nothing_and_goes_on_when_it_does(
    harm: Callable[[Path], Callable[[], None]], cause: str, disk: Path
) -> None:
    table = LakeTable(Place.local(disk / "rows"), ROWS.schema, "tester/epoch", KEEP)
    table.claim(1)
    assert table.append(ROWS, Stamp("tester", 0))
    heal = harm(disk)
    for attempt in (
        lambda: table.append(ROWS, Stamp("tester", 1)),
        lambda: table.append(ROWS.slice(0, 0), Stamp("tester", 1)),
        lambda: LakeTable(Place.local(disk / "more"), ROWS.schema, "tester/epoch", KEEP),
    ):
        with pytest.raises(DiskError, match=cause) as told:
            attempt()
        assert str(told.value).startswith(str(disk)) and len(str(told.value).splitlines()) == 1
    heal()
    assert table.append(ROWS, Stamp("tester", 1))
    assert not table.append(ROWS, Stamp("tester", 1))
    assert table.count() == 2_000


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), DiskError),
        (OSError("Generic LocalFileSystem error: Input/output error (os error 5)"), DiskError),
        (DeltaError("External: Read-only file system (os error 30)"), DiskError),
        (PermissionError(errno.EACCES, "Permission denied"), PermissionError),
        (CommitFailedError("Concurrent transaction failed"), CommitFailedError),
        (DeltaError("No files in log segment"), DeltaError),
        (ValueError("(os error 28)"), ValueError),
    ],
)
def test_other_faults_stay_what_they_are(fault: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind), table_faults(Place("lake")):
        raise fault
