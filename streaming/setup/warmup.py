"""Compiles the kernels ahead of the first batch, or loads them from their disk cache."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from streaming.arrays.median_clock import MedianClock
from streaming.definition.agent_definition import AgentDefinition
from streaming.detection.scoring import Scorer
from streaming.events.decode import decode
from streaming.events.duplicates import Deduplicator
from streaming.events.record_table import record_table
from streaming.rules.earlier_answers import warm_up as warm_up_earlier
from streaming.rules.pattern_kernels import warm_up as warm_up_patterns


def compile_kernels(definition: AgentDefinition) -> None:
    """Run every compiled kernel once on a record or two; about half a minute the very first time."""
    contract = definition.contract
    values = [b"{}", b"{"]  # the second one is mended first
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    records = record_table([b"k", b"k"], values, topic="warm-up", first=0, sent_at=moment)
    decoded = decode(records, contract, moment)
    duplicates = Deduplicator(contract.duplicates.horizon)
    duplicates.claim(decoded.valid)
    duplicates.commit()
    Scorer.under(definition.spec.anew(), contract).warm_up()
    # Rules may change while the agent runs, and a batch is not to wait for a compiler then.
    MedianClock.blank().advance(np.zeros(records.num_rows, np.int64))
    warm_up_patterns()
    warm_up_earlier()
