"""The quarantine as a person sees it: what waits, one record of it, and requests to take records in."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.errors import ConfigurationError, ConflictError, NotFoundError
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.contracts import contract_of
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.schema_registry import schema_source
from streaming.quarantine.choosing import RecordFilter, RequeueTrials, slices_of
from streaming.quarantine.lane import check_same_columns
from streaming.quarantine.requests import PLACE, RequestTable, read_requests, requeues_place
from streaming.quarantine.waiting import attempts_at, records_at, waiting
from streaming.versions.registry import Author

_COUNTS = ["read", "stored", "quarantined", "duplicates", "filtered"]


@dataclass(frozen=True)
class Quarantine:
    """An agent's quarantine, as a person sees it.

    Args:
        agent: whose spec names the tables and the contract.
    """

    agent: PlacedAgent

    def waiting(self, wanted: RecordFilter, *, sizes: bool = True) -> pl.DataFrame:
        """Return the records that wait; see streaming.quarantine.waiting.waiting."""
        path, quarantine = self._reader.place("requeues"), self._reader.place("quarantine")
        return wanted.of(waiting(quarantine, path, read_requests(path), sizes=sizes))

    def with_sizes(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows of `waiting` with the size of each record, which is read for that."""
        records = records_at(self._reader.place("quarantine"), rows)
        size = pc.fill_null(pc.binary_length(records["value"]), 0).cast(pa.int64())
        sizes = pl.DataFrame(records.select(list(PLACE)).append_column("bytes", size))
        return rows.drop("bytes").join(sizes, on=PLACE, how="left", maintain_order="left")

    def record(self, place: str) -> list[dict[str, Any]]:
        """Return every rejection of one record, the first one first.

        Args:
            place: topic/partition/offset.

        Raises:
            ConfigurationError: this is no place, or nothing of it was rejected.
        """
        found = attempts_at(self._reader.place("quarantine"), _place(place))
        if not found:
            raise NotFoundError("no record of this place was rejected", where=place)
        return found

    def requeue(
        self,
        wanted: RecordFilter,
        contract: str | None,
        author: Author,
        *,
        dry_run: bool,
        expect: int | None = None,
    ) -> dict[str, Any]:
        """Ask for records to be taken in, and return what that would come to now.

        Args:
            contract: a corrected contract, by file or shipped name, None for the agent's own.
            dry_run: ask for nothing.
            expect: how many records were meant when somebody has looked, None for any number.

        Raises:
            ConfigurationError: the contract cannot be used, or nothing that waits is meant.
            ConflictError: by now others wait than `expect`.
        """
        own = AgentDefinition.of(self.agent.spec).contract
        corrected = own if contract is None else contract_of(self.agent.spec, contract)
        check_same_columns(own, corrected)
        chosen = self.waiting(wanted)
        if chosen.height == 0:
            raise ConfigurationError("nothing that waits in the quarantine is meant; see `quarantine list`")
        if expect is not None and chosen.height != expect:
            raise ConflictError(
                f"by now this means {count_of(chosen.height, 'record')}, not {expect}: look again"
            )
        trial = self._trials(own, corrected).of(chosen)
        facts = {**trial.facts(), "request": None, "batches": len(slices_of(trial.chosen))}
        if dry_run or trial.chosen.height == 0:
            return facts
        table = RequestTable(requeues_place(self.agent), self.agent.spec.replay_horizon)
        said = None if contract is None else corrected.model_dump_json()
        return {**facts, "request": table.ask(slices_of(trial.chosen), said, author.who, author.why)}

    def requests(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return each request with its state and what became of its records so far, the newest first.

        Args:
            most: of them, None for all.
        """
        requests = read_requests(requeues_place(self.agent))[::-1][:most]
        if not requests:
            return []
        ours = pc.field("query_id").isin([each.query_id for each in requests])
        batches = self._reader.frame("batches", ["query_id", *_COUNTS], ours)
        rejected = self._reader.frame("quarantine", ["query_id", "reason"], ours)
        return [
            {
                "request": each.request,
                "at": each.at,
                "state": each.state,
                "who": each.who,
                "why": each.why,
                "records": each.records,
                "batches": len(each.slices),
                **_outcome(each.query_id, each.records, batches, rejected, over=each.state == "done"),
            }
            for each in requests
        ]

    def _trials(self, own: EventContract, corrected: EventContract) -> RequeueTrials:
        places = self._reader.place("quarantine"), self._reader.place("transactions")
        schemas = schema_source(self.agent.settings)
        return RequeueTrials(*places, corrected, own.duplicates.horizon, datetime.now(UTC), schemas)

    @property
    def _reader(self) -> LakeReader:
        return LakeReader.of(self.agent)


def listed(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return rows of `waiting` as a program reads them, times in ISO 8601."""
    return [
        {
            **row,
            "arrived": row["arrived"] and row["arrived"].isoformat(),
            "rejected": row["rejected"] and row["rejected"].isoformat(),
        }
        for row in rows.to_dicts()
    ]


def record_document(attempts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one record with its rejections as a program reads it: bytes in base64."""
    first = attempts[0]
    headers = [{"key": each["key"], "value": _base64(each["value"])} for each in first["headers"] or []]
    rejections = [
        {
            "at": each["kafka_timestamp"] and each["kafka_timestamp"].isoformat(),
            "reason": each["reason"],
            "detail": each["detail"],
            "query_id": each["query_id"],
            "batch_id": each["batch_id"],
        }
        for each in attempts
    ]
    place = {name: first[name] for name in PLACE}
    content = {"key": _base64(first["key"]), "value": _base64(first["value"]), "headers": headers}
    return {**place, **content, "rejections": rejections}


def _outcome(
    query_id: str, records: int, batches: pl.DataFrame, rejected: pl.DataFrame, *, over: bool
) -> dict[str, Any]:
    own = batches.filter(pl.col("query_id") == query_id)
    reasons = Counter(rejected.filter(pl.col("query_id") == query_id)["reason"].to_list())
    sums = {name: int(own[name].sum()) for name in _COUNTS}
    return {
        "batches_done": own.height,
        "stored": sums["stored"],
        "rejected_again": dict(sorted(reasons.items())),
        "duplicates": sums["duplicates"],
        "filtered": sums["filtered"],
        "no_longer_waiting": records - sums["read"] if over else 0,
    }


def _place(text: str) -> tuple[str, int, int]:
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not topic or not partition.isdecimal() or not offset.isdecimal():
        raise ConfigurationError(
            "expected a place such as payments/0/4711: topic, partition, offset", where=text
        )
    return topic, int(partition), int(offset)


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
