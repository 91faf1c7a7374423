"""Which absences were told before: a version that comes to own an entity does not tell them again.

Two versions in force at once may wait for the same event with another lateness, so that one tells an absence
while the other still has the event open. Who owns an entity changes only with what decides: from one such
change to the next each event is told once, by its owner. So what could be told twice was told before the
last change and is still open; nothing else has to be remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow.compute as pc

from schemas.alert import ALERT_KIND
from streaming.batch.engine import Engine
from streaming.batch.flagging import Flagged
from streaming.delta.stored import StoredTable
from streaming.profiles.frame import numbers


def told_before(alerts: StoredTable, engines: Sequence[Engine]) -> frozenset[str]:
    """Return the ids of alerts on record of absences whose first event an engine still has open."""
    waiting = np.concatenate([engine.patterns.open_sequences() for engine in engines])
    if not len(waiting):
        return frozenset()
    rows = alerts.read("sequence", int(waiting.min()), int(waiting.max()) + 1, ["alert_id", "kind"])
    rows = rows.filter(pc.not_equal(rows["kind"], ALERT_KIND))
    still = np.isin(numbers(rows["sequence"], rows["sequence"].type), waiting)
    return frozenset(rows["alert_id"].filter(still).to_pylist())


def without_told(flagged: Sequence[Flagged], told: Collection[str]) -> tuple[list[Flagged], tuple[str, ...]]:
    """Part what is to be told from what was; return the rest and the ids left out, in their order."""
    refused = tuple(row.alert_id for each in flagged for row in each.rows if row.alert_id in told)
    if not refused:
        return list(flagged), ()
    return [each.only([row.alert_id not in told for row in each.rows]) for each in flagged], refused
