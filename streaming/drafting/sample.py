"""Samples of events: the first of a file, or the newest of a topic."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from confluent_kafka import Message

from schemas.contract import EventContract
from schemas.instants import Clock, utc_now
from streaming.events.decode import Decoded, decode
from streaming.events.record_table import RECORDS, record_table
from streaming.events.writer_schemas import NO_REGISTRY, SchemaSource
from streaming.files.dialect import FOUND, TextOptions
from streaming.files.event_files import open_events
from streaming.files.raw_rows import parsed_object, raw_rows
from streaming.files.table_rows import Chunk
from streaming.kafka.topic import headers_of

_FRAME_BYTES = 5


@dataclass(frozen=True)
class TriedSample:
    """A sample decoded under a contract.

    Attributes:
        decoded: what became of its records.
        count: how many there were.
        place_of: where a record of `decoded` stands, by its partition and offset.
    """

    decoded: Decoded
    count: int
    place_of: Callable[[int, int], str]


class EventSample(Protocol):
    """Some events, to be understood and tried."""

    @property
    def name(self) -> str:
        """What it was taken from."""

    @property
    def framed(self) -> bool:
        """Whether a schema registry's five bytes stand before each event."""

    @property
    def said(self) -> Sequence[str]:
        """How text of files was taken, once it is tried; a line for each file of CSV."""

    def events(self) -> Sequence[Mapping[str, Any] | None]:
        """Return its events as objects, None for what is none."""

    def tried(self, contract: EventContract) -> TriedSample:
        """Decode it under a contract, as a run or a backfill would.

        Raises:
            ConfigurationError: a file lacks a column that the contract names, or cannot be read.
        """


class FileSample:
    """The first rows of a file, folder or Delta table; see EventSample.

    Args:
        path: where it is.
        most: how many rows.
        options: how text is written, where that need not be found.
        clock: current time, when every row counts as sent.
    """

    framed = False

    def __init__(
        self,
        path: Path,
        most: int,
        options: TextOptions = FOUND,
        clock: Clock = utc_now,
    ) -> None:
        self.name, self._path, self._most, self._options = path.name, path, most, options
        self._clock = clock
        self.said: Sequence[str] = ()

    def events(self) -> Sequence[Mapping[str, Any] | None]:
        """See EventSample."""
        return list(islice(raw_rows(self._path, self._options), self._most))

    def tried(self, contract: EventContract) -> TriedSample:
        """See EventSample."""
        chunks: list[Chunk] = []
        firsts = [0]
        opened = open_events(self._path, contract, options=self._options, strict=False)
        self.said = opened.said
        for chunk in opened.chunks():
            chunks.append(chunk)
            firsts.append(firsts[-1] + len(chunk.values))
            if firsts[-1] >= self._most:
                break
        keys = [key for chunk in chunks for key in chunk.keys][: self._most]
        values = [value for chunk in chunks for value in chunk.values][: self._most]
        now = self._clock()
        records = record_table(keys, values, topic=self.name, first=0, sent_at=now)

        def place_of(_: int, offset: int) -> str:
            number = bisect_right(firsts, offset) - 1
            return chunks[number].places(offset - firsts[number])

        return TriedSample(decode(records, contract, now, from_file=True), len(values), place_of)


class TopicSample:
    """Messages of a topic; see EventSample.

    Args:
        name: of the topic.
        messages: its newest ones.
        schemas: where the schemas of records come from that name theirs by an id.
    """

    said: Sequence[str] = ()

    def __init__(self, name: str, messages: Sequence[Message], schemas: SchemaSource = NO_REGISTRY) -> None:
        self.name, self._messages, self._schemas = name, messages, schemas

    @property
    def framed(self) -> bool:
        """See EventSample."""
        values = [each.value() or b"" for each in self._messages]
        return bool(values) and sum(map(_is_framed, values)) > len(values) / 2

    def events(self) -> Sequence[Mapping[str, Any] | None]:
        """See EventSample."""
        cut = _FRAME_BYTES if self.framed else 0
        return [parsed_object(bytes(each.value() or b"")[cut:]) for each in self._messages]

    def tried(self, contract: EventContract) -> TriedSample:
        """See EventSample."""
        records = pa.Table.from_pylist([_row(each) for each in self._messages], schema=RECORDS)
        decoded = decode(records, contract, datetime.now(UTC), self._schemas)
        return TriedSample(
            decoded, len(self._messages), lambda partition, offset: f"{self.name}/{partition}/{offset}"
        )


def _is_framed(value: bytes | str) -> bool:
    content = value if isinstance(value, bytes) else value.encode()
    return content[:1] == b"\0" and content[_FRAME_BYTES:].lstrip()[:1] == b"{"


def _row(message: Message) -> dict[str, Any]:
    kind, stamp = message.timestamp()
    headers = [{"key": name, "value": value} for name, value in headers_of(message)]
    return {
        "key": message.key(),
        "value": message.value(),
        "headers": headers or None,
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": datetime.fromtimestamp(stamp / 1000, UTC) if kind else None,
    }
