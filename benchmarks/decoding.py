"""Decoding alone: records as people have them to columns, beside reading them one by one.

The other side is what one would write by hand: `orjson.loads`, `fastavro` or Google's Protobuf for each
record, the wanted fields picked out of it, and a table made of them. It checks nothing and keeps no reason
for what it cannot read, so it does less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from benchmarks.decoded_records import AT, Records, Steps, shapes
from benchmarks.harness import report, say
from streaming.events.decode import decode
from streaming.events.record_table import record_table

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_ROUNDS = 5
# Events a second, by the clock, that each shape is to reach on two cores.
_GOALS = {
    **dict.fromkeys(("flat", "escaped", "array", "avro", "protobuf"), 1_500_000),
    **dict.fromkeys(("nested", "charge"), 500_000),
}


def measure(events: int, *, as_json: bool) -> None:
    """Print the best of five by shape, and in `below_goal` the shapes that are slower than they are to be.

    `NAME_events_per_s` is by the clock, on two threads. `NAME_ratio` is how many times more events than one
    by one the same processor time decodes.

    Args:
        events: records of each shape.
    """
    figures: dict[str, float] = {}
    for records in shapes(events):
        figures |= _figures(records)
    below = [name for name, goal in _GOALS.items() if figures[f"{name}_events_per_s"] < goal]
    report({**figures, "below_goal": below, "events": events}, as_json=as_json)


def _figures(records: Records) -> dict[str, float]:
    table, contract = table_of(records.values), records.contract
    decode(table, contract, NOW)  # compiles what is compiled
    ours = [_timed(lambda: decode(table, contract, NOW)) for _ in range(_ROUNDS)]
    theirs = [_timed(lambda: one_by_one(records)) for _ in range(_ROUNDS)]
    count, size = len(records.values), round(sum(map(len, records.values)) / len(records.values))
    by_clock, by_processor = (count / min(side) for side in zip(*ours, strict=True))
    say(f"{records.name}: {by_clock:,.0f} events/s, {size} bytes each")
    return {
        f"{records.name}_bytes": size,
        f"{records.name}_events_per_s": round(by_clock),
        f"{records.name}_events_per_cpu_s": round(by_processor),
        f"{records.name}_ratio": round(by_processor * min(cpu for _, cpu in theirs) / count, 1),
    }


def _timed(act: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds and processor seconds that something takes."""
    clock, processor = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - clock, time.process_time() - processor


def one_by_one(records: Records) -> pa.Table:
    """Return what the other side makes of records: their fields as they are."""
    parsed = [records.parse(value) for value in records.values]
    return pa.table({name: [_at(each, path) for each in parsed] for name, path in records.paths.items()})


def _at(found: Any, path: Steps) -> Any:
    for step in path:
        found = found[step]
    return found


def table_of(values: Sequence[bytes]) -> pa.Table:
    """Return records as Kafka gives them, of one partition."""
    sent_at = datetime.fromtimestamp(AT, UTC)
    return record_table([None] * len(values), values, topic="payments", first=0, sent_at=sent_at)
