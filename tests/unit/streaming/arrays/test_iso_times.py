from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from streaming.arrays.iso_times import iso_text


def test_iso_text_keeps_microseconds_and_zone() -> None:
    moment = datetime(2025, 3, 1, 12, 30, 1, 250, tzinfo=UTC)
    paris = pa.array([moment, None], pa.timestamp("us", "Europe/Paris"))
    naive = pa.array([moment.replace(tzinfo=None)], pa.timestamp("ns"))
    assert iso_text(paris).to_pylist() == ["2025-03-01T12:30:01.000250Z", None]
    assert iso_text(naive).to_pylist() == ["2025-03-01T12:30:01.000250"]
