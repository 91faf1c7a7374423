"""What the files of a table's log are called, and what their names say, wherever the table lies."""

from __future__ import annotations

import json
from collections.abc import Iterable

LOG = "_delta_log"
POINTER = "_last_checkpoint"
_SIDECARS = "_sidecars/"
_DIGITS, _ENTRY = 20, ".json"


def entry_name(version: int) -> str:
    """Return the name of a log entry."""
    return f"{prefix_of(version)}{_ENTRY}"


def prefix_of(version: int) -> str:
    """Return what the names of a version's files begin with."""
    return f"{version:0{_DIGITS}}"


def version_of(name: str) -> int | None:
    """Return the version that a file of a log belongs to, None for one of all versions."""
    return int(name[:_DIGITS]) if name[:_DIGITS].isdigit() else None


def versions_of(names: Iterable[str]) -> list[int]:
    """Return the numbers of the log entries among names of files."""
    found = ((name, version_of(name)) for name in names)
    return [number for name, number in found if number is not None and name == entry_name(number)]


def is_of_a_version(name: str) -> bool:
    """Whether a file is an entry, a checkpoint, or part of one."""
    return version_of(name) is not None or name.startswith(_SIDECARS)


def checkpoint_in(pointer: bytes | None) -> int:
    """Return the version of the checkpoint that the content of the pointer names, -1 for none."""
    try:
        return int(json.loads(pointer or b"")["version"])
    except (ValueError, KeyError, TypeError):
        return -1
