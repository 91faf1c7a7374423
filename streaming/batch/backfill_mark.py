"""How batches that were loaded from history, not read from the stream, are distinguished from the others.

The mark is part of what a batch pins, so the commit that decides it carries it, and so does its row in
`batches`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.event_columns import REFERENCE_AMOUNT
from streaming.batch.decision import Decision
from streaming.batch.queries import stamp_of
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.delta.pins import pinned_contract

PIN = "backfill"


@dataclass(frozen=True)
class BackfillMark:
    """Which source a batch was loaded from, and how far.

    Attributes:
        source: path as it was given.
        digest: tells the source's content, hex.
        version: of a Delta table, None for a file.
        rows: rows of the source up to the batch's end.
        last: nothing follows.
    """

    source: str
    digest: str
    version: int | None
    rows: int
    last: bool

    @classmethod
    def of(cls, pins: Mapping[str, Any]) -> BackfillMark | None:
        """Return the mark that a batch pinned, None for a batch of the stream."""
        return cls(**pins[PIN]) if PIN in pins else None

    def pins(self) -> dict[str, Any]:
        """Return what a batch pins besides everything else."""
        return {PIN: asdict(self)}


def newest_decision(agent: HasLake) -> Decision | None:
    """Return what decided the newest batch, without taking the lake over; None where nothing is on record."""
    transactions = LakeReader.of(agent).at("transactions")
    kept = None if transactions is None else transactions.newest_metadata()
    return None if kept is None else Decision.from_metadata(kept)


def contract_so_far(agent: HasLake) -> EventContract | None:
    """Return the contract that decided the newest batch, None where nothing is on record.

    Its reference currency is that of all amounts on record, also where the newest batch converted none.
    """
    decision = newest_decision(agent)
    if decision is None:
        return None
    newest = pinned_contract(decision.pins) or AgentDefinition.of(agent.spec).contract
    if newest.reference_currency is not None:
        return newest
    return newest.model_copy(update={"reference_currency": _converted_to(LakeReader.of(agent))})


def _converted_to(reader: LakeReader) -> str | None:
    """Return the currency that amounts of earlier batches were converted to, None where none were."""
    transactions, batches = reader.at("transactions"), reader.at("batches")
    if transactions is None or batches is None or REFERENCE_AMOUNT not in transactions.schema.names:
        return None
    texts = pc.unique(batches.select(["pins"], repeated=["pins"])["pins"].cast(pa.string()))
    contracts = (json.loads(text).get("contract") or {} for text in texts.to_pylist())
    found = (each.get("reference_currency") for each in contracts)
    return next((currency for currency in found if currency is not None), None)


def unfinished_backfill(agent: HasLake) -> BackfillMark | None:
    """Return the mark of the newest batch when a backfill was left before its end, None otherwise."""
    decision = newest_decision(agent)
    mark = None if decision is None else BackfillMark.of(decision.pins)
    if decision is None or mark is None:
        return None
    batches = LakeReader.of(agent).at("batches")
    closed = -1 if batches is None else batches.last_batch(stamp_of(agent.spec.name, decision.query_id))
    return None if mark.last and closed >= decision.batch_id else mark
