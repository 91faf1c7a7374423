"""Says when what comes in is not as it should be: too much of it rejected, or two clocks that differ."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa

from schemas.counts import count_of
from schemas.durations import duration_text
from streaming.batch.decision import Decision
from streaming.batch.entity_shares import EntityShares
from streaming.batch.queries import REQUEUE
from streaming.service.health import Condition, Health

_RECORDS = 100
_FEWEST = 5
TOLERATED_SKEW = timedelta(minutes=1)


class InputWatch:
    """Watches each decided batch.

    Args:
        health: notified what begins and ends.
        kinds: columns of the entities.
    """

    def __init__(self, health: Health, kinds: Sequence[str] = ()) -> None:
        self._health, self._shares = health, EntityShares(kinds)
        self._newest: deque[Decision] = deque()

    def problems(self, decision: Decision, tolerated_share: float) -> str | None:
        """Return what is wrong with the input as of a batch, None where nothing is.

        Args:
            decision: of the batch.
            tolerated_share: of the records wanted that may be rejected; see schemas.spec.Monitoring.
        """
        found = {
            Condition.RECORDS_REJECTED: self._rejected(decision, tolerated_share),
            Condition.CLOCK_SKEW: _skew(decision),
        }
        for condition, cause in found.items():
            self._health.update(condition, cause)
        return "; ".join(cause for cause in found.values() if cause is not None) or None

    def watch_placeholders(self, rows: pa.Table, share: float) -> None:
        """Say when one entity has more than a share of the newest payments.

        Args:
            rows: the transactions of a batch.
            share: see schemas.spec.Monitoring.
        """
        self._shares.take(rows)
        found = ", ".join(self._shares.above(share))
        cause = f"one {found} has more than {share:.0%} of the newest payments" if found else None
        self._health.update(Condition.ENTITY_DOMINATES, cause)

    def _rejected(self, decision: Decision, tolerated_share: float) -> str | None:
        """Small batches are taken together, so that one bad record among three does not raise an alarm.

        Those taken out of the quarantine say nothing of what comes in.
        """
        if not decision.query_id.startswith(REQUEUE):
            self._newest.append(decision)
        while self._newest and sum(each.wanted for each in self._newest) - self._newest[0].wanted >= _RECORDS:
            self._newest.popleft()
        wanted = sum(each.wanted for each in self._newest)
        rejected = sum(each.quarantined for each in self._newest)
        if rejected < _FEWEST or rejected <= tolerated_share * wanted:
            return None
        return f"{rejected:,} of the newest {count_of(wanted, 'record')} were rejected{self._reasons()}"

    def _reasons(self) -> str:
        counts: dict[str, int] = {}
        for each in self._newest:
            for reason, count in (each.rejected or {}).items():
                counts[reason] = counts.get(reason, 0) + count
        most = sorted(counts, key=lambda reason: (-counts[reason], reason))[:3]
        return f" ({', '.join(most)})" if most else ""


def _skew(decision: Decision) -> str | None:
    ahead = decision.clock_ahead
    if ahead <= TOLERATED_SKEW:
        return None
    whose = "the broker's clock is" if decision.clock == "broker" else "most records are stamped"
    return f"{whose} {duration_text(ahead.total_seconds())} ahead of this machine's clock"
