"""Compiles the kernels ahead of the first batch, or loads them from their disk cache."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np

from schemas.schema_texts import SchemaText
from streaming.arrays.collector import spare_what_is_loaded
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.arrays.median_clock import MedianClock
from streaming.definition.agent_definition import AgentDefinition
from streaming.detection.scoring import Scorer
from streaming.events.decode import decode
from streaming.events.duplicates import Deduplicator
from streaming.events.record_table import record_table
from streaming.events.writer_schemas import WriterSchemas
from streaming.rules.earlier_answers import warm_up as warm_up_earlier
from streaming.rules.pattern_kernels import warm_up as warm_up_patterns

_EMPTY_RECORD = '{"type": "record", "name": "Empty", "fields": []}'
_EMPTY_MESSAGE = 'syntax = "proto3"; message Empty {}'


def compile_kernels(definition: AgentDefinition) -> None:
    """Run every compiled kernel once on a record or two; about half a minute the very first time."""
    contract = definition.contract
    values = [b"{}", b"{", b"\0\0\0\0\1\0"]  # the second one is mended first, the third names a schema
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    records = record_table([b"k"] * 3, values, topic="warm-up", first=0, sent_at=moment)
    decoded = decode(records, contract, moment, _AnySchema())
    duplicates = Deduplicator(contract.duplicates.horizon)
    duplicates.claim(decoded.valid)
    duplicates.commit()
    Scorer.under(definition.spec.anew(), contract).warm_up()
    # Rules may change while the agent runs, and a batch is not to wait for a compiler then.
    MedianClock.blank().advance(np.zeros(records.num_rows, np.int64))
    warm_up_patterns()
    warm_up_earlier()
    machine_fingerprint()
    spare_what_is_loaded()


class _AnySchema:
    """A SchemaSource without a registry: what is compiled does not depend on what a schema holds."""

    def schemas(self, kind: str, ids: Iterable[int]) -> WriterSchemas:
        text = _EMPTY_RECORD if kind == "AVRO" else _EMPTY_MESSAGE
        return {each: SchemaText(text) for each in ids}

    def away(self) -> str | None:
        return None
