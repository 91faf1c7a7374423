"""What clients have read and written, on its way to an agent's audit log: gathered here, appended beside.

Reads go on record as counts per minute, principal and command once the minute is over, writes one by one. The
log is appended to by one thread, once a second: requests neither wait for it nor race for its end.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from agent.audit.events import AuditEvent, AuditLog
from schemas.instants import Clock, utc_now
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.home.placed_agent import PlacedAgent

_SUBJECT = "api"
_ONCE = "command"  # sources of this kind are of one process, which nobody goes on with

OpenLog = Callable[[bool], AuditLog | None]


@dataclass(frozen=True)
class _Read:
    minute: datetime
    actor: str
    command: str


class AuditTrail:
    """What is to go on record of one agent. Safe to use from several threads.

    Args:
        open_log: opens the agent's log; told whether it may be begun, returns None where it is not there.
        clock: current time, timezone-aware.
    """

    def __init__(self, open_log: OpenLog, clock: Clock = utc_now) -> None:
        self._open, self._clock = open_log, clock
        self._log: AuditLog | None = None
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._source, self._number = f"{_ONCE}/{uuid.uuid4()}", 0
        self._reads: Counter[_Read] = Counter()
        self._events: list[AuditEvent] = []

    def read(self, actor: str, command: str) -> None:
        """Note that somebody has read something."""
        minute = self._clock().replace(second=0, microsecond=0)
        with self._lock:
            self._reads[_Read(minute, actor, command)] += 1

    def wrote(
        self, actor: str, command: str, rows: int, noted: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Note that somebody has changed something; `noted` are further fields of the event."""
        with self._lock:
            self._add("action", {"command": command, "actor": actor, "rows": rows, **noted})

    def flush(self, *, whole: bool = False) -> None:
        """Append what is to go on record: finished minutes, with `whole` the current one, too.

        Raises:
            FlagstreamError: the log cannot be written; what was to go there is kept for the next time.
        """
        with self._flushing:
            events = self._due(whole)
            if not events:
                return
            has_writes = any(each.kind == "action" for each in events)
            self._log = self._log or self._open(has_writes)
            if self._log is not None:
                self._log.record(events)
            with self._lock:
                del self._events[: len(events)]

    def _due(self, whole: bool) -> list[AuditEvent]:
        now = self._clock().replace(second=0, microsecond=0)
        with self._lock:
            over = [each for each in self._reads if whole or each.minute < now]
            for each in sorted(over, key=lambda read: (read.minute, read.actor, read.command)):
                self._add(
                    "data_access",
                    {"command": each.command, "actor": each.actor, "rows": self._reads.pop(each)},
                )
            return list(self._events)

    def _add(self, kind: Any, detail: dict[str, Any]) -> None:
        self._events.append(AuditEvent(kind, _SUBJECT, detail, self._source, self._number))
        self._number += 1


def opening(agent: PlacedAgent) -> OpenLog:
    """Return what opens an agent's log: one that is begun by a write, and not by who only looks."""

    def open_log(begins: bool) -> AuditLog | None:
        places = AuditPlaces(agent)
        return LakeAudit(places, agent.spec.replay_horizon) if places.check_layout() or begins else None

    return open_log
