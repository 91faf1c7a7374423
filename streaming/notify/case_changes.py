"""Changes of cases on their way to receivers: the table of case events is their outbox.

A change is the record of a table at a number, so a route's place is the number that comes next, kept as its
place on a topic is. Its message follows from the events up to it, so every attempt is the same message.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from schemas.cases import CaseChange
from schemas.counts import count_of
from schemas.routes import When
from schemas.rules import SEVERITIES
from streaming.notify.notices import Notice, plain

CASES = "cases/"  # in the place of a topic, which cannot be called so
_ONLY = 0
_PACE_SECONDS = 1.0


class CaseEvents(Protocol):
    """Where changes of cases are read."""

    def next_number(self) -> int:
        """Return the number of the event to come."""

    def end(self) -> int:
        """Return that number once all alerts there are have become cases."""

    def since(self, first: int, wanted: Collection[CaseChange]) -> list[dict[str, Any]]:
        """Return some changes from a number on, oldest first; see streaming.cases.changes.changes_of."""


@dataclass(frozen=True)
class CaseNotice(Notice):
    """A change of a case on its way out; see Notice."""

    @classmethod
    def of_change(cls, agent: str, change: Mapping[str, Any]) -> CaseNotice:
        """Return the notice of a change."""
        document = orjson.dumps({"agent": agent, **change}, option=orjson.OPT_SORT_KEYS)
        return cls(orjson.loads(document), document)

    @property
    def message_id(self) -> str:
        """See Notice: another one for each event about a case."""
        return f"msg_case_{self.alert['case_id']}_{self.alert['number']}"

    @property
    def severity(self) -> str:
        """See Notice; the least where no alert says one."""
        return str(self.alert["case"]["severity"] or SEVERITIES[0])

    @property
    def incident(self) -> str:
        """See Notice."""
        return str(self.alert["case_id"])

    @property
    def made_at(self) -> datetime:
        """See Notice."""
        return datetime.fromisoformat(self.alert["at"])

    @property
    def change(self) -> str:
        """What routes call it."""
        event = str(self.alert["event"])
        return f"closed_{self.alert['reason']}" if event == "closed" else event

    def is_wanted(self, when: When) -> bool:
        """See Notice."""
        return self.change in when.case and (not when.severity or self.severity in when.severity)

    @property
    def kind(self) -> str:
        """What has become of the case."""
        return f"case.{self.alert['event']}"

    @property
    def body(self) -> bytes:
        """See Notice."""
        head = f'{{"type":"{self.kind}","timestamp":"{self.alert["at"]}","data":'.encode()
        return head + self.document + b"}"

    @property
    def title(self) -> str:
        """See Notice."""
        return f"{self.severity}: case {self.change.replace('_', ' ')} ({self.alert['agent']})"

    def lines(self, *, ids: bool) -> list[str]:
        """See Notice; who did it is named, and what they wrote is an outsider's text."""
        case, who, text = self.alert["case"], self.alert["who"], self.alert["text"]
        alerts = count_of(case["alerts"], "alert")
        about = f"{case['entity']} {plain(case['entity_id'])}" if ids and case["entity_id"] else ""
        return [
            f"case {self.alert['case_id']}, {alerts}, level {case['level']}, {case['status']}",
            *([about] if about else []),
            *([f"by {plain(who)} at {self.alert['at']}"] if who else []),
            *([f"why: {plain(text)}"] if text else []),
        ]


@dataclass(frozen=True)
class CaseRecord:
    """A change as it lies in the table.

    Attributes:
        notice: that it makes.
        offset: its number.
        partition: the only one.
    """

    notice: CaseNotice
    offset: int
    partition: int = _ONLY


class CaseChangeReader:
    """Reads changes of cases for one route; see streaming.notify.lane.AlertSource.

    Args:
        events: where they are read.
        agent: whose cases they are.
        wanted: names of the changes that the route takes.
        wait: waits for some seconds, or until all is to end.
    """

    def __init__(
        self, events: CaseEvents, agent: str, wanted: Collection[CaseChange], wait: Callable[[float], object]
    ) -> None:
        self._events, self._agent, self._wanted, self._wait = events, agent, wanted, wait
        self._next = 0

    def ends(self) -> dict[int, int]:
        """See AlertSource."""
        return {_ONLY: self._events.end()}

    def begin(self, places: Mapping[int, int]) -> dict[int, int]:
        """See AlertSource; a place beyond the end is of a lake that was set back, and becomes its end."""
        self._next = min(places.get(_ONLY, 0), self._events.next_number())
        return {_ONLY: self._next}

    def fetch(self) -> list[CaseRecord]:
        """See AlertSource."""
        found = self._events.since(self._next, self._wanted)
        if not found:
            self._wait(_PACE_SECONDS)
            return []
        self._next = found[-1]["number"] + 1
        return [CaseRecord(CaseNotice.of_change(self._agent, each), each["number"]) for each in found]

    def has_grown(self) -> bool:
        """See AlertSource: there is one table."""
        return False

    def close(self) -> None:
        """See AlertSource: nothing is held."""
