"""Which absences were alerted before: a version that comes to own an entity does not alert them again.

Two versions in force at once may wait for the same event with another lateness, so that one alerts an absence
while the other still has the event open. Who owns an entity changes only with what decides: from one such
change to the next each event is alerted once, by its owner. So what could be alerted twice was alerted before
the last change and is still open; nothing else has to be remembered.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc

from schemas.alert import ALERT_KIND
from streaming.arrays.columns import numbers
from streaming.batch.memory import Memory
from streaming.delta.stored import StoredTable


def already_alerted(alerts: StoredTable, memories: Iterable[Memory]) -> frozenset[str]:
    """Return the ids of alerts on record of absences whose first event a memory still has open."""
    waiting = np.concatenate([memory.patterns.open_sequences() for memory in memories])
    if not len(waiting):
        return frozenset()
    rows = alerts.read("sequence", int(waiting.min()), int(waiting.max()) + 1, ["alert_id", "kind"])
    rows = rows.filter(pc.not_equal(rows["kind"], ALERT_KIND))
    still = np.isin(numbers(rows["sequence"], rows["sequence"].type), waiting)
    return frozenset(rows["alert_id"].filter(still).to_pylist())
