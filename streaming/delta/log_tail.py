"""The end of a table's log: what a power cut may leave there, and how it is recognised.

Delta writes an entry under another name and renames it, so a reader never sees half of one while the machine
runs. After a power cut an entry may be empty, cut off or full of zeros, and so may the data files it names.
An empty entry would open as an empty commit, one cut at the end of a line as a smaller one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DataLossError
from streaming.delta.durable import sync
from streaming.delta.log_files import LOG, POINTER, checkpoint_in, entry_name, version_of, versions_of
from streaming.delta.remote_log import remote_checkpoint
from streaming.store.place import Place

TRANSACTIONS_KEY = "flagstream.transactions"  # in a commit's facts: how many of its lines are transactions
_OURS = "delta-rs"
_MAGIC = b"PAR1"
_EXAMINED = 200


def entry_path(table: Place, version: int) -> Path:
    """Return the file of a log entry."""
    return table.path / LOG / entry_name(version)


def is_torn(table: Place, version: int) -> bool:
    """Return whether a log entry, or a data file that it adds, is not whole; False where it is gone."""
    try:
        actions = log_actions(entry_path(table, version).read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    added = [action["add"] for action in actions if "add" in action]
    return not _is_complete(actions) or any(_is_torn_file(table, each) for each in added)


def added_files(table: Place, version: int) -> list[dict[str, Any]]:
    """Return what a log entry says of the files that it adds: path, size, and statistics as JSON."""
    return [
        action["add"] for action in log_actions(entry_path(table, version).read_bytes()) if "add" in action
    ]


def names_in(entry: bytes) -> set[str]:
    """Return the data files that a log entry adds or removes."""
    named = (action.get("add") or action.get("remove") for action in log_actions(entry))
    return {each["path"] for each in named if each is not None}


def check_newest(table: Place, version: int | None = None) -> None:
    """Check the newest log entry of a table, whose version is given where it is known.

    Raises:
        DataLossError: it is torn.
    """
    newest = max(_versions(table), default=None) if version is None else version
    if newest is not None and is_torn(table, newest):
        raise torn_error(table, newest, "`flagstream run` repairs it where nothing rests on it yet")


def torn_error(table: Place, version: int, advice: str) -> DataLossError:
    """Name a torn log entry, and say what to do."""
    return DataLossError(
        f"{entry_path(table, version)} is not whole, as a power cut may leave it: {advice}; "
        "or restore the table from a copy"
    )


def torn_end(table: Place) -> int | None:
    """Return the version from which on all entries are torn, None where the newest is whole.

    Raises:
        DataLossError: a torn entry has whole ones after it, which may rest on it.
    """
    newest = sorted(_versions(table))[-_EXAMINED:]
    torn = [version for version in newest if is_torn(table, version)]
    if torn and torn != newest[-len(torn) :]:
        raise torn_error(
            table,
            torn[0],
            "what it held is lost, and later commits were made without it; to go on without it, replace its "
            'content by the line {"commitInfo":{}}',
        )
    return torn[0] if torn else None


def facts_before(table: Place, version: int, key: str) -> dict[str, Any] | None:
    """Return the facts of the newest commit before a version that carries any under a key, None for none."""
    for earlier in sorted((each for each in _versions(table) if each < version), reverse=True):
        info = log_actions(entry_path(table, earlier).read_bytes())[0].get("commitInfo", {})
        if key in info:
            return cast("dict[str, Any]", json.loads(info[key]))
    return None


def checkpointed_version(table: Place) -> int:
    """Return the version of the newest checkpoint of a log, -1 for none."""
    if not table.is_local:
        return remote_checkpoint(table)
    try:
        return checkpoint_in((table.path / LOG / POINTER).read_bytes())
    except FileNotFoundError:
        return -1


def checkpoint_mark(table: Place) -> int:
    """Return what changes whenever a checkpoint is written; looking costs microseconds.

    In an object store it would cost a request; there it is always 0.
    """
    if not table.is_local:
        return 0
    try:
        return (table.path / LOG / POINTER).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def entry_mark(table: Place, version: int) -> tuple[int, int, int] | None:
    """Return what tells the file of a log entry from another in its place; None: none is here."""
    if not table.is_local:
        return None
    try:
        found = entry_path(table, version).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def cut_from(table: Place, version: int) -> None:
    """Remove the log entries of a version and of all that followed."""
    for later in sorted((each for each in _versions(table) if each >= version), reverse=True):
        entry_path(table, later).unlink()
    sync(table)


def mend_checkpoints(table: Place) -> None:
    """Remove checkpoints of the log that are not whole, as long as the entries that they stand for are there.

    Raises:
        DataLossError: they are not.
    """
    folder = table.path / LOG
    checkpoints = sorted(folder.glob("*.checkpoint*.parquet"))
    torn = [path for path in checkpoints if _is_torn_parquet(path)]
    if torn:
        versions = (version_of(path.name) for path in checkpoints if path not in torn)
        whole = [version for version in versions if version is not None]
        _check_entries_since(table, max(whole, default=-1), torn[-1])
    for path in torn:
        path.unlink()
    if torn or _is_torn_pointer(folder / POINTER):
        (folder / POINTER).unlink(missing_ok=True)
        sync(table)


def _check_entries_since(table: Place, checkpoint: int, torn: Path) -> None:
    versions = set(_versions(table))
    if not versions or not versions.issuperset(range(checkpoint + 1, max(versions) + 1)):
        raise DataLossError(
            f"{torn} is not whole, as a power cut may leave it, and log entries that it stands for are "
            "gone: restore the table from a copy"
        )


def _versions(table: Place) -> Iterator[int]:
    with suppress(FileNotFoundError):
        yield from versions_of([path.name for path in (table.path / LOG).iterdir()])


def log_actions(entry: bytes) -> Sequence[Mapping[str, Any]]:
    """Return the actions of a log entry.

    Raises:
        ValueError: it is empty, or a line is not an object.
    """
    actions = [json.loads(line) for line in entry.splitlines()]
    if not actions or not all(isinstance(action, dict) and action for action in actions):
        raise ValueError("no actions")
    return actions


def _is_complete(actions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an entry that this library wrote has all the lines that its first one counts."""
    info = actions[0].get("commitInfo", {})
    if not str(info.get("engineInfo", "")).startswith(_OURS):
        return True
    kinds = Counter(kind for action in actions for kind in action)
    return all(kinds[kind] >= least for kind, least in _expected(info).items())


def _expected(info: Mapping[str, Any]) -> dict[str, int]:
    metrics, operation = info.get("operationMetrics", {}), info.get("operation")
    if operation == "OPTIMIZE":
        return {"add": metrics.get("numFilesAdded", 0), "remove": metrics.get("numFilesRemoved", 0)}
    if operation in ("CREATE TABLE", "ADD COLUMN"):
        return {"metaData": 1}
    if operation != "WRITE":
        return {}
    # Older versions of flagstream did not count: a batch has its epoch and its stamp.
    least = 2 if "flagstream" in info else 0
    return {"add": metrics.get("num_added_files", 0), "txn": int(info.get(TRANSACTIONS_KEY, least))}


def _is_torn_file(table: Place, added: Mapping[str, Any]) -> bool:
    path = table.path / added["path"]
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2)
            file.seek(max(length - len(_MAGIC), 0))
            return bool(length != added["size"] or file.read() != _MAGIC)
    except FileNotFoundError:
        return False  # removed with the entry's version, or named in a way that only Delta resolves


def _is_torn_parquet(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return True
    return False


def _is_torn_pointer(path: Path) -> bool:
    try:
        return not isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        return False
    except ValueError:
        return True
