"""Ids of traces, by what they are about: who knows a batch or a run knows its trace, after a crash, too."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from schemas.batch_key import BatchKey

_TRACE_BYTES, _SPAN_BYTES = 16, 8


@dataclass(frozen=True)
class TraceIds:
    """The ids of a trace and of its first span, as OpenTelemetry has them: 128 and 64 bits."""

    trace_id: int
    span_id: int

    @property
    def text(self) -> str:
        """The trace's id as logs show it: 32 hex digits."""
        return f"{self.trace_id:032x}"

    def traceparent(self, *, kept: bool) -> str:
        """Return the two as the W3C's Trace Context has them; `kept` says whether the trace is recorded."""
        return f"00-{self.text}-{self.span_id:016x}-{kept:02d}"


def trace_of_batch(agent: str, key: BatchKey) -> TraceIds:
    """Return the ids of a batch's trace."""
    return _ids(f"batch/{agent}/{key.query_id}/{key.batch_id}")


def trace_of_run(run_id: str) -> TraceIds:
    """Return the ids of the trace of a planning run."""
    return _ids(f"run/{run_id}")


def _ids(name: str) -> TraceIds:
    digest = blake2b(name.encode(), digest_size=_TRACE_BYTES + _SPAN_BYTES).digest()
    return TraceIds(int.from_bytes(digest[:_TRACE_BYTES]), int.from_bytes(digest[_TRACE_BYTES:]))
