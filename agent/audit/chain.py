"""The audit log's hash chain: each row carries a keyed hash of itself and of the row before.

The hash is HMAC-SHA256 (RFC 2104) over the row's fields as canonical JSON. Who does not hold the key cannot
make a row that fits; who takes rows off the end is found by the anchor, a copy of the newest hash kept
outside the table. Everything here is pure.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain, islice
from typing import Literal

from agent.audit.events import AuditEvent

MOST_FAULTS = 100
NOTHING_YET = -1

Problem = Literal[
    "edited", "moved", "missing", "doubled", "forked", "unlinked", "cut", "anchor", "unreadable"
]


@dataclass(frozen=True)
class ChainKey:
    """The secret that hashes are keyed with; it is never shown."""

    secret: bytes = field(repr=False)

    @property
    def identity(self) -> str:
        """Tells keys apart without giving them away: 16 hex digits."""
        return self.seal("flagstream audit key")[:16]

    def seal(self, text: str) -> str:
        """Return the keyed hash of a text, 64 hex digits."""
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the audit table; `at` in microseconds since 1970 UTC, `detail` canonical JSON."""

    number: int
    at: int
    kind: str
    subject: str
    detail: str
    source: str
    position: int
    previous: str
    hash: str


_HASHED = [each.name for each in fields(AuditRow) if each.name != "hash"]


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the newest row's number and hash; `NOTHING_YET` before the first row."""

    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class ChainFault:
    """What is wrong with a chain at a row number.

    A row was edited, moved to another number, doubled, is missing, or does not follow the row before; two
    rows share a number; the end was cut off; the anchor names another row; something cannot be read.
    """

    number: int
    problem: Problem
    detail: str


def origin(key: ChainKey, name: str) -> Head:
    """Return what the first row of the chain called `name` follows."""
    return Head(NOTHING_YET, key.seal(f"flagstream audit chain {name}"))


def linked(key: ChainKey, head: Head, events: Sequence[AuditEvent], at: int) -> list[AuditRow]:
    """Return the rows that append `events` to a chain.

    Args:
        at: when they are recorded, in microseconds since 1970 UTC.
    """
    rows: list[AuditRow] = []
    for event in events:
        row = AuditRow(
            number=head.number + 1,
            at=at,
            kind=event.kind,
            subject=event.subject,
            detail=event.detail_json,
            source=event.source,
            position=event.position,
            previous=head.hash,
            hash="",
        )
        rows.append(replace(row, hash=hash_of(key, row)))
        head = Head(row.number, rows[-1].hash)
    return rows


def hash_of(key: ChainKey, row: AuditRow) -> str:
    """Return the hash that a row must have: of all its fields but the hash."""
    content = {name: getattr(row, name) for name in _HASHED}
    return key.seal(json.dumps(content, sort_keys=True, separators=(",", ":")))


def verify(
    key: ChainKey, start: Head, rows: Iterable[AuditRow], anchors: Collection[Head] = ()
) -> tuple[Head, list[ChainFault]]:
    """Check a chain from `start` on; return its end and what is wrong with it, nothing for a sound one.

    Args:
        start: what the first row has to follow.
        rows: in order of their numbers.
        anchors: the newest rows as of some moments; rows after them are fine as long as they link.

    Once there are 100 faults the rest of the rows are left out.
    """
    walk = _Walk(key, start, anchors)
    for row in rows:
        walk.step(row)
        if walk.faults >= MOST_FAULTS:
            break
    else:
        walk.arrive()
    return walk.head, sorted(walk.all_faults(), key=lambda each: each.number)


class _Walk:
    """One pass over a chain's rows."""

    def __init__(self, key: ChainKey, start: Head, anchors: Collection[Head]) -> None:
        self._key, self._sought = key, {*anchors} - {start}
        self.head, self._trusted = start, True
        self._found: list[ChainFault] = []
        self._strangers: list[AuditRow] = []
        self._gaps: list[range] = []

    @property
    def faults(self) -> int:
        """Number of faults so far."""
        return len(self._found) + len(self._strangers)

    def step(self, row: AuditRow) -> None:
        """Take in the next row."""
        self._sought.discard(Head(row.number, row.hash))
        if hash_of(self._key, row) != row.hash:
            self._strangers.append(row)
            if row.number == self.head.number + 1:
                self.head, self._trusted = Head(row.number, row.hash), False
        elif row.number <= self.head.number:
            self._note_second(row)
        else:
            self._follow(row)

    def arrive(self) -> None:
        """Compare the end with the anchors."""
        for anchor in sorted(self._sought, key=lambda each: -each.number):
            if anchor.number <= self.head.number:
                self._note(anchor.number, "anchor", "the row is not the one that the anchor names")
            elif not any(each.problem == "cut" for each in self._found):
                gap = self._note_gap(anchor.number + 1)
                self._note(gap.start, "cut", f"{_span(gap)} cut off: the anchor names row {anchor.number}")

    def all_faults(self) -> Iterator[ChainFault]:
        """Yield all faults; of rows whose hash does not fit, those taken from another number."""
        yield from self._found
        vacant = [each.number for each in self._strangers]
        vacant += islice(chain.from_iterable(self._gaps), MOST_FAULTS)
        for row in self._strangers:
            home = next((number for number in vacant if self._belongs(row, number)), None)
            if home is None:
                yield ChainFault(row.number, "edited", "its content does not fit its hash")
            else:
                yield ChainFault(row.number, "moved", f"belongs at {home}")

    def _follow(self, row: AuditRow) -> None:
        if row.number > self.head.number + 1:
            gap = self._note_gap(row.number)
            self._note(gap.start, "missing", f"{_span(gap)} missing")
        elif self._trusted and row.previous != self.head.hash:
            self._note(row.number, "unlinked", "does not follow the row before it")
        self.head, self._trusted = Head(row.number, row.hash), True

    def _belongs(self, row: AuditRow, number: int) -> bool:
        return hash_of(self._key, replace(row, number=number)) == row.hash

    def _note_second(self, row: AuditRow) -> None:
        if row.hash == self.head.hash:
            self._note(row.number, "doubled", "the row is there twice")
        else:
            self._note(row.number, "forked", "two different rows carry this number")

    def _note_gap(self, end: int) -> range:
        self._gaps.append(range(self.head.number + 1, end))
        return self._gaps[-1]

    def _note(self, number: int, problem: Problem, detail: str) -> None:
        self._found.append(ChainFault(number, problem, detail))


def _span(gap: range) -> str:
    return f"row {gap[0]} is" if len(gap) == 1 else f"rows {gap[0]} to {gap[-1]} are"
