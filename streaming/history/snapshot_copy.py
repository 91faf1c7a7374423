"""Makes a snapshot: copies what a replay of a span reads, and writes profiles as they stood at its start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERTS
from schemas.errors import ConfigurationError, RetryableError
from schemas.label import LABELS
from schemas.lake_tables import Table
from schemas.spec import AgentSpec
from schemas.tables import BATCHES, LEDGER
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.batch.deciders import Deciders
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.content import model_files
from streaming.delta.erasure_plan import check_none_under_way
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.pins import pinned_specs, pins_by_engine
from streaming.delta.stored import StoredTable
from streaming.delta.whole_tables import read_stored
from streaming.detection import checkpoints
from streaming.detection.checkpoint_files import ScorerSnapshot
from streaming.detection.model import keep
from streaming.history.decided import DecidedHistory
from streaming.history.replay import SLICE_ROWS, Progress, Replayer
from streaming.history.snapshots import PROFILES, Snapshot, find_snapshot, new_snapshot, seal
from streaming.history.spans import Span
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.folders import ARTEFACTS, Folders
from streaming.store.local_folders import LocalFolders
from streaming.store.opening import folders_of
from streaming.store.place import Place

_COPIED: tuple[Table, ...] = ("transactions", "alerts", "batches", "labels", "ledger")


def create_snapshot(
    settings: Settings,
    definition: AgentDefinition,
    name: str,
    span: Span,
    on_progress: Progress = lambda _: None,
) -> Snapshot:
    """Copy a span of an agent's history below its lake, under a name.

    Besides the span's rows it holds the earlier transactions and alerts that labels known within it are
    about, all labels, and all batches up to its end, so that labels follow from it as they did then.

    Args:
        on_progress: called with the transactions of each slice copied.

    Raises:
        ConfigurationError: the name cannot be used, the span cannot be replayed any more, or ids of it are
            being erased.
        RetryableError: rows of the tables were changed or removed meanwhile.
    """
    spec = definition.spec
    agent = PlacedAgent(settings, spec)
    # Before the plan is looked for: an erasure that begins in between changes rows afterwards.
    as_begun = _rewritten(agent)
    check_none_under_way(agent.lake)
    history = DecidedHistory(agent)
    folders = folders_of(settings.snapshots(spec.name), settings.spool)
    source = history.tables(span)
    with new_snapshot(folders, name) as unfinished:
        copy = _Copy(history, spec, span, unfinished)
        rows = copy.tables(source.transactions, on_progress)
        profiles = LocalFolders.of(unfinished / PROFILES)
        write_profiles(Replayer(settings, definition, history), history, span, profiles)
        _copy_models(history, span, unfinished, settings.spool)
        seal(unfinished, span, rows, copy.versions, machine_fingerprint())
    try:
        # An erasure that began before the snapshot was in place has not seen it, and may have ended by now.
        check_none_under_way(agent.lake)
        _check_as_begun(agent, as_begun)
    except BaseException:
        folders.drop(name)
        raise
    return find_snapshot(folders, name)


def _check_as_begun(agent: PlacedAgent, as_begun: Mapping[str, int]) -> None:
    found = _rewritten(agent)
    changed = [name for name in found if found[name] != as_begun.get(name, -1)]
    if changed:
        raise RetryableError(
            f"{changed[0]}: rows were changed or removed while the snapshot was made, and it was "
            "dropped: create it once more"
        )


def _rewritten(agent: PlacedAgent) -> dict[str, int]:
    """Return the version at which rows of each table were last changed, by where the table lies."""
    return {str(table.place): table.rewritten_at for table in _opened(LakeReader.of(agent))}


def _opened(reader: LakeReader) -> list[StoredTable]:
    """Open the tables that a snapshot is copied from, as far as they are there."""
    found = [reader.at(table) for table in _COPIED]
    return [table for table in found if table is not None]


@dataclass(frozen=True)
class _Copy:
    """One span on its way into a folder."""

    history: DecidedHistory
    spec: AgentSpec
    span: Span
    folder: Path

    @property
    def versions(self) -> dict[str, int]:
        """Versions of the tables as they are now, by name."""
        return {table.place.name: table.version for table in _opened(self.history.reader)}

    def tables(self, transactions: StoredTable, on_progress: Progress) -> dict[str, int]:
        """Copy every table; returns the rows of each."""
        judged = self._judged()
        batches = self._read("batches", BATCHES, pc.field("first_sequence") < self.span.end)
        alerts = self._alerts(judged)
        slices = self._transactions(transactions, judged, on_progress)
        rows: dict[Table, int] = {
            "transactions": self._write("transactions", transactions.schema, slices),
            "alerts": self._write("alerts", alerts.schema, [alerts]),
            "batches": self._write("batches", batches.schema, [batches]),
            "labels": self._whole("labels", LABELS),
            "ledger": self._ledger(batches, alerts),
        }
        return {self._place(table).name: count for table, count in rows.items()}

    def _judged(self) -> pa.Array:
        """Return the transactions that the labels first known within the span are about."""
        since, through = (
            self.history.pins.before(row).newest.through for row in (self.span.first, self.span.end)
        )
        number = pc.field("label_sequence")
        labels = self._read("labels", LABELS, (number >= since) & (number < through))
        return labels["transaction_id"].cast(pa.string()).combine_chunks().unique()

    def _alerts(self, judged: pa.Array) -> pa.Table:
        """Return alerts that the span's rows raised, or are about, and those of judged transactions."""
        rows = self._read("alerts", ALERTS, None)
        chosen = [self._inside(rows[name]) for name in ("sequence", "passed_by") if name in rows.column_names]
        wanted = pc.is_in(rows["transaction_id"].cast(pa.string()), judged)
        for each in chosen:
            wanted = pc.or_(wanted, each)
        return rows.filter(wanted).sort_by("outbox_seq")

    def _inside(self, sequences: pa.ChunkedArray) -> pa.ChunkedArray:
        reached, left = pc.less_equal(self.span.first, sequences), pc.less(sequences, self.span.end)
        return pc.fill_null(pc.and_(reached, left), fill_value=False)

    def _transactions(
        self, transactions: StoredTable, judged: pa.Array, on_progress: Progress
    ) -> Iterable[pa.Table]:
        before = pc.field("transaction_id").isin(judged) & (pc.field("sequence") < self.span.first)
        yield self._read("transactions", transactions.schema, before)
        for first in range(self.span.first, self.span.end, SLICE_ROWS):
            rows = transactions.read("sequence", first, min(first + SLICE_ROWS, self.span.end))
            yield rows
            on_progress(rows.num_rows)

    def _ledger(self, batches: pa.Table, alerts: pa.Table) -> int:
        """Copy what was asked from the span's first batch on, and every answer up to the last one on it.

        Earlier answers stand for alerts of the span that make the same question again.
        """
        inside = batches.filter(pc.greater(batches["next_sequence"], self.span.first))
        ends = [pc.max(inside["closed_at"]).as_py(), pc.max(alerts["created_at"]).as_py()]
        since, until = pc.min(inside["opened_at"]), max(each for each in ends if each is not None)
        within = (pc.field("at") >= since) | (pc.field("kind") == "answer")
        within &= pc.field("at") <= pa.scalar(until)
        rows = self._read("ledger", LEDGER, within)
        return self._write("ledger", rows.schema, [rows])

    def _whole(self, table: Table, schema: pa.Schema) -> int:
        return self._write(table, schema, [self._read(table, schema, None).cast(schema)])

    def _read(self, table: Table, schema: pa.Schema, where: pc.Expression | None) -> pa.Table:
        found = read_stored(self.history.reader.place(table), where=where)
        return schema.empty_table() if found is None else found

    def _write(self, table: Table, schema: pa.Schema, parts: Iterable[pa.Table]) -> int:
        copied = LakeTable(self._place(table), schema, "snapshot/epoch", self.spec.replay_horizon)
        for number, rows in enumerate(parts):
            if rows.num_rows:
                copied.append(rows, Stamp("snapshot", number))
        return copied.count()

    def _place(self, table: Table) -> Place:
        return LakeReader.of(AgentLake(Place.local(self.folder), self.spec)).place(table)


def write_profiles(replayer: Replayer, history: DecidedHistory, span: Span, folders: Folders) -> None:
    """Write the state before the span, once for every definition of profiles that decided part of it.

    Raises:
        ConfigurationError: what decided it is gone, or nothing says what did.
    """
    transactions, written = history.tables(span).transactions, set[str]()
    for pinned in history.pinned(span):
        definitions = [each["scoring"] for each in pins_by_engine(pinned.pins)]
        if pinned.backfilled or written.issuperset(definitions):
            continue
        for definition, state in _states(replayer.as_pinned(pinned, transactions)).items():
            if definition not in written:
                checkpoints.write(state, folders.below(definition))
        written.update(definitions)
    if not written:
        raise ConfigurationError(f"no batch decided {span}", where=str(history.lake))


def _copy_models(history: DecidedHistory, span: Span, folder: Path, spool: Path) -> None:
    kept, copies = history.artefacts(spool), LocalFolders.of(folder / ARTEFACTS)
    for pinned in history.pinned(span):
        for model in (spec.model for spec in pinned_specs(pinned.pins)):
            if model is not None and model.sha256 is not None:
                with model_files(model, kept) as found:
                    keep(found, model.sha256, copies)


def _states(deciders: Deciders) -> dict[str, ScorerSnapshot]:
    """Return what each definition of profiles has come to, with all that is remembered beside it."""
    found: dict[str, ScorerSnapshot] = {}
    for engine in deciders.engines:
        state, definition = engine.memory.snapshot(), engine.decider.layout.definition
        before = found[definition].patterns if definition in found else {}
        found[definition] = replace(state, patterns={**before, **state.patterns})
    return found
