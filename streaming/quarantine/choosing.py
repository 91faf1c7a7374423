"""Which waiting records a person means, what would become of them, and how they are cut into batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.tables import UTC_MICROS
from streaming.delta.data_files import scanned
from streaming.delta.stored import open_version
from streaming.events.decode import decode
from streaming.events.writer_schemas import NO_REGISTRY, SchemaSource
from streaming.quarantine.requests import PLACE, RequeueSlice
from streaming.quarantine.waiting import records_at, stamped
from streaming.store.place import Place

SLICE_RECORDS = 20_000
SLICE_BYTES = 32 * 1024 * 1024
_EVERYTHING = 2**62


@dataclass(frozen=True)
class RecordFilter:
    """Which of the records that wait; what is not given does not matter.

    Attributes:
        reasons: codes of the newest rejection.
        since: broker time of the record, inclusive.
        until: exclusive.
    """

    reasons: tuple[str, ...] = ()
    topic: str | None = None
    partition: int | None = None
    first_offset: int = 0
    next_offset: int = _EVERYTHING
    since: datetime | None = None
    until: datetime | None = None

    def of(self, waiting: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `waiting` that are meant, by place."""
        return self.among(waiting).sort(PLACE)

    def among(self, waiting: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `waiting` that are meant, in its order; where that is all, itself."""
        conditions = list(self._conditions())
        return waiting.filter(*conditions) if conditions else waiting

    def _conditions(self) -> Iterator[pl.Expr]:
        if (self.first_offset, self.next_offset) != (0, _EVERYTHING):
            yield pl.col("offset").is_between(self.first_offset, self.next_offset, closed="left")
        if self.reasons:
            yield pl.col("reason").is_in(self.reasons)
        if self.topic is not None:
            yield pl.col("topic") == self.topic
        if self.partition is not None:
            yield pl.col("partition") == self.partition
        if self.since is not None:
            yield pl.col("arrived") >= self.since
        if self.until is not None:
            yield pl.col("arrived") < self.until


def wanted(
    reasons: Sequence[str] | None,
    topic: str | None,
    partition: int | None,
    offsets: tuple[int | None, int | None],
    times: tuple[datetime | None, datetime | None],
) -> RecordFilter:
    """Return what options of a command mean.

    Args:
        offsets: the first and the last.
        times: since and until, without a zone those of UTC.
    """
    first, last = offsets
    return RecordFilter(
        tuple(reasons or ()),
        topic,
        partition,
        first or 0,
        _EVERYTHING if last is None else last + 1,
        *map(_in_utc, times),
    )


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is None:
        return moment and moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError(f"{moment.isoformat()} has no year in UTC") from None


@dataclass(frozen=True)
class RequeueTrial:
    """What would become of records if they arrived now.

    Attributes:
        fit: by place, those that fit the contract and whose transaction is not stored.
        rejected: by place, those that would be rejected again.
        filtered: by place, those that the contract does not want.
        reasons: how many of the rejected by reason.
        known: how many fit, and their transaction is stored already.
    """

    fit: pl.DataFrame
    rejected: pl.DataFrame
    filtered: pl.DataFrame
    reasons: dict[str, int]
    known: int

    @property
    def chosen(self) -> pl.DataFrame:
        """All that a request would take: what is stored already stays where it is."""
        return pl.concat([self.fit, self.rejected, self.filtered]).sort(PLACE)

    def facts(self) -> dict[str, Any]:
        """Return the counts by name."""
        return {
            "records": self.chosen.height + self.known,
            "would_be_stored": self.fit.height,
            "would_be_rejected": dict(sorted(self.reasons.items())),
            "would_be_filtered": self.filtered.height,
            "stored_already": self.known,
        }


class RequeueTrials:
    """Decodes waiting records as the agent would now, and looks up what is stored.

    Args:
        quarantine: where the table lies.
        transactions: where the table lies.
        contract: what the records mean.
        horizon: within which a transaction id is a redelivery.
        now: current time.
        schemas: where the schemas of records come from that name theirs by an id.
    """

    def __init__(
        self,
        quarantine: Place,
        transactions: Place,
        contract: EventContract,
        horizon: timedelta,
        now: datetime,
        schemas: SchemaSource = NO_REGISTRY,
    ) -> None:
        self._quarantine, self._transactions = quarantine, transactions
        self._contract, self._horizon, self._now = contract, horizon, now
        self._schemas = schemas

    def of(self, wanted: pl.DataFrame) -> RequeueTrial:
        """Try the records of some rows of `waiting`."""
        fit, rejected, filtered = [wanted.clear()], [wanted.clear()], [wanted.clear()]
        reasons = Counter[str]()
        ids = [
            pl.DataFrame(
                schema={**{name: wanted.schema[name] for name in PLACE}, "transaction_id": pl.String}
            )
        ]
        for each in _parts(wanted):
            records = stamped(records_at(self._quarantine, each), pa.scalar(self._now, UTC_MICROS))
            decoded = decode(records, self._contract, self._now, self._schemas)
            reasons.update(decoded.rejected["reason"].to_pylist())
            ids.append(pl.DataFrame(decoded.valid.select([*PLACE, "transaction_id"])))
            rejected.append(each.join(_places(decoded.rejected), on=PLACE, how="semi"))
            filtered.append(each.join(_places(decoded.filtered), on=PLACE, how="semi"))
            fit.append(each.join(_places(decoded.valid), on=PLACE, how="semi"))
        valid = pl.concat(fit)
        fresh = self._fresh(valid.join(pl.concat(ids), on=PLACE))
        unknown = valid.join(fresh, on=PLACE, how="semi")
        known = valid.height - unknown.height
        return RequeueTrial(unknown, pl.concat(rejected), pl.concat(filtered), dict(reasons), known)

    def _fresh(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose transaction is not stored since the record came, nor shortly before."""
        table = open_version(self._transactions)
        if table is None or valid.height == 0:
            return valid
        since = valid.select((pl.col("arrived").min() - self._horizon).to_physical()).item()
        files = table.files("kafka_timestamp", since, None)
        if not files:
            return valid
        stored = scanned(files).select(
            "transaction_id", pl.col("kafka_timestamp").cast(pl.Datetime("us", "UTC"))
        )
        asked = valid.lazy().select(*PLACE, "transaction_id", "arrived")
        known = asked.join(stored, on="transaction_id").filter(
            pl.col("kafka_timestamp") >= pl.col("arrived") - self._horizon
        )
        return valid.join(known.select(PLACE).unique().collect(engine="streaming"), on=PLACE, how="anti")


def slices_of(chosen: pl.DataFrame) -> list[RequeueSlice]:
    """Cut records into batches that are bounded in records and bytes."""
    return [RequeueSlice(_ranges(each), each.height) for each in _parts(chosen)]


def _parts(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut rows, by place, into slices."""
    begun, size = 0, 0
    for place, each in enumerate(rows["bytes"].to_list()):
        if place > begun and (place - begun >= SLICE_RECORDS or size + each > SLICE_BYTES):
            yield rows[begun:place]
            begun, size = place, 0
        size += each
    if begun < rows.height:
        yield rows[begun:]


def _ranges(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the places of rows, sorted by place, as ranges of offsets without gaps."""
    offsets = rows["offset"].to_numpy()
    same = (rows["topic"] == rows["topic"].shift()) & (rows["partition"] == rows["partition"].shift())
    follows = same.fill_null(value=False).to_numpy() & (np.diff(offsets, prepend=-2) == 1)
    first = np.flatnonzero(~follows)
    last = np.append(first[1:], rows.height) - 1
    return [
        {
            "topic": rows["topic"][begun],
            "partition": rows["partition"][begun],
            "first_offset": int(offsets[begun]),
            "next_offset": int(offsets[end]) + 1,
        }
        for begun, end in zip(first.tolist(), last.tolist(), strict=True)
    ]


def _places(rows: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(rows.select(list(PLACE)))
