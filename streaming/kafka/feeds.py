"""Feeds of events for Kafka: simulated or from a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from schemas.counts import count_of
from schemas.errors import ConfigurationError
from schemas.instants import micros_of, moment_of
from streaming.events.simulated_json import json_keys, json_lines
from streaming.events.simulator import LABELS, SimulatedBlock, Simulator, SimulatorSettings, rhythm_times
from streaming.files.event_files import EventFile, Keyed
from streaming.kafka.sending import Report, Sender, SendSchedule
from streaming.kafka.topic_admin import ensure_topic

_BATCH_ROWS = 50_000
_BLOCK_SECONDS = 0.2
_SPAN_OF_FULL_BURSTS = 3600.0
_FILE_START = datetime(2025, 1, 1, tzinfo=UTC)


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


def simulate_to_topic(
    bootstrap: str,
    topic: str,
    *,
    rate: float,
    seconds: float,
    seed: int,
    compress: float = 1.0,
    labels: Path | None = None,
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
        labels: Parquet file that receives transaction_id, is_fraud and fraud_type.
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
    with Sender(bootstrap, topic, SendSchedule(rate), on_progress=on_progress, stop=stop) as sender:
        for size, start, end in zip(sizes, bounds, bounds[1:], strict=False):
            block = simulator.block(size, start, end)
            queued = sender.send(json_keys(block), json_lines(block))
            truth.append(_labels_of(block, queued))
            if queued < len(block.sends):
                break
    done = _simulated(truth, labels, sender.sent)
    if labels is not None:
        _write_labels(done.truth, labels)
    return done


def _write_labels(truth: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(truth, path)


def event_time_bounds(began: datetime, block_seconds: float, blocks: int, compress: float) -> list[datetime]:
    """Return the `blocks` + 1 bounds of event time for blocks sent one after the other from `began` on.

    Event time passes faster in hours of little traffic; a block's times have all passed when its turn comes.
    """
    if not compress >= 1:
        raise ConfigurationError("expected 1 or more: event time must not run ahead", key="compress")
    turns = micros_of(began) + np.arange(blocks) * round(block_seconds * 1e6)
    span = round(blocks * block_seconds * compress * 1e6)
    last = int(turns[-1])
    passed = rhythm_times(np.linspace(0, 1, blocks + 1), last - span, last)
    passed[1:] = np.minimum(passed[1:], turns)
    return [moment_of(each) for each in passed.tolist()]


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
    first = micros_of(_FILE_START)
    shares = np.cumsum([0, *sizes]) / sum(sizes)
    times = rhythm_times(shares, first, first + max(round(seconds * 1e6), len(sizes)))
    bounds = [moment_of(each) for each in times.tolist()]
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
    return f"tx{micros_of(began) // 1000:x}-"


def _labels_of(block: SimulatedBlock, queued: int) -> pa.Table:
    sent = block.sends[:queued][block.faults[:queued] == 0]
    return block.labels.take(pa.array(np.unique(sent)))


def _simulated(truth: list[pa.Table], labels: Path | None, records: int) -> Simulated:
    table = pa.concat_tables([LABELS.empty_table(), *truth])
    frauds = int(np.count_nonzero(table["is_fraud"].to_numpy()))
    return Simulated(table.num_rows, frauds, labels, table, records)


def produce_file(
    bootstrap: str,
    events: EventFile,
    *,
    topic: str,
    rate: float | None = None,
    on_progress: Report | None = None,
) -> Produced:
    """Send a file's rows as JSON events that hold exactly the contract's fields, keyed by the primary entity.

    Raises:
        ConfigurationError: an unreadable row.
        RetryableError: the broker did not take the records.
    """
    batches = events.keyed()
    began = time.monotonic()
    with Sender(bootstrap, topic, SendSchedule(rate), on_progress=on_progress) as sender:
        fault = _send_all(sender, batches)
    if fault is not None:
        sent = f"; sent before it: {count_of(sender.sent, 'record')}" if sender.sent else ""
        raise ConfigurationError(f"{fault.problem}{sent}", where=fault.where, key=fault.key)
    return Produced(sender.sent, time.monotonic() - began)


def _send_all(sender: Sender, batches: Iterator[Keyed]) -> ConfigurationError | None:
    """Send batch by batch; return what is wrong with the file: what came before is still to be delivered."""
    try:
        for keys, values in batches:
            sender.send(keys, values)
    except ConfigurationError as fault:
        return fault
    return None
