"""What a running agent waits for or suffers from: named conditions, each with its cause and since when.

The pipeline's parts say what holds and what is over; whoever watches (a line on the terminal, `status`, JSON)
reads it here or in the small file that is kept beside the agent's state.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO

from schemas.instants import Clock, utc_now


class Condition(StrEnum):
    """Everything that can be wrong with an agent that goes on running; docs/operations.md explains each."""

    BROKER_AWAY = "broker_away"
    ANOTHER_RUN = "another_run"
    DISK_UNUSABLE = "disk_unusable"
    STORE_AWAY = "store_away"
    REGISTRY_UNREADABLE = "registry_unreadable"
    SCHEMA_REGISTRY_AWAY = "schema_registry_away"
    CLUSTER_AWAY = "cluster_away"
    EXECUTORS_FAILING = "executors_failing"
    MODEL_AWAY = "model_away"
    MODEL_FAILING = "model_failing"
    RESTARTING = "restarting"
    CHECKPOINT_FAILING = "checkpoint_failing"
    LABELS_FAILING = "labels_failing"
    LATE_ANSWERS_FAILING = "late_answers_failing"
    TRIAGE_FAULTY = "triage_faulty"
    SHADOW_FAILING = "shadow_failing"
    PROGRESS_FAILING = "progress_failing"
    RECORDS_REJECTED = "records_rejected"
    ENTITY_DOMINATES = "entity_dominates"
    MAINTENANCE_FAILING = "maintenance_failing"
    OWNER_FAILING = "owner_failing"
    CLOCK_SKEW = "clock_skew"
    RULES_FILE_BROKEN = "rules_file_broken"
    RULE_FAILING = "rule_failing"
    REFERENCE_UNREADABLE = "reference_unreadable"
    TRANSACTION_OPEN = "transaction_open"
    METRICS_FAILING = "metrics_failing"
    AUDIT_FAILING = "audit_failing"
    TOKENS_UNREADABLE = "tokens_unreadable"
    INBOX_STALE = "inbox_stale"
    COPIES_STALE = "copies_stale"
    ROUTE_STALLED = "route_stalled"
    FOLLOWER_STALE = "follower_stale"


_MOST_CAUSES = 64  # remembered of a condition that names figures, and so always has another cause

# Under these an agent waits; under all others it works, if less well.
WAITING = frozenset(
    {
        Condition.BROKER_AWAY,
        Condition.ANOTHER_RUN,
        Condition.DISK_UNUSABLE,
        Condition.STORE_AWAY,
        Condition.CLUSTER_AWAY,
        Condition.RESTARTING,
    }
)


@dataclass(frozen=True)
class ActiveCondition:
    """One condition that holds: the cause in a sentence, and since when."""

    condition: Condition
    cause: str
    since: datetime


class Health:
    """The conditions of one agent, from here to `close`; any thread may call.

    Args:
        file: where other processes read it while this one runs, None to keep it in memory alone.
        changed: called when a condition begins (with it), when it has a cause that it has not had since, and
            when it ends (with None); of causes that take turns, once for each.
        clock: current time.
    """

    def __init__(
        self,
        file: Path | None = None,
        changed: Callable[[Condition, ActiveCondition | None], None] = lambda _, __: None,
        clock: Clock = utc_now,
    ) -> None:
        self._file, self._changed, self._clock = file, changed, clock
        self._lock = threading.Lock()
        self._active: dict[Condition, ActiveCondition] = {}
        self._reported: dict[Condition, set[str]] = {}
        self._running = None if file is None else _mark_running(file)
        self._write()

    def close(self) -> None:
        """Leave the file to the next driver; from here on it tells nothing."""
        if self._running is not None:
            self._running.close()

    def keep_in(self, file: Path) -> None:
        """Go on in another file, which nobody else keeps; the one so far is removed."""
        with self._lock:
            before, running = self._file, self._running
            if before is None or before == file:
                return
            self._file, self._running = file, _mark_running(file)
            self._write()
        with contextlib.suppress(OSError):
            before.unlink(missing_ok=True)
        if running is not None:
            running.close()

    @property
    def active(self) -> tuple[ActiveCondition, ...]:
        """What holds now, the longest first."""
        with self._lock:
            return tuple(sorted(self._active.values(), key=lambda each: each.since))

    def begins(self, condition: Condition, cause: str) -> None:
        """Say that a condition holds; said again it keeps its beginning."""
        with self._lock:
            before = self._active.get(condition)
            if before is not None and before.cause == cause:
                return
            now = ActiveCondition(condition, cause, before.since if before else self._clock())
            self._active[condition] = now
            self._write()
            is_news = self._is_news(condition, cause)
        if is_news:
            self._notify(condition, now)

    def ends(self, condition: Condition) -> None:
        """Say that a condition is over; said of one that does not hold, nothing happens."""
        with self._lock:
            if self._active.pop(condition, None) is None:
                return
            del self._reported[condition]
            self._write()
        self._notify(condition, None)

    def update(self, condition: Condition, cause: str | None) -> None:
        """Say why a condition holds; None: it does not."""
        if cause is None:
            self.ends(condition)
        else:
            self.begins(condition, cause)

    def _is_news(self, condition: Condition, cause: str) -> bool:
        """Say whether a condition has not had this cause since it began, as far as that is remembered."""
        reported = self._reported.setdefault(condition, set())
        if cause in reported:
            return False
        if len(reported) == _MOST_CAUSES:
            reported.clear()
        reported.add(cause)
        return True

    def _notify(self, condition: Condition, state: ActiveCondition | None) -> None:
        """A terminal that is gone must not end whoever has something to tell."""
        with contextlib.suppress(OSError, ValueError):
            self._changed(condition, state)

    def _write(self) -> None:
        """Keep the file up to date; a disk that takes nothing is another condition, not reported here."""
        if self._file is None:
            return
        rows = [
            {"condition": each.condition, "cause": each.cause, "since": each.since.isoformat()}
            for each in self._active.values()
        ]
        beside = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(rows), encoding="utf-8")
            beside.replace(self._file)


def read_health(file: Path) -> tuple[ActiveCondition, ...]:
    """Return the conditions of an agent that is running, none where no process runs it."""
    if not is_running(file):
        return ()
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return tuple(
            ActiveCondition(Condition(row["condition"]), row["cause"], datetime.fromisoformat(row["since"]))
            for row in rows
        )
    except (OSError, ValueError):
        return ()


def beside(file: Path) -> Path:
    """Return where a run is read of that waits for the one that keeps a file."""
    return file.with_suffix(".waiting.json")


def is_running(file: Path) -> bool:
    """Say whether a process keeps this file: the lock falls with the process, however it ends."""
    try:
        with _lock_of(file).open("rb") as beside:
            fcntl.flock(beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def running_since(file: Path) -> datetime | None:
    """Return when the newest process began that keeps this file, None where none does."""
    if not is_running(file):
        return None
    try:
        return datetime.fromtimestamp(_lock_of(file).stat().st_mtime, UTC)
    except OSError:
        return None


def _mark_running(file: Path) -> IO[bytes] | None:
    """Hold a lock beside the file, shared with a driver that is being fenced."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        held = _lock_of(file).open("ab")
        fcntl.flock(held, fcntl.LOCK_SH)
        os.utime(held.fileno())  # since when it runs
        return held
    return None


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".lock")
