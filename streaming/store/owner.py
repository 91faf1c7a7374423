"""Who runs an agent: a record beside its lake, with a counter that moves for as long as somebody does.

Whoever finds it moving waits; whoever sees it stand still for half a minute, by a clock of its own, takes it.
Nobody compares clocks of two machines. That two never write at once rests on Delta's epochs and Kafka's
transactions, not on this record: it keeps two runs from fencing each other in turns.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO

from schemas.errors import FencedError, FlagstreamError
from schemas.instants import Clock, utc_now
from streaming.store.files import Files, FileState

TAKEOVER_SECONDS = 30.0
BEAT_SECONDS = 5.0
_MOST_BETWEEN_READS = 2 * BEAT_SECONDS
_NOBODY = ""
_HOLDER = re.compile(r"([0-9a-f]{32})?")  # it is part of a file's name


@dataclass(frozen=True)
class OwnerRecord:
    """What the record says.

    Attributes:
        holder: who holds it, a random name; empty where it was given up.
        host: name of its machine.
        pid: of its process.
        since: when it took the record, by its own clock, for people to read.
        beat: the counter.
    """

    holder: str
    host: str
    pid: int
    since: datetime
    beat: int = 0

    def to_json(self) -> bytes:
        """Return the record as one line of JSON."""
        return (json.dumps({**asdict(self), "since": self.since.isoformat()}) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes) -> OwnerRecord | None:
        """Return the record, None where it is none."""
        try:
            noted = json.loads(content)
            holder, since = str(noted["holder"]), datetime.fromisoformat(noted["since"])
            record = cls(holder, str(noted["host"]), int(noted["pid"]), since, int(noted["beat"]))
        except (ValueError, LookupError, TypeError):
            return None
        return record if _HOLDER.fullmatch(holder) else None

    @property
    def who(self) -> str:
        """The holder, in words."""
        return f"{self.host} (process {self.pid}) since {self.since:%Y-%m-%d %H:%M:%S}Z"


class Owner:
    """One process that holds the record of an agent, or waits for it.

    Args:
        files: where the record lies.
        agent: its name.
        locks: a folder of this machine, where a lock falls with the process that holds the record: what runs
            beside it sees at once that it has died.
        takeover: seconds for which the counter has to stand still.
        clock: seconds of a clock that never goes back.
        now: the current time in UTC.
        host: name of this machine.
    """

    def __init__(
        self,
        files: Files,
        agent: str,
        locks: Path,
        *,
        takeover: float = TAKEOVER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Clock = utc_now,
        host: str | None = None,
    ) -> None:
        self._files, self._name, self._locks, self._agent = files, f"{agent}.json", locks, agent
        self._takeover, self._clock, self._now = takeover, clock, now
        self._host = host or socket.gethostname()
        self._held: tuple[OwnerRecord, FileState] | None = None
        self._lock: IO[bytes] | None = None
        self._seen: tuple[bytes, float] | None = None
        self._read_at = clock()

    @property
    def holds(self) -> bool:
        """Whether this process holds the record."""
        return self._held is not None

    def waits_for(self) -> str | None:
        """Take the record where that may be; else say who holds it."""
        if self._held is not None:
            return None
        found = self._read_record()
        record = None if found is None else OwnerRecord.parse(found.content)
        if found is not None and record is not None and not self._may_take(record, found.content):
            return f"waiting for another run of this agent: {record.who}"
        return None if self._take(found) else "waiting for another run of this agent, which has just begun"

    def beat(self) -> float:
        """Move the counter; return the seconds until it should be moved again.

        Raises:
            FencedError: somebody else has taken the record.
            RetryableError: the store is away.
        """
        if self._held is None:
            return BEAT_SECONDS
        record, held = self._held
        later = replace(record, beat=record.beat + 1)
        written = self._files.replace(self._name, later.to_json(), held)
        self._held = self._again(record) if written is None else (later, written)
        return BEAT_SECONDS

    def release(self) -> None:
        """Give the record up, so that nobody waits for it; one that cannot be written just stands still."""
        if self._held is not None:
            record, held = self._held
            given_up = replace(record, holder=_NOBODY, beat=record.beat + 1)
            with suppress(FlagstreamError, OSError):
                self._files.replace(self._name, given_up.to_json(), held)
            self._held = None
        self._unlock()

    def _read_record(self) -> FileState | None:
        """Read the record; time for which nobody looked counts as two beats at most.

        While it cannot be read, its holder cannot move it either.
        """
        seen, self._seen = self._seen, None
        found, before = self._files.read(self._name), self._read_at
        self._read_at = self._clock()
        if seen is not None:
            content, stood = seen
            self._seen = content, stood + min(self._read_at - before, _MOST_BETWEEN_READS)
        return found

    def _may_take(self, record: OwnerRecord, content: bytes) -> bool:
        if record.holder == _NOBODY or self._has_died(record):
            return True
        if self._seen is None or self._seen[0] != content:
            self._seen = content, 0.0
        return self._seen[1] >= self._takeover

    def _take(self, found: FileState | None) -> bool:
        ours = OwnerRecord(uuid.uuid4().hex, self._host, os.getpid(), self._now())
        self._lock = _locked(self._lock_of(ours))
        try:
            written = self._write(ours, found)
        except BaseException:
            self._unlock()
            raise
        if written is None:
            self._unlock()
            return False
        self._held, self._seen = (ours, written), None
        return True

    def _write(self, ours: OwnerRecord, found: FileState | None) -> FileState | None:
        if found is None:
            return self._files.create(self._name, ours.to_json())
        return self._files.replace(self._name, ours.to_json(), found)

    def _again(self, record: OwnerRecord) -> tuple[OwnerRecord, FileState]:
        """Return what is there after a beat was refused, as long as it is ours."""
        found = self._files.read(self._name)
        there = None if found is None else OwnerRecord.parse(found.content)
        if found is None or there is None or there.holder != record.holder:
            self._held = None
            self._unlock()
            by = "its record is gone" if there is None else f"by {there.who}"
            raise FencedError(f"another run of this agent has taken over: {by}")
        return there, found

    def _has_died(self, record: OwnerRecord) -> bool:
        """Whether the holder ran here, by its lock, and does no more."""
        path = self._lock_of(record)
        if record.host != self._host or not path.is_file():
            return False
        lock = _locked(path)
        if lock is None:
            return False
        path.unlink(missing_ok=True)
        lock.close()
        return True

    def _lock_of(self, record: OwnerRecord) -> Path:
        return self._locks / f"{self._agent}.{record.holder}.lock"

    def _unlock(self) -> None:
        if self._lock is not None:
            with suppress(OSError):
                Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def _locked(path: Path) -> IO[bytes] | None:
    """Hold a lock on a file, None where somebody else holds it or there can be none."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path.open("ab")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held.close()
            raise
        return held
    return None
