"""Compiles the kernels ahead of the first batch, or loads them from their disk cache."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from schemas.contract import EventContract
from schemas.spec import AgentSpec
from schemas.tables import HEADERS, UTC_MICROS
from streaming.arrays.median_clock import MedianClock
from streaming.detection.scoring import Scorer
from streaming.events.decode import decode
from streaming.events.duplicates import Deduplicator
from streaming.rules.earlier_answers import warm_up as warm_up_earlier
from streaming.rules.pattern_kernels import warm_up as warm_up_patterns


def compile_kernels(spec: AgentSpec, contract: EventContract) -> None:
    """Run every compiled kernel once on a record or two; about half a minute the very first time."""
    count = 2
    records = pa.table(
        {
            "key": pa.array([b"k"] * count, pa.binary()),
            "value": pa.array([b"{}", b"{"], pa.binary()),  # the second one is mended first
            "headers": pa.nulls(count, HEADERS),
            "topic": ["warm-up"] * count,
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(count), pa.int64()),
            "timestamp": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * count, UTC_MICROS),
        }
    )
    decoded = decode(records, contract, datetime(2026, 1, 1, tzinfo=UTC))
    duplicates = Deduplicator(contract.duplicates.horizon)
    duplicates.claim(decoded.valid)
    duplicates.commit()
    Scorer.under(spec.anew(), contract).warm_up()
    # Rules may change while the agent runs, and a batch is not to wait for a compiler then.
    MedianClock.blank().advance(np.zeros(count, np.int64))
    warm_up_patterns()
    warm_up_earlier()
