"""What decides a batch: the version in force and, beside it, a canary for a share of the entities.

Both look at every row, so each has the state that it would have alone: profiles, calibration, its threshold
under an alert budget, what its rules remember. Whose alert counts is a matter of the alert's own transaction:
of its primary entity's id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from agent.triage.triage import TriageResult
from streaming.batch.alerting import build_alerts
from streaming.batch.engine import Engine, Judged
from streaming.batch.flagging import Flagged, flag
from streaming.delta.pins import CANARY

_HASHES = 2**64


@dataclass(frozen=True)
class Canary:
    """A version that decides for a share of the primary entities, in percent."""

    engine: Engine
    percent: float


@dataclass(frozen=True)
class Deciders:
    """The version in force, and a canary where there is one."""

    engine: Engine
    canary: Canary | None = None

    @property
    def engines(self) -> tuple[Engine, ...]:
        """All that look at every row, the version in force first."""
        return (self.engine,) if self.canary is None else (self.engine, self.canary.engine)

    def each(self, renewed: Callable[[Engine], Engine]) -> Deciders:
        """Return the same with other engines in the places of these."""
        canary = None if self.canary is None else replace(self.canary, engine=renewed(self.canary.engine))
        return replace(self, engine=renewed(self.engine), canary=canary)

    def pins(self) -> dict[str, Any]:
        """Return everything a later attempt or a replay needs to decide the same way."""
        pins = self.engine.pins()
        if self.canary is not None:
            pins[CANARY] = {"percent": self.canary.percent, **self.canary.engine.pins()}
        return pins

    def columns(self) -> list[str]:
        """Return the columns of the transactions table that decisions look at."""
        return [*dict.fromkeys(name for engine in self.engines for name in engine.columns())]

    def judge(self, rows: pa.Table, verdicts: pa.Table | None) -> tuple[Judged, ...]:
        """Have each engine score the rows, leaving all state as it is; see Engine.judge."""
        return tuple(engine.judge(rows, verdicts) for engine in self.engines)

    def flag(self, rows: pa.Table, judged: Sequence[Judged]) -> list[Flagged]:
        """Return what each engine alerts of the entities that are its own."""
        flagged = [flag(engine, rows, each) for engine, each in zip(self.engines, judged, strict=True)]
        if self.canary is None:
            return flagged
        primary, percent = self.engine.contract.primary_entity, self.canary.percent
        shares = [[in_share(row.entities[primary], percent) for row in each.rows] for each in flagged]
        active, canary = flagged
        return [active.only([not inside for inside in shares[0]]), canary.only(shares[1])]

    def alerts(
        self, marks: Mapping[str, Any], flagged: Sequence[Flagged], results: Sequence[TriageResult]
    ) -> pa.Table:
        """Return the alerts of all engines, those of the version in force first; see build_alerts."""
        parts = zip(self.engines, flagged, results, strict=True)
        return pa.concat_tables([build_alerts(engine, marks, each, result) for engine, each, result in parts])

    def commit(self, judged: Sequence[Judged]) -> None:
        """Make the state after a batch the current one; see Engine.commit."""
        for engine, each in zip(self.engines, judged, strict=True):
            engine.commit(each)

    def close(self) -> None:
        """Wait for checkpoints that are being written."""
        for engine in self.engines:
            engine.close()


def in_share(identifier: object, percent: float) -> bool:
    """Whether a canary of so many percent decides for an entity; nobody's transactions are never its own.

    It depends on the id alone, so it is the same in every batch, process and version; a larger share holds
    every smaller one.
    """
    if identifier is None:
        return False
    digest = blake2b(str(identifier).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * 100 < percent * _HASHES
