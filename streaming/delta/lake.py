"""The project's one Delta writer: append-only tables, idempotent and fenced commits, ordered reads.

Every commit carries two application transactions: the stream's `(app_id, batch_id)`, which makes a repeated
append a no-op, and the agent's epoch, which makes a driver that has been superseded fail instead of writing.
Both are checked and written through one loaded handle: a commit is refused when another one with the same
application id came between the handle's version and its own, and the check refuses everything older.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

import pyarrow as pa

from schemas.errors import (
    FencedError,
)
from schemas.lake_tables import TABLES, Table
from schemas.spec import AgentSpec
from streaming.delta.lake_table import LakeTable
from streaming.delta.side_by_side import side_by_side
from streaming.store.place import Place

Result = TypeVar("Result")


@dataclass
class Tenure:
    """What this process has claimed; it outlives the lake's handles.

    Attributes:
        epoch: the newest that it has begun to claim, None for none yet.
        is_whole: every table was claimed under it. Until then somebody else may have claimed the same one.
    """

    epoch: int | None = None
    is_whole: bool = False


@dataclass(frozen=True)
class Lake:
    """All tables of one agent that one driver opens and claims.

    Labels and the audit log are shared, see streaming.labels.book and streaming.audit.audit_log.
    """

    transactions: LakeTable
    quarantine: LakeTable
    duplicates: LakeTable
    alerts: LakeTable
    monitoring: LakeTable
    ledger: LakeTable
    late: LakeTable
    batches: LakeTable

    @classmethod
    def open(
        cls,
        place: Place,
        spec: AgentSpec,
        schemas: Mapping[str, pa.Schema],
        *,
        retention: timedelta,
        tenure: Tenure | None = None,
    ) -> Lake:
        """Open or create every table of `spec` and take all of them over.

        Args:
            place: where the lake lies.
            spec: whose tables they are.
            schemas: Arrow schema by the field names of this class.
            retention: how long table versions stay readable.
            tenure: of a process that opens the lake again, with nothing of the time before still writing:
                nothing is taken back from whoever came since, and what it holds is not claimed anew.

        Raises:
            FencedError: another driver is taking over at the same moment, or has since this one's tenure.
        """
        fence_id = f"{spec.name}/epoch"
        names = spec.tables.model_dump()

        def opened(name: str) -> LakeTable:
            defined = TABLES[cast("Table", name)]
            return LakeTable(
                place / names[name],
                schemas[name],
                fence_id,
                retention,
                defined.later,
                synced=defined.synced,
                evolves=defined.evolves,
            )

        roles = [each.name for each in dataclasses.fields(cls)]
        tables = dict(zip(roles, _together(place, [partial(opened, each) for each in roles]), strict=True))
        lake = cls(**tables)
        _take_over(place, lake.tables(), tenure or Tenure())
        return lake

    def tables(self) -> list[LakeTable]:
        """Return every table."""
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def tidy(self) -> bool:
        """Maintain at most one table, so that no batch waits for more than one; True when it did."""
        return any(table.tidy() for table in self.tables())

    def renew(self) -> bool:
        """Open the tables anew whose logs were shortened, and at most one other; True when it did.

        What a handle goes back to may be gone once a log was shortened, so that cannot wait for its turn.
        """
        shortened = [table.keep_up() for table in self.tables()]
        return any(shortened) or any(table.renew() for table in self.tables())


def _take_over(place: Place, tables: Sequence[LakeTable], ours: Tenure) -> None:
    epochs = {table.epoch for table in tables}
    newest = max(epochs)
    if ours.epoch is not None and newest > ours.epoch:
        raise FencedError(f"{place}: a driver with epoch {newest} has taken over")
    if ours.is_whole and epochs == {ours.epoch}:
        for table in tables:
            table.hold(newest)
        return
    # Set before the first claim: one of our own that is left half-way is no successor's.
    ours.epoch, ours.is_whole = newest + 1, False
    # Of two drivers that come at once one is refused at the first table, and leaves the others alone.
    claims = [partial(table.claim, ours.epoch) for table in tables]
    claims[0]()
    _together(place, claims[1:])
    ours.is_whole = True


def _together(place: Place, several: Sequence[Callable[[], Result]]) -> list[Result]:
    """Do something to several tables: one after the other on this machine, side by side in a store."""
    return side_by_side(several) if not place.is_local else [each() for each in several]
