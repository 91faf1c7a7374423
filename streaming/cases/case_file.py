"""A case as a file that an auditor checks against the lake.

The file holds what the lake has of a case: its state, its timeline, attachments, alerts in every revision,
their transactions, what had been pinned when they were decided, and labels. Each part has a digest, and the
whole has one. The file says up to where each table was read, so whoever checks it reads the same rows again.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERTS
from schemas.alert_documents import alert_documents
from schemas.lake_tables import Table
from schemas.tables import CASE_EVENTS
from streaming.cases.actions import NoSuchCaseError
from streaming.cases.case_frames import ALERTED, LIGHT, frame_of, members_of, moves_of
from streaming.cases.folding import fold, together
from streaming.delta.lake_reader import LakeReader

FORMAT = "flagstream case 1"
PARTS = ("case", "timeline", "attachments", "alerts", "transactions", "pins", "labels")
NUMBERS: Mapping[Table, str] = {"case_events": "number", "alerts": "outbox_seq", "labels": "label_sequence"}
_MERGE, _BATCH = ["event", "case_id", "other"], ["query_id", "batch_id"]
_PINS = [*_BATCH, "first_sequence", "next_sequence", "closed_at", "pins"]


@dataclass(frozen=True)
class CaseRows:
    """What a lake has of a case.

    Attributes:
        events: of the case and of those that were ever merged with it, in their order.
        alerts: of these, every revision, in the order of outbox_seq.
        transactions: of the alerts, by sequence.
        batches: at least those in which the alerts were decided, with what was pinned, in their order.
        labels: of the transactions, in their order.
    """

    case_id: str
    events: pa.Table
    alerts: pa.Table
    transactions: pa.Table
    batches: pa.Table
    labels: pa.Table

    def parts(self, upto: Mapping[str, int]) -> dict[str, list[Any]]:
        """Return the parts of a file, each a list of items.

        Args:
            upto: the first number of each table that does not count.

        Raises:
            NoSuchCaseError: there is no such case up to there.
        """
        events = self._events(upto["case_events"])
        alerts = self._alerts(events, upto["alerts"])
        transactions = _with(self.transactions, "sequence", alerts["sequence"])
        return {
            "case": _plain(self._case(events)),
            "timeline": _plain(events.select(LIGHT).to_pylist()),
            "attachments": _plain(_attached(events).to_pylist()),
            "alerts": [json.loads(each) for each in alert_documents(alerts)],
            "transactions": _plain(transactions.to_pylist()),
            "pins": _plain(self._pins(alerts)),
            "labels": _plain(self._labels(alerts, upto["labels"])),
        }

    def _events(self, below: int) -> pa.Table:
        """Return the events up to there of the case and of those that were merged with it by then."""
        before = _below(self.events, "number", below)
        names = together([self.case_id], pl.DataFrame(before.select(_MERGE)))
        return _with(before, "case_id", pa.array(sorted(names), pa.string()))

    def _case(self, events: pa.Table) -> list[dict[str, Any]]:
        rows = frame_of(events.select(LIGHT))
        folded = fold(moves_of(rows), members_of(rows)).filter(pl.col("case_id") == self.case_id)
        if folded.height == 0:
            raise NoSuchCaseError("there is no such case", where=self.case_id)
        return folded.drop("refunds").to_dicts()  # which follow from more than events

    def _alerts(self, events: pa.Table, below: int) -> pa.Table:
        members = events.filter(pc.equal(events["event"], ALERTED))["outbox_seq"]
        return _with(_below(self.alerts, "outbox_seq", below), "outbox_seq", members)

    def _pins(self, alerts: pa.Table) -> list[dict[str, Any]]:
        decided = {(row["query_id"], row["batch_id"]) for row in alerts.select(_BATCH).to_pylist()}
        rows = self.batches.to_pylist()
        return [row for row in rows if (row["query_id"], row["batch_id"]) in decided]

    def _labels(self, alerts: pa.Table, below: int) -> list[dict[str, Any]]:
        before = _below(self.labels, "label_sequence", below)
        found: list[dict[str, Any]] = _with(before, "transaction_id", alerts["transaction_id"]).to_pylist()
        return found


@dataclass(frozen=True)
class CaseReader:
    """Reads what a lake has of cases.

    Attributes:
        reader: of the lake; see LakeReader for what it sees.
        agent: whose lake it is.
    """

    reader: LakeReader
    agent: str

    def document(self, case_id: str) -> dict[str, Any]:
        """Return the file of a case, JSON-serialisable.

        Args:
            case_id: its whole id.

        Raises:
            NoSuchCaseError: there is none.
        """
        upto = self.ends()
        parts = self.read(case_id).parts(upto)
        digests = {name: digest_of(part) for name, part in parts.items()}
        head = {"format": FORMAT, "agent": self.agent, "case_id": case_id, "upto": upto, "digests": digests}
        return {**head, "digest": digest_of(head), **parts}

    def read(self, case_id: str) -> CaseRows:
        """Return all that the lake has of a case, which may be nothing."""
        events = self._events(case_id)
        numbers = events.filter(pc.equal(events["event"], ALERTED))["outbox_seq"]
        alerts = self._at("alerts", "outbox_seq", _numbers(numbers), ALERTS.names)
        return CaseRows(
            case_id=case_id,
            events=events,
            alerts=alerts,
            transactions=self._at("transactions", "sequence", _numbers(alerts["sequence"])),
            batches=self._batches(alerts),
            labels=self._labels(alerts["transaction_id"]),
        )

    def ends(self) -> dict[str, int]:
        """Return the first number of each table that nothing has yet."""
        return {name: self._next(name) for name in NUMBERS}

    def _next(self, name: Table) -> int:
        found = self.reader.table(name)
        return 0 if found is None else found.next_number(NUMBERS[name])

    def _events(self, case_id: str) -> pa.Table:
        merges = self.reader.frame("case_events", _MERGE, pc.field("event") == "merged")
        own = pc.field("case_id").isin(pa.array(sorted(together([case_id], merges)), pa.string()))
        return self.reader.rows("case_events", CASE_EVENTS.names, own).sort_by("number")

    def _at(
        self, name: Table, column: str, numbers: npt.NDArray[np.int64], columns: Sequence[str] | None = None
    ) -> pa.Table:
        table = self.reader.table(name)
        if table is None:
            return self.reader.rows(name, list(columns or [column]))
        return table.at(column, numbers, list(columns or table.schema.names))

    def _batches(self, alerts: pa.Table) -> pa.Table:
        batches = pc.field("batch_id").isin(pc.unique(alerts["batch_id"]).cast(pa.int64()))
        own = batches & pc.field("query_id").isin(pc.unique(alerts["query_id"]))
        return self.reader.rows("batches", _PINS, own).sort_by("first_sequence")

    def _labels(self, transactions: pa.ChunkedArray) -> pa.Table:
        own = pc.field("transaction_id").isin(pc.unique(transactions))
        columns = [
            "label_sequence",
            "transaction_id",
            "is_fraud",
            "kind",
            "decided_at",
            "decided_by",
            "source",
        ]
        return self.reader.rows("labels", columns, own).sort_by("label_sequence")


def digest_of(content: object) -> str:
    """Return the SHA-256, hex, of JSON with sorted keys and without spaces."""
    return hashlib.sha256(written(content).encode()).hexdigest()


def _attached(events: pa.Table) -> pa.Table:
    columns = ["number", "name", "digest", "size", "content"]
    return events.filter(pc.equal(events["event"], "attached")).select(columns)


def _below(rows: pa.Table, column: str, number: int) -> pa.Table:
    return rows.filter(pc.less(rows[column], number))


def _with(rows: pa.Table, column: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Return the rows whose column holds one of some values."""
    return rows.filter(pc.is_in(rows[column], pc.unique(values)))


def _numbers(values: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    return cast("npt.NDArray[np.int64]", pc.unique(values).sort().to_numpy(zero_copy_only=False))


def written(content: object) -> str:
    """Return JSON with sorted keys and without spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times in ISO 8601, bytes in base 64, maps as lists of pairs."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
