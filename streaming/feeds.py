"""Feeds of events for Kafka: simulated or from a file, at a steady open-loop rate or at full speed."""

from __future__ import annotations

import csv
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from rich.console import Console
from rich.progress import Progress

from schemas.contract import Column, EventContract
from schemas.errors import ConfigurationError, RetryableError, nearest
from streaming.broker import ensure_topic
from streaming.simulator import (
    LABELS,
    SimulatedBlock,
    Simulator,
    SimulatorSettings,
    iso_text,
    json_keys,
    json_lines,
    json_rows,
    rhythm_times,
)

Report = Callable[[int], None]
Keyed = tuple[list[bytes | None], list[bytes]]

_BATCH_ROWS = 50_000
_CHUNK = 5_000
_CSV_BLOCK_BYTES = 8 << 20
_BLOCK_SECONDS = 0.2
_SPAN_OF_FULL_BURSTS = 3600.0
_LONGEST_WAIT_S = 0.1
_SHORTEST_WAIT_S = 0.001
_DELIVERY_SECONDS = 60.0
_FILE_START = datetime(2025, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CSV_TYPES = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}


@dataclass(frozen=True)
class Simulated:
    """What a simulation sent or wrote.

    Attributes:
        events: distinct, well-formed payments.
        frauds: how many of them are fraudulent.
        labels: the file that holds the labels, None when only `truth` does.
        truth: transaction_id, is_fraud and fraud_type of each payment.
        records: records sent, duplicates and malformed ones included.
    """

    events: int
    frauds: int
    labels: Path | None
    truth: pa.Table
    records: int


@dataclass(frozen=True)
class Produced:
    """How many events were delivered, and in how many seconds."""

    sent: int
    seconds: float


class Pace:
    """An open-loop schedule: record n is due n / rate seconds after the start, however late others were.

    Args:
        rate: records per second; None for as fast as it goes.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        if rate is not None and not rate > 0:
            raise ConfigurationError("expected a rate above 0", key="rate")
        self._rate, self._clock, self._start = rate, clock, clock()

    def due(self, sent: int) -> int:
        """Return how many records should go out now, when `sent` have gone before."""
        if self._rate is None:
            return sys.maxsize
        return max(0, int((self._clock() - self._start) * self._rate) + 1 - sent)

    def wait_s(self, sent: int) -> float:
        """Return the seconds until the next record is due."""
        return 0.0 if self._rate is None else self._start + sent / self._rate - self._clock()


class Sender:
    """An idempotent producer under a pace; use as a context manager, which delivers all on the way out.

    Raises:
        RetryableError: records could not be delivered.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        pace: Pace,
        *,
        on_progress: Report | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._topic, self._pace = topic, pace
        self._on_progress, self._stop = on_progress or (lambda _: None), stop or threading.Event()
        self._producer = Producer(_producer_settings(bootstrap, self._note_failure))
        self._failed, self._fault = 0, ""
        self.sent = 0

    def __enter__(self) -> Sender:
        """Return the sender."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Deliver what is queued; drop it when an error is on its way."""
        if kind is not None:
            self._producer.purge()
            return
        # Flushing counts failures itself, so its result is added only after it has returned.
        unanswered = self._producer.flush(_DELIVERY_SECONDS + 1)
        self._failed += unanswered
        self._check()

    def send(self, keys: Sequence[bytes | None], values: Sequence[bytes]) -> int:
        """Queue the records when they are due; return how many were, fewer than given only when stopped."""
        done = 0
        while done < len(values) and not self._stop.is_set():
            due = min(self._pace.due(self.sent), _CHUNK, len(values) - done)
            if not due:
                wait = min(self._pace.wait_s(self.sent), _LONGEST_WAIT_S)
                self._producer.poll(max(wait, _SHORTEST_WAIT_S))
                continue
            self._queue(keys[done : done + due], values[done : done + due])
            done += due
        return done

    def _queue(self, keys: Sequence[bytes | None], values: Sequence[bytes]) -> None:
        produce, topic = self._producer.produce, self._topic
        for key, value in zip(keys, values, strict=True):
            try:
                produce(topic, value, key)
            except BufferError:
                self._produce_when_room(key, value)
            except KafkaException as fault:
                raise RetryableError(f"sending to {topic}: {fault}") from fault
        self.sent += len(values)
        self._producer.poll(0)
        self._check()
        self._on_progress(self.sent)

    def _produce_when_room(self, key: bytes | None, value: bytes) -> None:
        while True:
            self._producer.poll(_LONGEST_WAIT_S)
            try:
                return self._producer.produce(self._topic, value, key)
            except BufferError:
                self._check()

    def _note_failure(self, fault: KafkaError | None, _: Message) -> None:
        if fault is not None:
            self._failed, self._fault = self._failed + 1, str(fault)

    def _check(self) -> None:
        if self._failed:
            why = self._fault or "no answer from the broker"
            lost = f"{self._failed} of {self.sent} records not delivered"
            raise RetryableError(f"{lost} to {self._topic}: {why}")


def produce_records(
    bootstrap: str, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes], pace: Pace
) -> None:
    """Send records in order and wait until the broker has them all.

    Raises:
        RetryableError: some could not be delivered.
    """
    with Sender(bootstrap, topic, pace) as sender:
        sender.send(keys, values)


def simulate_to_topic(
    bootstrap: str,
    topic: str,
    *,
    rate: float,
    seconds: float,
    seed: int,
    compress: float = 1.0,
    on_progress: Report | None = None,
    stop: threading.Event | None = None,
    settings: SimulatorSettings | None = None,
) -> Simulated:
    """Send simulated payments under contract `simulator` at a steady rate.

    Args:
        bootstrap: address of the broker.
        topic: created when absent.
        rate: records per second.
        seconds: for how long.
        seed: seed of the stream.
        compress: how much faster event time runs than the clock, 1 or more; it reaches the clock at the end.
        on_progress: called with the records sent so far.
        stop: ends the stream early when set.
        settings: what is simulated; by default, as many customers as the stream can show habits of.

    Raises:
        ConfigurationError: a number is out of range.
        RetryableError: the broker did not take the records.
    """
    total = _total(rate, seconds)
    per_block = max(1, round(rate * _BLOCK_SECONDS))
    sizes = _sizes(total, per_block)
    began = datetime.now(UTC)
    bounds = event_time_bounds(began, per_block / rate, len(sizes), compress)
    simulator = Simulator(settings or _population(total, seconds * compress, seed, _fresh_prefix(began)))
    ensure_topic(bootstrap, topic)
    truth = []
    with Sender(bootstrap, topic, Pace(rate), on_progress=on_progress, stop=stop) as sender:
        for size, start, end in zip(sizes, bounds, bounds[1:], strict=False):
            block = simulator.block(size, start, end)
            queued = sender.send(json_keys(block), json_lines(block))
            truth.append(_labels_of(block, queued))
            if queued < len(block.sends):
                break
    return _simulated(truth, None, sender.sent)


def event_time_bounds(began: datetime, block_seconds: float, blocks: int, compress: float) -> list[datetime]:
    """Return the `blocks` + 1 bounds of event time for blocks sent one after the other from `began` on.

    Event time passes faster in hours of little traffic; a block's times have all passed when its turn comes.
    """
    if not compress >= 1:
        raise ConfigurationError("expected 1 or more: event time must not run ahead", key="compress")
    turns = _micros(began) + np.arange(blocks) * round(block_seconds * 1e6)
    span = round(blocks * block_seconds * compress * 1e6)
    last = int(turns[-1])
    passed = rhythm_times(np.linspace(0, 1, blocks + 1), last - span, last)
    passed[1:] = np.minimum(passed[1:], turns)
    return [_EPOCH + timedelta(microseconds=each) for each in passed.tolist()]


def simulate_to_file(path: Path, *, rate: float, seconds: float, seed: int) -> Simulated:
    """Write simulated payments with their labels, from a fixed date on, as .parquet or .csv.

    Raises:
        ConfigurationError: another ending, no such folder, or a number out of range.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise ConfigurationError("expected an ending of .parquet or .csv", where=str(path))
    if not path.absolute().parent.is_dir():
        raise ConfigurationError("its folder does not exist", where=str(path))
    sizes = _sizes(_total(rate, seconds), _BATCH_ROWS)
    first = _micros(_FILE_START)
    shares = np.cumsum([0, *sizes]) / sum(sizes)
    times = rhythm_times(shares, first, first + max(round(seconds * 1e6), len(sizes)))
    bounds = [_EPOCH + timedelta(microseconds=each) for each in times.tolist()]
    simulator = Simulator(_population(sum(sizes), seconds, seed, "tx"))
    blocks = (simulator.block(*each) for each in zip(sizes, bounds, bounds[1:], strict=False))
    truth = list(_written(path, blocks))
    return _simulated(truth, path, sum(sizes))


def _written(path: Path, blocks: Iterator[SimulatedBlock]) -> Iterator[pa.Table]:
    """Write each block with its labels; yield the labels."""
    kind = pq.ParquetWriter if path.suffix == ".parquet" else pa_csv.CSVWriter
    writer = None
    try:
        for block in blocks:
            table = block.events
            for name in LABELS.names[1:]:
                table = table.append_column(LABELS.field(name), block.labels[name])
            writer = writer or kind(str(path), table.schema)
            writer.write_table(table)
            yield block.labels
    finally:
        if writer is not None:
            writer.close()


def _total(rate: float, seconds: float) -> int:
    for name, value in (("rate", rate), ("seconds", seconds)):
        if not value > 0:
            raise ConfigurationError("expected a number above 0", key=name)
    return max(1, round(rate * seconds))


def _sizes(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]


def _population(total: int, span_seconds: float, seed: int, prefix: str) -> SimulatorSettings:
    """Fit a population to a stream: some twenty payments per customer, and bursts of fraud that end in it."""
    customers = min(max(total // 20, 50), 50_000)
    return SimulatorSettings(
        seed,
        customers,
        terminals=max(customers // 5, 20),
        burst_scale=min(1.0, span_seconds / _SPAN_OF_FULL_BURSTS),
        id_prefix=prefix,
    )


def _fresh_prefix(began: datetime) -> str:
    """Keep apart the ids of two streams on one topic, which would otherwise pass for redeliveries."""
    return f"tx{_micros(began) // 1000:x}-"


def _labels_of(block: SimulatedBlock, queued: int) -> pa.Table:
    sent = block.sends[:queued][block.faults[:queued] == 0]
    return block.labels.take(pa.array(np.unique(sent)))


def _simulated(truth: list[pa.Table], labels: Path | None, records: int) -> Simulated:
    table = pa.concat_tables([LABELS.empty_table(), *truth])
    frauds = int(np.count_nonzero(table["is_fraud"].to_numpy()))
    return Simulated(table.num_rows, frauds, labels, table, records)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def produce_file(
    bootstrap: str,
    path: Path,
    contract: EventContract,
    *,
    topic: str,
    rate: float | None = None,
    on_progress: Report | None = None,
) -> Produced:
    """Send a file's rows as JSON events that hold exactly the contract's fields, keyed by the primary entity.

    Raises:
        ConfigurationError: no such file, an unknown ending, a missing column or an unreadable row.
        RetryableError: the broker did not take the records.
    """
    batches = file_events(path, contract)
    began = time.monotonic()
    with Sender(bootstrap, topic, Pace(rate), on_progress=on_progress) as sender:
        for keys, values in batches:
            sender.send(keys, values)
    return Produced(sender.sent, time.monotonic() - began)


def produce_with_progress(
    bootstrap: str,
    file: Path,
    contract: EventContract,
    *,
    topic: str | None = None,
    rate: float | None = None,
    partitions: int = 4,
) -> dict[str, object]:
    """Do `produce_file`, creating the topic when absent, with a progress bar when stderr is a terminal."""
    topic = topic or contract.name
    file_events(file, contract)
    ensure_topic(bootstrap, topic, partitions)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"{file.name} → {topic}", total=_known_rows(file))
        done = produce_file(
            bootstrap, file, contract, topic=topic, rate=rate,
            on_progress=lambda sent: progress.update(task, completed=sent),
        )  # fmt: skip
    per_s = round(done.sent / max(done.seconds, 1e-9), 1)
    return {"sent": done.sent, "seconds": round(done.seconds, 3), "events_per_s": per_s, "topic": topic}


def file_events(path: Path, contract: EventContract) -> Iterator[Keyed]:
    """Check a file's ending and columns at once; return its keys and JSON events, batch by batch.

    Raises:
        ConfigurationError: no such file, an unknown ending, a missing column; later, an unreadable row.
    """
    if not path.is_file():
        raise ConfigurationError("no such file", where=str(path))
    if path.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ConfigurationError(f"unknown ending {path.suffix!r}; expected one of: {known}", where=str(path))
    try:
        return _READERS[path.suffix](path, contract)
    except (pa.ArrowInvalid, UnicodeDecodeError) as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault


def _known_rows(path: Path) -> int | None:
    return int(pq.read_metadata(path).num_rows) if path.suffix == ".parquet" else None


def _check_columns(path: Path, contract: EventContract, present: Sequence[str]) -> None:
    for name in contract.raw_fields:
        if name not in present:
            raise ConfigurationError(f"no column {name!r}; {nearest(name, present)}", where=str(path))


def _parquet(path: Path, contract: EventContract) -> Iterator[Keyed]:
    file = pq.ParquetFile(path)
    _check_columns(path, contract, _flat(file.schema_arrow.empty_table()).column_names)
    batches = file.iter_batches(_BATCH_ROWS, columns=list(contract.raw_fields))
    return _encoded(path, contract, batches)


def _csv(path: Path, contract: EventContract) -> Iterator[Keyed]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        _check_columns(path, contract, next(csv.reader(lines), []))
    convert = pa_csv.ConvertOptions(
        include_columns=list(contract.raw_fields),
        column_types={each.source: _csv_type(each) for each in contract.columns if each.source},
        null_values=[""],
        strings_can_be_null=True,
    )
    read = pa_csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    return _encoded(path, contract, pa_csv.open_csv(path, read_options=read, convert_options=convert))


def _csv_type(column: Column) -> pa.DataType:
    """Epoch times stay text at first: only then do whole ones remain whole."""
    return pa.string() if column.role == "event time" else _CSV_TYPES[column.json_type]


def _encoded(path: Path, contract: EventContract, batches: Iterator[pa.RecordBatch]) -> Iterator[Keyed]:
    key = contract.entities[contract.primary_entity].field
    try:
        for batch in batches:
            table = _flat(pa.Table.from_batches([batch]))
            columns = {each.source: each for each in contract.columns if each.source}
            plain = {name: _plain(table[name], columns[name], contract) for name in contract.raw_fields}
            keys = plain[key].cast(pa.string()).cast(pa.binary()).to_pylist()
            yield keys, json_rows(pa.table(_nested(plain)))
    except pa.ArrowInvalid as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault


def _flat(table: pa.Table) -> pa.Table:
    while any(pa.types.is_struct(each) for each in table.schema.types):
        table = table.flatten()
    return table


def _plain(values: pa.ChunkedArray, column: Column, contract: EventContract) -> pa.Array:
    """Bring a column to what JSON and the contract's time format can hold."""
    array = values.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("us"))
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if pa.types.is_timestamp(array.type):
        return _time_text(array, contract.event_time.format if column.role == "event time" else "iso8601")
    if column.role == "event time" and column.json_type == "number" and pa.types.is_string(array.type):
        return _numbers(array)
    return array


def _time_text(times: pa.Array, form: str) -> pa.Array:
    if form == "epoch":
        raise ConfigurationError("the file holds timestamps, the contract wants numbers", key="event_time")
    if form == "iso8601":
        return iso_text(times)
    # Polars counts %f in nanoseconds where the contract's pattern, like Python's, means microseconds.
    return pl.Series(pl.from_arrow(times)).dt.strftime(form.replace("%f", "%6f")).to_arrow().cast(pa.string())


def _numbers(texts: pa.Array) -> pa.Array:
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return texts.cast(pa.float64())


def _nested(columns: dict[str, Any]) -> dict[str, pa.Array]:
    """Turn columns named by dotted paths into structs."""
    nested: dict[str, Any] = {}
    for name, values in columns.items():
        head, _, rest = name.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = values
        else:
            nested[head] = values
    return {name: _struct(part) if isinstance(part, dict) else part for name, part in nested.items()}


def _struct(columns: dict[str, Any]) -> pa.Array:
    parts = _nested(columns)
    return pa.StructArray.from_arrays(list(parts.values()), list(parts))


def _json_lines(path: Path, contract: EventContract) -> Iterator[Keyed]:
    reader = _LineReader.of(contract)
    with path.open("rb") as file:
        lines = ((f"{path}:{number}", line) for number, line in enumerate(file, 1) if not line.isspace())
        while batch := list(islice(lines, _BATCH_ROWS)):
            records = [reader.read(line, where) for where, line in batch]
            yield [key for key, _ in records], [value for _, value in records]


@dataclass(frozen=True)
class _LineReader:
    """Takes the contract's fields, named by dotted path, out of lines of JSON."""

    key: str
    fields: frozenset[str]
    required: frozenset[str]

    @classmethod
    def of(cls, contract: EventContract) -> _LineReader:
        required = (each.source for each in contract.columns if each.required and each.source)
        key = contract.entities[contract.primary_entity].field
        return cls(key, frozenset(contract.raw_fields), frozenset(required))

    def read(self, line: bytes, where: str) -> tuple[bytes, bytes]:
        """Return a line's key, and the event that holds only the contract's fields."""
        try:
            parsed = orjson.loads(line)
        except orjson.JSONDecodeError as fault:
            raise ConfigurationError(f"not JSON: {fault}", where=where) from None
        if not isinstance(parsed, dict):
            raise ConfigurationError("expected a JSON object", where=where)
        if parsed.keys() == self.fields:
            return str(parsed[self.key]).encode(), line.strip()
        return self._picked(dict(_leaves(parsed, "")), where)

    def _picked(self, found: dict[str, Any], where: str) -> tuple[bytes, bytes]:
        absent = sorted(self.required - found.keys())
        if absent:
            raise ConfigurationError(f"no field {absent[0]!r}; {nearest(absent[0], found)}", where=where)
        event = {name: value for name, value in found.items() if name in self.fields}
        return str(event[self.key]).encode(), orjson.dumps(_unflattened(event))


def _leaves(event: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in event.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _unflattened(event: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in event.items():
        *parents, leaf = path.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return nested


def _producer_settings(
    bootstrap: str, on_delivery: Callable[[KafkaError | None, Message], None]
) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 5,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
        "partitioner": "murmur2_random",
        "message.timeout.ms": int(_DELIVERY_SECONDS * 1000),
        # Successes need no callback per record, which would cost more than the sending.
        "delivery.report.only.error": True,
        "on_delivery": on_delivery,
        "log_level": 0,
    }


_READERS: dict[str, Callable[[Path, EventContract], Iterator[Keyed]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
