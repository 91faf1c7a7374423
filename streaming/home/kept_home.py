"""What is small of the state and lies in no store, kept where it outlives a machine that comes and goes.

That is what model endpoints have shown that they take: files that are replaced whole, of which an older copy
is fine. Keys are not kept: where the lake lies in a store, they come from the environment.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streaming.output.log import log

KEPT = ("llm",)
_SECONDS = 60.0
_PART = ".part"


class KeptHome:
    """A folder of state on this machine, and its copy elsewhere.

    Args:
        home: folder of all state.
        kept: folder of the copy, which takes whole files alone: nothing is appended, locked or linked there.
    """

    def __init__(self, home: Path, kept: Path) -> None:
        self._home, self._kept = home, kept
        self._saved: dict[Path, tuple[int, int]] = {}

    def restore(self) -> int:
        """Copy what this machine does not have yet, and return how many files that were.

        Raises:
            OSError: the copy cannot be read.
        """
        count = 0
        for path in _files(self._kept):
            place = self._home / path
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _copy(self._kept / path, place)
                count += 1
        return count

    def save(self) -> int:
        """Copy what has changed since the last time, remove what has gone, and return how many files changed.

        Raises:
            OSError: the copy cannot be written.
        """
        there = {path: mark for path in _files(self._home) if (mark := _mark(self._home / path)) is not None}
        changed = [path for path, mark in there.items() if self._saved.get(path) != mark]
        for path in changed:
            (self._kept / path).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # gone since
                _copy(self._home / path, self._kept / path)
                self._saved[path] = there[path]
        for path in [path for path in self._saved if path not in there]:
            (self._kept / path).unlink(missing_ok=True)
            del self._saved[path]
        return len(changed)


@contextmanager
def keeping(kept: KeptHome, seconds: float = _SECONDS) -> Iterator[None]:
    """Save every so many seconds, and at the end; a fault of the copy is logged and ends nothing."""
    ending = threading.Event()

    def follow() -> None:
        while not ending.wait(seconds):
            _save(kept)

    # No worker: it belongs to a process, not to an agent, and has no condition to report.
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        _save(kept)


def _save(kept: KeptHome) -> None:
    try:
        kept.save()
    except OSError as fault:
        text = f"what is kept of the state is not up to date: {fault.strerror}; it is tried again"
        log("state_not_kept", text, level=logging.WARNING)


def _files(folder: Path) -> Iterator[Path]:
    for name in KEPT:
        place = folder / name
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in found:
            if path.is_file() and not path.name.endswith(_PART) and not path.name.startswith("."):
                yield path.relative_to(folder)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _copy(source: Path, place: Path) -> None:
    """Whole or not at all, also for those who read it meanwhile."""
    part = place.with_name(place.name + _PART)
    shutil.copyfile(source, part)
    part.replace(place)
