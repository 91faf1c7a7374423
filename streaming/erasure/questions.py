"""What models were asked and have said: which of it is about somebody, and rows without it.

An answer stands under the key of its question, a hash, and is found by it as before: its classification and
its severity stay, and so does what follows from them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.erasure.columns import Marks, marked, may_hold
from streaming.erasure.renaming import Renaming

QUESTION, KEY = "canonical_input", "key"
TEXTS = (QUESTION, "rationale", "evidence")
_WRITTEN = "%Y-%m-%dT%H:%M:%SZ"
_DIGITS = 1e-4


class AskedAbout:
    """Knows which questions are about somebody's alerts, also where a policy keeps the ids here.

    Args:
        renaming: knows what mentions somebody.
        alerts: those of somebody, with event_time, amount and score, part by part.
    """

    def __init__(self, renaming: Renaming, alerts: Iterable[pa.Table]) -> None:
        self._renaming = renaming
        self._alerts: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in (row for part in alerts for row in part.to_pylist()):
            at = row["event_time"].astimezone(UTC).strftime(_WRITTEN)
            self._alerts[at].append((row["amount"], row["score"]))

    def keys(self, rows: pa.Table) -> Collection[str]:
        """Return the keys under which something of somebody stands in rows of a ledger."""
        own: Marks = np.zeros(rows.num_rows, np.bool_)
        for name in TEXTS:
            if may_hold(rows[name], self._renaming.needles):
                texts = (json.dumps(each, ensure_ascii=False) for each in rows[name].to_pylist())
                own |= np.array([self._renaming.is_mentioned(each) for each in texts], np.bool_)
        if self._alerts:
            own |= marked(rows[QUESTION], self._is_about)
        found: list[str] = pc.unique(rows[KEY].filter(pa.array(own))).to_pylist()
        return found

    def _is_about(self, question: str) -> bool:
        if not question:
            return False
        return any(self._is_of_somebody(each) for each in json.loads(question).get("examples", ()))

    def _is_of_somebody(self, example: Mapping[str, Any]) -> bool:
        """Whether an example may be one of the alerts, by all that a policy has let out of it."""
        if not {"event_time", "amount", "score"} & example.keys():
            return bool(example.get("texts"))
        at = example.get("event_time")
        alerts = self._alerts.get(at, ()) if at is not None else _all(self._alerts.values())
        return any(
            _near(example.get("amount"), amount) and _near(example.get("score"), score)
            for amount, score in alerts
        )


def about(rows: pa.Table, keys: Collection[str]) -> Marks:
    """Return which rows of a ledger still say something under some keys, bool[n]."""
    own = pc.is_in(rows[KEY], value_set=pa.array(sorted(keys), pa.string())).to_numpy()
    said = (any(row.values()) for row in rows.select(TEXTS).to_pylist())
    return np.array([mine and says for mine, says in zip(own, said, strict=True)], np.bool_)


def _all(groups: Iterable[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    return [each for group in groups for each in group]


def _near(shown: float | None, value: float) -> bool:
    """A question gives a few digits; what it does not give may be anything."""
    return shown is None or abs(shown - value) <= max(_DIGITS * abs(value), _DIGITS)
