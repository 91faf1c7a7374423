"""Takes out of each table what is older than the spec keeps it, once a day, beside a running agent.

Age counts from when a row was stored, never from a time that a sender chooses: what was rejected, or had
come before, is as old as its batch; what is no label counts from when it was set aside. Rows leave from the
beginning on. What remembers them stays: profiles as they stood at the cut are written first, so that
recoveries and replays begin there; rows that labels known since are about stay as long as the labels; the
newest row stays for its number. What counts as now is never far ahead of clocks beside this machine's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from schemas.counts import count_of
from schemas.errors import MachineError
from schemas.instants import MICRO, Clock, earlier, later, micros_of, utc_now
from schemas.lake_tables import Table
from schemas.spec import AgentSpec
from schemas.tables import RECORDED_AT
from streaming.arrays.median_clock import WINDOW
from streaming.audit.audit_cut import announce_cut
from streaming.batch.closed_batches import ClosedBatches
from streaming.cases.ageing import cases_to_remove, without_cases
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.delta.maintenance import files_kept
from streaming.delta.rewriting import Change, RewriteNotes, maintained_alone, rewrite
from streaming.delta.stored import REMOVED_BEFORE, REMOVED_ROWS, StoredTable
from streaming.history.decided import DecidedHistory
from streaming.history.replay import Replayer
from streaming.history.snapshot_copy import write_profiles
from streaming.history.spans import Span
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.log import log
from streaming.quarantine.requests import places_of, read_requests
from streaming.retention.row_cuts import aged, answers_to_keep, first_young, numbered, of_batches
from streaming.retention.witness import AHEAD, witnessed
from streaming.store.opening import folders_of

_EVERY, _AGAIN, _GONE_AFTER = timedelta(days=1), timedelta(hours=1), timedelta(hours=1)
# Records of the labels topic belong to no batch; those of earlier versions have only their time on the topic.
_TIMES: dict[Table, tuple[str, ...]] = {
    "labels_quarantine": (RECORDED_AT.name, "kafka_timestamp"),
    "monitoring": ("at",),
}


class RetentionKeeper:
    """Keeps the tables of one agent to their ages.

    Args:
        settings: where state lies.
        in_force: gives the definition of the version in force: its spec says how long rows are kept.
        clock: current time.
        witness: time by another clock, None where none has noted any; see `witnessed`.
    """

    def __init__(
        self,
        settings: Settings,
        in_force: Callable[[], AgentDefinition],
        clock: Clock = utc_now,
        witness: Callable[[], datetime | None] | None = None,
    ) -> None:
        self._settings, self._in_force, self._clock = settings, in_force, clock
        self._definition = in_force()
        self._witness = witness or (lambda: witnessed(self._placed))
        self._now = datetime.min.replace(tzinfo=UTC)
        self._due = datetime.min.replace(tzinfo=UTC)

    def round(self) -> bool:
        """Look once a day whether rows are too old, and take them out; True where there was something to do.

        After a fault it looks again an hour later.

        Raises:
            Exception: a table cannot be rewritten; that keeps no other from it.
        """
        self._definition = self._in_force()
        if not self._spec.retention.by_table or self._clock() < self._due:
            return False
        self._due = self._clock() + _AGAIN
        removed = self.enforce()
        self._due = self._clock() + _EVERY
        return bool(removed)

    def enforce(self) -> dict[str, int]:
        """Take out of every table what is too old; return table → rows.

        Raises:
            See round.
            MachineError: rows stay that would be too old by this machine's clock alone.
        """
        seen, clock = self._witness(), self._clock()
        if seen is None:
            return {}
        self._now = min(clock, later(seen, AHEAD))
        removed, faults = dict[str, int](), list[Exception]()
        for table, age in self._spec.retention.by_table.items():
            try:
                count = self._enforced(table, earlier(self._now, age))
            except Exception as fault:
                faults.append(fault)
                continue
            if count:
                removed[table] = count
                _say_removed(table, count)
        if faults:
            raise faults[0]
        self._check_clock(clock, seen)
        return removed

    def _check_clock(self, clock: datetime, seen: datetime) -> None:
        ages = self._spec.retention.by_table.values()
        if not any(self._closed_between(earlier(self._now, age), earlier(clock, age)) for age in ages):
            return
        raise MachineError(
            f"this machine's clock says {clock:%Y-%m-%d}, and other clocks have noted nothing after "
            f"{seen:%Y-%m-%d}: rows leave the tables by {self._now:%Y-%m-%d}, and what became too old since "
            "then stays until payments come, or this clock is set right"
        )

    @property
    def _spec(self) -> AgentSpec:
        return self._definition.spec

    @property
    def _placed(self) -> PlacedAgent:
        return PlacedAgent(self._settings, self._spec)

    @property
    def _reader(self) -> LakeReader:
        return LakeReader.of(self._placed)

    def _enforced(self, table: Table, before: datetime) -> int:
        reader = self._reader
        found = reader.table(table)
        if found is None:
            return 0
        if table == "transactions":
            return self._cut_transactions(reader, found, before)
        if table == "alerts":
            return self._cut_alerts(reader, found, before)
        cuts = {"ledger": self._cut_ledger, "audit": self._cut_audit, "case_events": self._cut_cases}
        if table in cuts:
            return cuts[table](found, before)
        return self._removed(found, self._aged(reader, table, before), None)

    def _aged(self, reader: LakeReader, table: Table, before: datetime) -> Change:
        """Choose rows by time; of what was rejected, what is to be taken back stays."""
        if table in _TIMES:
            return aged(_TIMES[table], before)
        closed = reader.frame("batches", ["query_id", "batch_id"], pc.field("closed_at") < pa.scalar(before))
        requeues = reader.place("requeues")
        asked = read_requests(requeues) if table == "quarantine" else []
        waiting = [each for each in asked if each.state == "waiting"]
        return of_batches(closed, places_of(requeues, waiting))

    def _cut_transactions(self, reader: LakeReader, found: StoredTable, before: datetime) -> int:
        reached = min(self._closed_before(reader, before), self._still_needed(found))
        block = self._spec.profiles.block_rows
        cut = reached // block * block
        if cut <= found.removed_before:
            return 0
        self._write_base(cut)
        return self._removed(
            found, numbered("sequence", cut, "transaction_id", self._judged(reader, cut)), cut
        )

    def _cut_alerts(self, reader: LakeReader, found: StoredTable, before: datetime) -> int:
        batches, transactions = reader.table("batches"), reader.table("transactions")
        if batches is None or transactions is None:
            return 0
        # Alerts of transactions that are left stay as well.
        reached = min(self._closed_before(reader, before), transactions.removed_before)
        columns = ["next_sequence", "next_outbox_seq"]
        ended = batches.read("next_sequence", 1, reached + 1, columns)["next_outbox_seq"]
        cut = min(pc.max(ended).as_py() or 0, found.next_number("outbox_seq") - 1)
        if cut <= found.removed_before:
            return 0
        judged = self._judged(reader, transactions.removed_before)
        return self._removed(found, numbered("outbox_seq", cut, "transaction_id", judged), cut)

    def _cut_ledger(self, found: StoredTable, before: datetime) -> int:
        old = found.select(["commit"], pc.field("at") < pa.scalar(before))["commit"]
        young = first_young(found, "commit", "at", before, self._now)
        cut = min(pc.max(old).as_py() + 1, found.next_number("commit") - 1, young) if len(old) else 0
        if cut <= found.removed_before:
            return 0
        return self._removed(found, numbered("commit", cut, "key", answers_to_keep(found, cut)), cut)

    def _cut_audit(self, found: StoredTable, before: datetime) -> int:
        young = first_young(found, "number", "at", before, self._now)
        cut = announce_cut(self._placed, found, before, young)
        if cut <= found.removed_before:
            return 0
        return self._removed(found, numbered("number", cut, "hash", pa.array([], pa.string())), cut)

    def _cut_cases(self, found: StoredTable, before: datetime) -> int:
        gone = cases_to_remove(found, before)
        newest = found.next_number("number") - 1
        if len(gone) == 0:
            return 0
        return self._removed(found, lambda rows: without_cases(rows, gone, newest), None)

    def _closed_before(self, reader: LakeReader, moment: datetime) -> int:
        batches = reader.table("batches")
        if batches is None:
            return 0
        young = first_young(batches, "first_sequence", "closed_at", moment, self._now)
        return min(ClosedBatches(batches).closed_before(moment), young)

    def _closed_between(self, since: datetime, until: datetime) -> bool:
        batches = self._reader.table("batches") if since < until else None
        closed = pc.field("closed_at")
        within = (closed >= pa.scalar(since)) & (closed < pa.scalar(until))
        return batches is not None and batches.select(["closed_at"], within).num_rows > 0

    def _still_needed(self, transactions: StoredTable) -> int:
        """Return the first row by which redeliveries, and the broker's time, are recognised."""
        newest, reached = transactions.maximum("kafka_timestamp"), transactions.maximum("sequence")
        if newest is None or reached is None:
            return 0
        since = newest - 2 * self._definition.contract.duplicates.horizon // MICRO
        rows = transactions.read("kafka_timestamp", since, columns=["sequence"])["sequence"]
        return min(pc.min(rows).as_py() if len(rows) else reached, reached + 1 - WINDOW)

    def _judged(self, reader: LakeReader, cut: int) -> pa.Array:
        """Return the transactions that labels first known from a row on are about."""
        batches = reader.table("batches")
        since = 0 if batches is None else ClosedBatches(batches).label_pins().before(cut).newest.through
        labels = reader.rows("labels", ["transaction_id"], pc.field("label_sequence") >= since)
        return labels["transaction_id"].combine_chunks().unique()

    def _write_base(self, cut: int) -> None:
        """Write profiles as they stand at a row, for every definition that has decided rows from there on."""
        history = DecidedHistory(self._placed)
        replayer = Replayer(self._settings, self._definition, history)
        write_profiles(
            replayer,
            history,
            Span(cut, history.whole.end),
            folders_of(self._settings.base(self._spec.name), self._settings.spool),
        )

    def _removed(self, found: StoredTable, change: Change, before: int | None) -> int:
        """Rewrite a table; its replaced files go from the disk an hour later.

        Clearing goes by what the table says of itself, not by the spec, which may have changed since.
        """
        kept = files_kept(found.place)
        deleted_at = None if kept is None else micros_of(earlier(self._clock() + _GONE_AFTER, kept)) // 1000

        def notes(table: StoredTable, removed: int) -> RewriteNotes:
            # Another keeper may have come first since: what it has counted stays.
            counters = {REMOVED_ROWS: table.removed_rows + removed}
            if before is not None:
                counters[REMOVED_BEFORE] = max(before, table.removed_before)
            return RewriteNotes(counters, deleted_at)

        with maintained_alone(found.place):
            return rewrite(found.place, change, notes).removed


def _say_removed(table: Table, count: int) -> None:
    said = f"removed {count_of(count, 'row')} of {table}, too old to be kept"
    log("rows_removed", said, table=table)
