"""What an agent has decided, read back from Delta: batches with their pins, and the tables as they stood."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, MachineError
from schemas.lake_tables import Table
from schemas.loading import format_duration
from streaming.arrays.compilation import Ints
from streaming.batch.backfill_mark import PIN as BACKFILL
from streaming.batch.patterns_in_force import Stretch, stretches
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.delta.pins import pinned_contract, pins_by_engine
from streaming.delta.table_versions import why_unreadable
from streaming.history.explain import find_alert
from streaming.history.spans import PinnedSpan, Span, Tables, within
from streaming.labels.label_pins import PIN_COLUMNS, LabelPins
from streaming.store.folders import ARTEFACTS, Folders
from streaming.store.opening import folders_of

_COLUMNS = [*PIN_COLUMNS, "next_sequence", "closed_at", "pins", "versions", "fingerprints"]
_PINS_KEPT = 64  # batches under the same pins follow each other
_REPLAYED: tuple[Table, ...] = ("transactions", "alerts")
_WHAT_DECIDES = ("spec_digest", "contract_digest", "rules_version", "scoring", "percent")


class DecidedHistory:
    """The closed batches of an agent.

    Args:
        agent: whose lake it is.

    Attributes:
        reader: of the tables, each as it was when first read.
        profiles: profile checkpoints by definition, None where the agent's own are at hand.
        reads_newest: the versions that batches have pinned were made unreadable by an erasure or by
            retention, and the newest ones are read in their place.

    Raises:
        ConfigurationError: there are no closed batches.
    """

    profiles: Folders | None = None
    reads_newest = False

    def __init__(self, agent: HasLake) -> None:
        self.lake, spec = agent.lake, agent.spec
        self._tables, self._retention = spec.tables, spec.retention
        self.reader = LakeReader.of(agent)
        rows = self.reader.frame("batches", _COLUMNS, repeated=["pins"])
        if rows.height == 0:
            raise ConfigurationError(
                "nothing was decided yet: `flagstream run` decides. If it has, is this its --home?",
                where=str(self.reader.place("batches")),
            )
        self._batches = rows.sort("next_sequence", "first_sequence", "closed_at")

    def artefacts(self, spool: Path) -> Folders:
        """Return the trained models that have decided, by their hash.

        Args:
            spool: see streaming.store.opening.folders_of.
        """
        return folders_of(self.lake / ARTEFACTS, spool)

    @property
    def whole(self) -> Span:
        """All transactions of closed batches, but for those that retention has removed."""
        return Span(self.removed_before, int(self._batches["next_sequence"][-1]))

    @property
    def removed_before(self) -> int:
        """The first transaction that retention has left; 0 where nobody can tell, which spans say."""
        with suppress(MachineError):
            return self.reader.removed("transactions")[1]
        return 0

    @property
    def newest_version(self) -> int:
        """Version of the transactions table that the newest batch pinned."""
        return int(json.loads(self._batches["versions"][-1])[self._tables.transactions])

    @cached_property
    def pins(self) -> LabelPins:
        """Which labels each batch knew, ascending."""
        return LabelPins.of_batches(self._batches)

    def of_alert(self, wanted: str) -> Span:
        """Return the batch in which an alert was raised.

        Raises:
            ConfigurationError: no alert, or several, fit `wanted`; see streaming.history.explain.find_alert.
        """
        alert = find_alert(self.reader, wanted)
        passed_by = alert.get("passed_by")
        sequence = int(alert["sequence"] if passed_by is None else passed_by)
        batch = self._batches.filter(pl.col("next_sequence") > sequence).row(0, named=True)
        return Span(batch["first_sequence"], batch["next_sequence"])

    def of_times(self, since: datetime | None, until: datetime | None) -> Span:
        """Return the least span that holds all transactions with `since` <= event time < `until`.

        Raises:
            ConfigurationError: there are none.
        """
        times = pc.field("event_time")
        bounds = [] if since is None else [times >= pa.scalar(since)]
        bounds += [] if until is None else [times < pa.scalar(until)]
        where = bounds[0] if len(bounds) == 1 else bounds[0] & bounds[1]
        rows = self.reader.rows("transactions", ["sequence"], where)
        if rows.num_rows == 0:
            raise ConfigurationError(
                "no transactions in this span of event time", where="--from-time/--to-time"
            )
        found = pc.min_max(rows["sequence"]).as_py()
        return Span(found["min"], min(found["max"] + 1, self.whole.end))

    def of_versions(self, after: int, through: int) -> Span:
        """Return the batches that brought the transactions table from version `after` to `through`.

        Raises:
            ConfigurationError: a version in the future, or no batch in between.
        """
        name = self._tables.transactions
        versions = [json.loads(row)[name] for row in self._batches["versions"]]
        if through > versions[-1]:
            raise ConfigurationError(
                f"version {through} of {name} is still to come; the newest closed one is {versions[-1]}",
                where="--to-version",
            )
        inside = self._batches.filter(pl.Series([after < version <= through for version in versions]))
        inside = inside.filter(pl.col("next_sequence") > pl.col("first_sequence"))
        if inside.height == 0:
            raise ConfigurationError(
                f"no batch brought {name} from version {after} to {through}",
                where="--from-version/--to-version",
            )
        return Span(int(inside["first_sequence"][0]), int(inside["next_sequence"][-1]))

    def pinned(self, span: Span) -> list[PinnedSpan]:
        """Cut a span where pins change."""
        return [
            PinnedSpan(Span(max(part[0].first, span.first), min(part[-1].end, span.end)), json.loads(pins))
            for pins, part in self._runs(span)
        ]

    def contract(self, span: Span) -> EventContract | None:
        """Return the contract under which a span ended, None where only its digest is known."""
        return pinned_contract(self.pinned(span)[-1].pins)

    def recorded_labels(self) -> frozenset[tuple[Any, ...]]:
        """Return what models have said, each label once; see streaming.history.comparison."""
        columns = ["model", "prompt_id", "prompt_version", "classification", "severity"]
        rows = self.reader.frame("ledger", columns, pc.field("kind") == "answer")
        return frozenset(rows.unique().iter_rows())

    def refused(self, span: Span) -> list[tuple[Span, frozenset[str]]]:
        """Return the ids that batches of a span left out because they were alerted before, batch by batch."""
        table = self.reader.table("batches")
        assert table is not None, "it holds the closed batches"
        columns = ["first_sequence", "next_sequence", "refused"]
        rows = table.read("next_sequence", span.first + 1, columns=columns).to_pylist()
        return [
            (Span(row["first_sequence"], row["next_sequence"]), frozenset(row["refused"]))
            for row in rows
            if row["refused"] and row["first_sequence"] < span.end
        ]

    def batch_ends(self, span: Span) -> Ints:
        """Return where the batches of a span end, int64[batches], ascending."""
        inside = self._batches.filter(
            (pl.col("next_sequence") > span.first) & (pl.col("first_sequence") < span.end)
        )
        return inside["next_sequence"].unique().sort().to_numpy()

    def elsewhere_from(self, here: str) -> int | None:
        """Return the first row of the first batch that a machine of another fingerprint has computed.

        State goes from batch to batch, so later ones may hold what that machine has computed, too. Batches
        that have noted no machine count as this one's.

        Args:
            here: this machine's, see streaming.arrays.fingerprint.

        Returns:
            None where there is no such batch.
        """
        elsewhere = pl.col("fingerprints").list.eval(pl.element() != here).list.any()
        found = self._batches.filter(elsewhere)
        return None if found.height == 0 else int(found["first_sequence"][0])

    def streamed(self, span: Span) -> Span:
        """Return a span without what was loaded from history, which comes before all else.

        Raises:
            ConfigurationError: nothing is left of it.
        """
        parts = [part.span for part in self.pinned(span) if not part.backfilled]
        if not parts:
            raise ConfigurationError(f"{span} was loaded by a backfill: nothing was decided to compare with")
        return Span(parts[0].first, parts[-1].end)

    def patterns(self, first: int, end: int) -> list[Stretch]:
        """Return which rules over two events were in force from row `first` on, below `end`."""
        return stretches(self._batches, first, end)

    def tables(self, span: Span) -> Tables:
        """Open transactions and alerts at the versions that the last batch of a span pinned.

        Raises:
            ConfigurationError: a version cannot be read any more, with the earliest span that can.
        """
        self._check_kept(span)
        last = self._batches.filter(pl.col("next_sequence") >= span.end)["versions"][0]
        found = self._opened(last) or self._as_rewritten(last)
        if found is None:
            raise ConfigurationError(
                f"{span} needs {'; '.join(self._gone(last))}. {self._earliest()}",
                where=str(self.lake),
            )
        return found

    def late_answers(self, span: Span) -> pa.Table:
        """Return the later revisions of a span's alerts, in outbox order, however late they came.

        They are not among those of `tables`: an answer may follow long after the span was decided.
        """
        alerts = self.reader.table("alerts")
        assert alerts is not None, "closed batches have a table of alerts"
        found = alerts.select(alerts.schema.names, pc.field("revision") > 1)
        return within(found, span).sort_by("outbox_seq")

    def _runs(self, span: Span) -> Iterator[tuple[str, list[Span]]]:
        rows = self._batches.filter(
            (pl.col("next_sequence") > span.first)
            & (pl.col("first_sequence") < span.end)
            & (pl.col("next_sequence") > pl.col("first_sequence"))
        ).select("first_sequence", "next_sequence", "pins")
        for _, run in groupby(rows.iter_rows(), lambda row: _deciding(row[2])):
            batches = list(run)
            yield batches[0][2], [Span(first, end) for first, end, _ in batches]

    def _opened(self, versions: str) -> Tables | None:
        needed = self._needed(versions)
        opened = [self.reader.at(table, version) for table, version in needed.items()]
        found = [table for table in opened if table is not None]
        return Tables(*found) if len(found) == len(needed) else None

    def _check_kept(self, span: Span) -> None:
        first, age = self.removed_before, self._retention.transactions
        if span.first < first:
            kept = "" if age is None else f": {format_duration(age)}"
            raise ConfigurationError(
                f"{span} cannot be replayed: transactions before sequence {first} were removed by "
                f"retention{kept}",
                where=str(self.lake),
            )

    def _as_rewritten(self, versions: str) -> Tables | None:
        """Open the newest versions in place of ones that were made unreadable because rows were changed.

        Tables only grow otherwise, so a span reads the same rows from them by `sequence`.
        """
        found = []
        for name, version in self._needed(versions).items():
            table = self.reader.at(name, version)
            newest = self.reader.at(name) if table is None else table
            if newest is None or (table is None and newest.rewritten_at < 0):
                return None
            found.append(newest)
        self.reads_newest = True
        return Tables(*found)

    def _needed(self, versions: str) -> dict[Table, int]:
        known = json.loads(versions)
        return {table: known[self.reader.place(table).name] for table in _REPLAYED}

    def _gone(self, versions: str) -> Iterator[str]:
        for table, version in self._needed(versions).items():
            place = self.reader.place(table)
            reason = why_unreadable(place, version)
            if reason is not None:
                yield f"version {version} of {place.name}, and {reason}"

    def _earliest(self) -> str:
        """Say from where on spans can be replayed: once a version is readable, so are those after it."""
        filled = self._batches.filter(pl.col("next_sequence") > pl.col("first_sequence"))
        place = bisect_left(filled["versions"], 1, key=lambda each: int(self._opened(each) is not None))
        if place == filled.height:
            return "No span can be replayed any more"
        version = json.loads(filled["versions"][place])[self._tables.transactions]
        end = filled["next_sequence"][place] - 1
        return (
            f"The earliest that can be replayed is what ends with sequence {end} or later, from any start: "
            f"--to-version {version} or above"
        )


@lru_cache(_PINS_KEPT)
def _deciding(pins: str) -> tuple[Any, ...]:
    known = json.loads(pins)
    return BACKFILL in known, *(each.get(name) for each in pins_by_engine(known) for name in _WHAT_DECIDES)
