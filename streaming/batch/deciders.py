"""What decides a batch: the version in force and, beside it, a canary for a share of the entities.

Both decide every row, so each has the state that it would have alone: profiles, calibration, its threshold
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
from streaming.batch.decider import Decider, Judged
from streaming.batch.engine import Engine
from streaming.batch.flagging import Flagged, Refuses, flag, without_refused
from streaming.batch.steps import BatchStep, InStep, untimed
from streaming.delta.pins import CANARY

_HASHES = 2**64


@dataclass(frozen=True)
class Decided:
    """What was decided about a batch's rows, by each decider, the version in force first.

    Attributes:
        judged: leads to the state after the batch; see Deciders.commit.
        flagged: what becomes alerts.
        results: what triage said of them.
        refused: ids of alerts that are left out although their rows were flagged.
    """

    deciders: tuple[Decider, ...]
    judged: tuple[Judged, ...]
    flagged: tuple[Flagged, ...]
    results: tuple[TriageResult, ...]
    refused: tuple[str, ...] = ()

    def alerts(self, marks: Mapping[str, Any]) -> pa.Table:
        """Return the alerts of all deciders; see build_alerts."""
        parts = zip(self.deciders, self.flagged, self.results, strict=True)
        return pa.concat_tables(
            [build_alerts(decider, marks, each, result) for decider, each, result in parts]
        )


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
        """All that decide every row, the version in force first."""
        return (self.engine,) if self.canary is None else (self.engine, self.canary.engine)

    @property
    def deciders(self) -> tuple[Decider, ...]:
        """What decides, without what it remembers, in the same order."""
        return tuple(engine.decider for engine in self.engines)

    def each(self, renewed: Callable[[Engine], Engine]) -> Deciders:
        """Return the same with other engines in the places of these."""
        canary = None if self.canary is None else replace(self.canary, engine=renewed(self.canary.engine))
        return replace(self, engine=renewed(self.engine), canary=canary)

    def pins(self) -> dict[str, Any]:
        """Return everything a later attempt or a replay needs to decide the same way."""
        pins = self.engine.decider.pins()
        if self.canary is not None:
            pins[CANARY] = {"percent": self.canary.percent, **self.canary.engine.decider.pins()}
        return pins

    def columns(self) -> list[str]:
        """Return the columns of the transactions table that decisions read."""
        return [*dict.fromkeys(name for decider in self.deciders for name in decider.columns())]

    def judge(self, rows: pa.Table, labels: pa.Table | None) -> tuple[Judged, ...]:
        """Have each engine score the rows, leaving all state as it is; see Engine.judge."""
        return tuple(engine.judge(rows, labels) for engine in self.engines)

    def decide(
        self,
        rows: pa.Table,
        labels: pa.Table | None,
        refuses: Refuses | None = None,
        in_step: InStep = untimed,
    ) -> Decided:
        """Judge rows, flag those that become alerts, and have them triaged; all state stays as it is.

        Args:
            rows: in `sequence` order, with the columns of `columns`.
            labels: what they are the first to know.
            refuses: says of what is flagged whether it is left out, None to leave out nothing.
            in_step: runs each step; by default nobody times it.
        """
        with in_step(BatchStep.SCORE):
            judged = self.judge(rows, labels)
        with in_step(BatchStep.TRIAGE):
            flagged, refused = without_refused(self._flagged(rows, judged), refuses)
            chosen = zip(self.deciders, flagged, strict=True)
            results = tuple(decider.triage.decide(each.rows) for decider, each in chosen)
        return Decided(self.deciders, judged, flagged, results, refused)

    def commit(self, judged: Sequence[Judged]) -> None:
        """Make the state after a batch the current one; see Engine.commit."""
        for engine, each in zip(self.engines, judged, strict=True):
            engine.commit(each)

    def close(self) -> None:
        """Wait for checkpoints that are being written."""
        for engine in self.engines:
            engine.close()

    def _flagged(self, rows: pa.Table, judged: Sequence[Judged]) -> list[Flagged]:
        """Return what each decider alerts of the entities that are its own."""
        pairs = zip(self.deciders, judged, strict=True)
        flagged = [flag(decider, rows, each) for decider, each in pairs]
        if self.canary is None:
            return flagged
        primary, percent = self.engine.decider.contract.primary_entity, self.canary.percent
        shares = [[in_share(row.entities[primary], percent) for row in each.rows] for each in flagged]
        active, canary = flagged
        return [active.only([not inside for inside in shares[0]]), canary.only(shares[1])]


def in_share(identifier: object, percent: float) -> bool:
    """Whether a canary of so many percent decides for an entity; nobody's transactions are never its own.

    It depends on the id alone, so it is the same in every batch, process and version; a larger share holds
    every smaller one.
    """
    if identifier is None:
        return False
    digest = blake2b(str(identifier).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * 100 < percent * _HASHES
