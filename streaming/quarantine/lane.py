"""Takes requested records in, slice by slice, between two batches of the stream.

A slice goes through the protocol as any batch does, under the query of its request and numbered within it. So
whatever crashes, it is decided once, and a slice that was decided is finished by recovery.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.instants import utc_now
from schemas.tables import UTC_MICROS
from streaming.batch.pipeline import ClosedBatch, Pipeline
from streaming.batch.queries import stamp_of
from streaming.delta.lake import Lake
from streaming.delta.table_versions import change_mark
from streaming.events.writer_schemas import NO_REGISTRY, SchemaSource, check_own_schemas
from streaming.output.log import log
from streaming.quarantine.requests import RequestTable, RequeueRequest, read_requests
from streaming.quarantine.waiting import records_waiting, stamped
from streaming.store.place import Place

_STORE_CHECK_SECONDS = 5.0
_REGISTRY_CHECK_SECONDS = 10.0

PIN = "requeue"


@dataclass(frozen=True)
class RequeueMark:
    """What a batch of requested records pins.

    Attributes:
        request: its id.
        slice: which part of it, from 0 on.
        slices: how many parts it has.
        records: how many records of the slice were asked for; those that no longer waited were not read.
        moment: the broker time that its rows carry, in microseconds since 1970 UTC.
    """

    request: str
    slice: int
    slices: int
    records: int
    moment: int

    @classmethod
    def of(cls, pins: Mapping[str, Any]) -> RequeueMark | None:
        """Return the mark that a batch pinned, None for a batch of the stream."""
        return cls(**pins[PIN]) if PIN in pins else None

    def pins(self) -> dict[str, Any]:
        """Return what a batch pins besides everything else."""
        return {PIN: asdict(self)}


class RequeueLane:
    """Requests on their way into the pipeline.

    Args:
        place: of the requests, which may not be there yet.
        retention: how long versions of that table stay readable.
        agent: the agent's name.
        contract: the agent's own.
        lake: the tables, claimed by this driver.
        pipeline: started; nobody else hands it a batch meanwhile.
        schemas: where schemas come from that records name by an id.
    """

    def __init__(
        self,
        place: Place,
        retention: timedelta,
        agent: str,
        contract: EventContract,
        lake: Lake,
        pipeline: Pipeline,
        schemas: SchemaSource = NO_REGISTRY,
    ) -> None:
        self._place, self._retention, self._agent = place, retention, agent
        self._contract, self._lake, self._pipeline = contract, lake, pipeline
        self._seen, self._requests = (0, 0), list[RequeueRequest]()
        self._checked_at = self._not_before = -math.inf
        self._schemas, self._away = schemas, ""

    def waits(self) -> bool:
        """Whether a request waits to be taken; costs microseconds where nothing has changed.

        In a store, where a look costs a request, some seconds pass between two.
        """
        if self._is_due():
            mark = change_mark(self._place, self._seen)
            if mark != self._seen:
                self._requests, self._seen = read_requests(self._place), mark
        is_held = time.monotonic() < self._not_before
        return not is_held and any(each.state == "waiting" for each in self._requests)

    def _is_due(self) -> bool:
        now = time.monotonic()
        if not self._place.is_local and now - self._checked_at < _STORE_CHECK_SECONDS:
            return False
        self._checked_at = now
        return True

    def take(self, moment: datetime) -> ClosedBatch | None:
        """Decide the next slice; None when there is none, or nothing was left of its request.

        Args:
            moment: the broker's time at which the records count as having arrived.
        """
        self._checked_at = -math.inf
        if not self.waits():
            return None
        request = next(each for each in self._requests if each.state == "waiting")
        number = 1 + self._lake.batches.last_batch(stamp_of(self._agent, request.query_id))
        try:
            contract = None if request.contract is None else self._checked(request.contract)
            is_held = self._lacks_registry(request, contract)
        except ConfigurationError as fault:
            self._table().settle(request, "refused", number, str(fault))
            return None
        if is_held:
            return None
        closed = self._decide(request, number, contract, moment) if number < len(request.slices) else None
        if number + 1 >= len(request.slices):
            self._table().settle(request, "done", len(request.slices))
        return closed

    def _lacks_registry(self, request: RequeueRequest, contract: EventContract | None) -> bool:
        """Whether a request waits for a schema registry, which the stream itself may have no need of.

        Raises:
            ConfigurationError: the agent has no registry to ask.
        """
        away = None if contract is None or not contract.asks_registry else self._schemas.away()
        if away is None:
            self._away = ""
            return False
        self._not_before = time.monotonic() + _REGISTRY_CHECK_SECONDS
        if away != self._away:
            self._away = away
            log("requeue_waits", f"request {request.request} waits: {away}", agent=self._agent)
        return True

    def _decide(
        self, request: RequeueRequest, number: int, contract: EventContract | None, moment: datetime
    ) -> ClosedBatch | None:
        earlier = [each for each in self._requests if each.number < request.number]
        at = pa.scalar(moment, UTC_MICROS)
        mark = RequeueMark(
            request.request, number, len(request.slices), request.slices[number], at.cast(pa.int64()).as_py()
        )

        def take() -> pa.Table:
            records = records_waiting(self._lake.quarantine, self._place, request, number, earlier)
            return stamped(records, at)

        end = {request.query_id: {"0": sum(request.slices[: number + 1])}}
        return self._pipeline.process(
            take, request.query_id, number, lambda: end, contract=contract, mark=mark.pins()
        )

    def _checked(self, contract: str) -> EventContract:
        try:
            corrected = EventContract.model_validate_json(contract)
        except ValidationError as fault:
            raise ConfigurationError(f"the contract cannot be read: {fault.errors()[0]['msg']}") from None
        check_same_columns(self._contract, corrected)
        check_own_schemas(corrected)
        return corrected

    def _table(self) -> RequestTable:
        return RequestTable(self._place, self._retention, utc_now)


def check_same_columns(own: EventContract, corrected: EventContract) -> None:
    """Check that what is decoded under another contract fits the agent's tables, and what decides under it.

    Raises:
        ConfigurationError: naming what differs.
    """
    ours, theirs = _columns(own), _columns(corrected)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        raise ConfigurationError(
            f"contract {corrected.name!r} has other columns than the agent's ({', '.join(differing)}): a "
            "corrected contract may read columns from other fields or in another form, and has the same ones",
            key="contract",
        )
    if (own.entity_names, own.primary_entity) != (corrected.entity_names, corrected.primary_entity):
        raise ConfigurationError("has the entities in another order, or another primary one", key="entities")
    if own.references != corrected.references:
        raise ConfigurationError("has other references than the agent's, which join them", key="references")


def _columns(contract: EventContract) -> dict[str, tuple[str, pa.DataType]]:
    return {each.name: (each.role, each.type) for each in contract.columns}
