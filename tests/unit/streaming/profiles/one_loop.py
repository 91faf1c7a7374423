"""Profiles of one kind in one plain loop over all rows: what both steps of a batch must agree with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SECONDS = 1e-6


@dataclass
class Entity:
    """Clocks in microseconds, and count, amount, log-amount and its square per horizon."""

    last: int
    first: int
    moments: list[list[float]]
    total: int = 0


@dataclass
class Shown:
    """What a row shows of its entity, before it counts itself."""

    counts: list[float]
    amounts: list[float]
    sum: float = 0.0
    square: float = 0.0
    exposure: float = math.nan
    gap: float = math.nan
    late: bool = False


@dataclass
class OneLoop:
    """All profiles of a kind.

    `standin` is the logarithm of an amount of 0 without history, None for the kind's own mean.
    """

    horizons: tuple[float, ...]
    block_rows: int
    decay: float
    forgotten: list[int]
    standin: float | None
    most_residual: float = math.inf
    most_gap: float = math.inf
    entities: dict[str, Entity] = field(default_factory=dict)
    population: list[float] = field(default_factory=lambda: [0.0] * 8)
    pending: list[float] = field(default_factory=lambda: [0.0] * 8)

    def row(self, sequence: int, name: str | None, time: int, amount: float) -> Shown:
        """Move past one row and return what it met."""
        if sequence % self.block_rows == 0:
            pairs = zip(self.population, self.pending, strict=True)
            self.population = [settled * self.decay + new for settled, new in pairs]
            self.pending = [0.0] * 8
        shown = Shown([0.0] * len(self.horizons), [0.0] * len(self.horizons))
        if name is None:
            return shown
        entity, elapsed = self._met(name, time, self.forgotten[sequence // self.block_rows], shown)
        self._teach(entity, shown, elapsed, amount)
        return shown

    def _met(self, name: str, time: int, oldest: int, shown: Shown) -> tuple[Entity, float]:
        entity = self.entities.get(name)
        if entity is None or entity.last <= oldest:
            entity = Entity(time, time, [[0.0] * 4 for _ in self.horizons])
            self.entities[name] = entity
            shown.exposure = -1.0
            self.pending[5] += 1.0
            entity.total = 1
            return entity, 0.0
        elapsed = shown.gap = (float(time) - float(entity.last)) * SECONDS
        shown.late = time < entity.last
        if not shown.late:
            self.pending[3] += 1.0
            self.pending[4] += min(elapsed, self.most_gap)
            entity.last = time
        shown.exposure = (float(entity.last) - float(entity.first)) * SECONDS
        entity.first = min(entity.first, time)
        entity.total += 1
        return entity, elapsed

    def _teach(self, entity: Entity, shown: Shown, elapsed: float, amount: float) -> None:
        kept = 1.0 if shown.late else math.exp(-abs(elapsed) / self.horizons[-1])
        history, paid, total = (each * kept for each in entity.moments[-1][:3])
        log = math.log(amount) if amount > 0.0 else None
        learned = 0.0 if log is None else min(amount, 1e300)
        if log is None:
            log = total / history if history > 1e-3 else self._own_standin()
        self._teach_kind(log, history, total)
        if history > 4.0 and learned > 3.0 * (paid / history) > 0.0:
            learned = 3.0 * (paid / history)
            log = min(log, total / history + math.log(3.0))
        for place, (horizon, held) in enumerate(zip(self.horizons, entity.moments, strict=True)):
            fading = math.exp(-abs(elapsed) / horizon)
            kept, weight = (1.0, fading) if shown.late else (fading, 1.0)
            count, paid, total, square = (each * kept for each in held)
            shown.counts[place], shown.amounts[place] = count, paid
            shown.sum, shown.square = total, square
            entity.moments[place] = [
                count + weight,
                paid + weight * learned,
                total + weight * log,
                square + weight * log * log,
            ]

    def _own_standin(self) -> float:
        own = self.population[1] / max(self.population[0], 1.0)
        return own if self.standin is None else self.standin

    def _teach_kind(self, log: float, history: float, total: float) -> None:
        self.pending[0] += 1.0
        self.pending[1] += log
        self.pending[2] += log * log
        if history > 1e-3:
            residual = log - total / history
            self.pending[6] += 1.0
            self.pending[7] += min(residual * residual * history / (history + 1.0), self.most_residual)
