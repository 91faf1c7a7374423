"""The tables of a lake, each declared once: what a row is, its columns and their order, and who writes it.

The fields of `TableNames` in schemas.spec say what each is called in one agent's lake. Writers, readers and
the documentation go by what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import pyarrow as pa

from schemas.alert import ALERTS, LATER_FIELDS
from schemas.contract import EventContract
from schemas.label import LABELS
from schemas.tables import (
    AUDIT,
    BATCHES,
    CASE_EVENTS,
    DUPLICATES,
    FAULTS,
    FINDINGS,
    LABELS_QUARANTINE,
    LATE,
    LATER_BATCHES,
    LATER_LATE,
    LATER_MONITORING,
    LEDGER,
    MONITORING,
    QUARANTINE,
    RECORDED_AT,
    REQUEUES,
    SHADOW,
    SPECS,
    TOKENS,
    TOPIC_ID,
    TRANSACTIONS,
    transactions_schema,
)

Writer = Literal["agent", "commands", "agent and commands"]
Table = Literal[
    "transactions",
    "quarantine",
    "duplicates",
    "alerts",
    "monitoring",
    "audit",
    "ledger",
    "late",
    "labels",
    "labels_quarantine",
    "batches",
    "specs",
    "shadow",
    "requeues",
    "case_events",
    "tokens",
    "findings",
    "findings_sandbox",
]


@dataclass(frozen=True)
class TableDefinition:
    """One table. All are append-only Delta tables, compacted and cleared by maintenance.

    Attributes:
        row: what one row stands for.
        schema: its columns; of `transactions` those that every contract has.
        order: the columns that give its rows their order.
        writer: `agent` is the one driver that has claimed the lake; of the others each commits by turns.
        later: columns that lakes from before they came are given, null in older rows.
        evolves: its columns are the contract's as well, and follow it.
        synced: its rows are on disk when their commit returns, since others learn of them at once.
    """

    row: str
    schema: pa.Schema
    order: tuple[str, ...]
    writer: Writer = "agent"
    later: tuple[str, ...] = ()
    synced: bool = False
    evolves: bool = False


_REJECTION_ORDER = ("topic", "partition", "offset")

TABLES: Mapping[Table, TableDefinition] = MappingProxyType(
    {
        "transactions": TableDefinition(
            "accepted event", TRANSACTIONS, ("sequence",), later=(FAULTS.name,), evolves=True
        ),
        "quarantine": TableDefinition(
            "rejection of a record", QUARANTINE, _REJECTION_ORDER, later=(TOPIC_ID.name,)
        ),
        "duplicates": TableDefinition(
            "redelivered transaction id", DUPLICATES, _REJECTION_ORDER, later=(TOPIC_ID.name,)
        ),
        "alerts": TableDefinition("alert revision", ALERTS, ("outbox_seq",), later=LATER_FIELDS),
        "monitoring": TableDefinition("batch", MONITORING, ("at",), later=LATER_MONITORING),
        "audit": TableDefinition("event", AUDIT, ("number",), "agent and commands"),
        # The model was asked, and paid, before a batch's alerts are published.
        "ledger": TableDefinition(
            "question or answer", LEDGER, ("commit",), later=("evidence",), synced=True
        ),
        "late": TableDefinition(
            "step of a window of late answers", LATE, ("commit",), later=LATER_LATE, synced=True
        ),
        "labels": TableDefinition("label", LABELS, ("label_sequence",), "agent and commands"),
        "labels_quarantine": TableDefinition(
            "record of the labels topic that is no label",
            LABELS_QUARANTINE,
            _REJECTION_ORDER,
            "agent and commands",
            later=(RECORDED_AT.name,),
        ),
        "batches": TableDefinition("closed batch", BATCHES, ("next_sequence",), later=LATER_BATCHES),
        "specs": TableDefinition("step of a spec's version", SPECS, ("action",), "commands"),
        "shadow": TableDefinition(
            "batch decided in shadow", SHADOW, ("next_sequence",), "agent and commands"
        ),
        "requeues": TableDefinition(
            "slice of a request, or its end", REQUEUES, ("number", "slice"), "agent and commands"
        ),
        "case_events": TableDefinition(
            "alert that joined a case, or what somebody did to one", CASE_EVENTS, ("number",), "commands"
        ),
        "findings": TableDefinition("finding", FINDINGS, ("at",), "commands"),
        "findings_sandbox": TableDefinition("finding, invalid ones too", FINDINGS, ("at",), "commands"),
        "tokens": TableDefinition("step of a token of the HTTP API", TOKENS, ("number",), "commands"),
    }
)


def lake_schemas(contract: EventContract) -> dict[str, pa.Schema]:
    """Return the columns of every table of a lake under a contract."""
    return {
        name: transactions_schema(contract.arrow_schema()) if each.evolves else each.schema
        for name, each in TABLES.items()
    }
