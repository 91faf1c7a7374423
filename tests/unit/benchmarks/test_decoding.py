"""Both sides of the comparison read the same from every shape, each shape as large as it is to be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.decoded_records import Records, shapes
from benchmarks.decoding import NOW, one_by_one, table_of
from streaming.events.decode import decode

SIZES = {
    "flat": 120,
    "escaped": 135,
    "array": 160,
    "nested": 1_150,
    "charge": 1_850,
    "avro": 53,
    "protobuf": 57,
}
NAMES = {"transaction_id": "id", "amount": "amount", "currency": "currency", "card": "card", "memo": "memo"}


def moment(said: Any) -> datetime:
    return said if isinstance(said, datetime) else datetime.fromtimestamp(said, UTC)


@pytest.mark.long
@pytest.mark.parametrize("records", list(shapes(500)), ids=lambda records: records.name)
def test_decoding_and_reading_one_by_one_see_the_same(records: Records) -> None:
    found = decode(table_of(records.values), records.contract, NOW)
    assert found.rejected.num_rows == 0
    theirs = one_by_one(records)
    for ours, name in NAMES.items():
        assert found.valid[ours].to_pylist() == theirs[name].to_pylist(), name
    assert found.valid["event_time"].to_pylist() == [moment(each) for each in theirs["at"].to_pylist()]
    mean = sum(map(len, records.values)) / len(records.values)
    assert abs(mean / SIZES[records.name] - 1) < 0.05
