"""The audit log in Delta: a chained table that the agent and the commands of people append to side by side.

Each append carries the number of its last row as an application transaction. So of two writers that go on
from the same row one is refused, looks again and goes on from the other's row: the chain cannot fork. The
same commit settles how far the events of each source are recorded, so none is recorded twice.

Then the anchor moves on. A crash in between leaves it one append behind; the next writer checks that what
follows the anchor links to it, moves the anchor there, and only then appends.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import timedelta
from typing import NoReturn

import pyarrow as pa

from agent.audit.chain import AuditRow, ChainKey, Head, linked, origin, verify
from agent.audit.events import AuditEvent
from schemas.errors import ConfigurationError, DataLossError
from schemas.instants import Clock, micros_of, utc_now
from schemas.tables import AUDIT
from streaming.audit.audit_guard import Anchor, AnchorFile, chain_key, make_key
from streaming.audit.audit_lines import log_events
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.delta.stored import StoredTable
from streaming.delta.table_versions import open_for_reading
from streaming.home.placed_agent import PlacedAgent
from streaming.store.opening import files_of
from streaming.store.place import Place

_CHAIN = "audit/chain"
_RUNS = frozenset({"command", "agent_run", "replay"})
_NAMES = [each.name for each in fields(AuditRow)]


class AuditPlaces:
    """Where an agent's audit log and its guards lie.

    Args:
        agent: whose log it is; the settings hold the key if it is given.
    """

    def __init__(self, agent: PlacedAgent) -> None:
        name, kept = agent.spec.tables.audit, agent.settings.audit(agent.name)
        self.agent = agent.name
        self.table = LakeReader.of(agent).place("audit")
        self.guards = files_of(agent.settings.anchor(agent.name), agent.settings.anchor_access)
        self.anchor = AnchorFile(self.guards, f"{name}.anchor")
        self.chain = f"{agent.name}/{name}"
        self._key_file = kept.path / "key" if kept.is_local else None
        self._given = agent.settings.audit_key

    def first_key(self) -> ChainKey:
        """Return the key to begin a chain with: the one given or kept, else a new one.

        Raises:
            ConfigurationError: there is none, and a store is no place to make one.
        """
        key = chain_key(self._key_file, self._given)
        return key or make_key(self._key_file or _no_key_in(self.table))

    def key(self, anchor: Anchor | None) -> ChainKey:
        """Return the key of the chain that an anchor belongs to.

        Raises:
            ConfigurationError: the key is gone, or is not the one that the chain was begun with.
        """
        key = chain_key(self._key_file, self._given)
        if key is None:
            raise ConfigurationError(
                "the audit log's key is gone: restore it, or set FLAGSTREAM_AUDIT_KEY",
                where=str(self._key_file or _no_key_in(self.table)),
            )
        if anchor is not None and anchor.key != key.identity:
            raise ConfigurationError(
                "the audit log was begun with another key: unset or correct FLAGSTREAM_AUDIT_KEY, or name "
                "another table in the spec to begin a new log, tables: {audit: NAME}",
                where=str(self._key_file if self._given is None else "FLAGSTREAM_AUDIT_KEY"),
            )
        return key

    def check_layout(self) -> bool:
        """Check that the table, if there is one, is of this layout; True when it has rows.

        Raises:
            ConfigurationError: it is of another layout.
            MachineError: it cannot be read.
        """
        table = open_for_reading(self.table)
        if table is None:
            return False
        if pa.schema(table.schema().to_arrow()).names != AUDIT.names:
            raise ConfigurationError(
                "this audit table is of another version and not chained: it stays as it is; name another "
                f"table in the spec to begin a chained one: tables: {{audit: {self.table.name}_chained}}",
                where=str(self.table),
            )
        return table.transaction_version(_CHAIN) is not None


class LakeAudit:
    """See agent.audit.events.AuditLog. Safe to use from several threads and processes.

    Args:
        places: where table, key and anchor lie; the table is created when absent.
        retention: how long versions of the table stay readable.
        clock: current time, timezone-aware, written into each row.

    Raises:
        ConfigurationError: the table is of another layout, or the key is not the chain's.
        DataLossError: the anchor is gone.
    """

    def __init__(self, places: AuditPlaces, retention: timedelta, clock: Clock = utc_now) -> None:
        self._anchors, self._clock, self._lock = places.anchor, clock, threading.Lock()
        self._agent = places.agent
        self._recorded_here: dict[str, int] = {}
        anchor = self._anchors.read()
        if places.check_layout() and anchor is None:
            raise _anchor_gone(places.anchor.place)
        self._key = places.first_key() if anchor is None else places.key(anchor)
        self._last = origin(self._key, places.chain)
        if anchor is None:  # a chain has an anchor before it has rows
            self._advance(origin(self._key, places.chain))
        self._table = SharedTable(places.table, AUDIT, retention)

    def record(self, events: Sequence[AuditEvent]) -> None:
        """See agent.audit.events.AuditLog.

        Raises:
            DataLossError: the table ends before its anchor, or what follows the anchor does not link to it.
        """
        with self._lock:
            head = self._table.by_turns(lambda: self._append(events))
            self._advance(head)

    def position(self, source: str) -> int:
        """Return how far the events of a source are on record, -1 for not at all."""
        return self._recorded_here.get(source, self._table.last_batch(_recorded_by(source)))

    def renew(self) -> bool:
        """See streaming.delta.lake_table.LakeTable."""
        with self._lock:
            return self._table.renew()

    def _append(self, events: Sequence[AuditEvent]) -> Head:
        head = self._head()
        fresh = [each for each in events if each.position > self.position(each.source)]
        if not fresh:
            return head
        rows = linked(self._key, head, fresh, micros_of(self._clock()))
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=AUDIT)
        reached = {each.source: each.position for each in fresh}
        also = [
            Stamp(_recorded_by(source), at) for source, at in reached.items() if not _recorded_once(source)
        ]
        self._table.append(table, Stamp(_CHAIN, rows[-1].number), also=also)
        self._recorded_here |= {source: at for source, at in reached.items() if _recorded_once(source)}
        log_events(self._agent, fresh)
        return Head(rows[-1].number, rows[-1].hash)

    def _head(self) -> Head:
        """Return the newest row, which the anchor then names."""
        anchor = max(self._anchor(), self._last, key=lambda head: head.number)
        if anchor.number > self._newest:
            self._table.refresh()
        if anchor.number > self._newest:
            raise DataLossError(
                f"{self._table.place} ends at row {self._newest}, its anchor {self._anchors.place} names row "
                f"{anchor.number}: restore the table, or set the anchor aside and name another table in the "
                "spec, tables: {audit: NAME}"
            )
        if anchor.number == self._newest:
            return anchor
        head, faults = verify(self._key, anchor, self._rows_after(anchor.number))
        if faults or head.number != self._newest:
            raise DataLossError(
                f"{self._table.place}: what follows row {anchor.number} does not link to it; "
                "`flagstream audit verify` says more"
            )
        self._advance(head)
        return head

    @property
    def _newest(self) -> int:
        return self._table.last_batch(_CHAIN)

    def _rows_after(self, number: int) -> list[AuditRow]:
        return audit_rows(self._table.read("number", number + 1))

    def _anchor(self) -> Head:
        anchor = self._anchors.read()
        if anchor is None:
            raise _anchor_gone(self._anchors.place)
        return anchor.head

    def _advance(self, head: Head) -> None:
        self._anchors.advance(Anchor(head, self._key.identity))
        # While somebody else keeps the anchor from moving, what was checked is not checked again.
        self._last = head


def chain_end(table: StoredTable) -> int:
    """Return the number of the newest row of an audit table, -1 for none."""
    return table.last_batch(_CHAIN)


def audit_rows(table: pa.Table) -> list[AuditRow]:
    """Return the rows of a table of schema `AUDIT`, in its order."""
    as_number = table.set_column(table.schema.get_field_index("at"), "at", table["at"].cast(pa.int64()))
    return [AuditRow(**row) for row in as_number.select(_NAMES).to_pylist()]


def _no_key_in(table: Place) -> NoReturn:
    raise ConfigurationError(
        f"the audit log of {table} needs a key: set it to a random text of at least 32 characters, such as "
        "`openssl rand -hex 32` prints, and keep it; none is made in a store",
        where="FLAGSTREAM_AUDIT_KEY",
    )


def _anchor_gone(place: Place) -> DataLossError:
    return DataLossError(
        f"{place} is gone, which names the end of the audit log: restore it from a copy, or name another "
        "table in the spec to begin a new log, tables: {audit: NAME}"
    )


def _recorded_once(source: str) -> bool:
    """Whether a source is one run of a command: nobody goes on with it after a crash."""
    return source.split("/", 1)[0] in _RUNS


def _recorded_by(source: str) -> str:
    return f"audit/told/{source}"
