"""Counts actions and what was read, by the audit log: commands live too short to be scraped themselves."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streaming.delta.stored import StoredTable
from streaming.observe.metrics import ActionMetrics

_BEGUN = "started"
_DONE = "done"
_MOST_RUNS = 1_000


class AuditFacts:
    """Counts what has been recorded since it was first called; what is older was counted by earlier runs.

    Args:
        actions: where it is counted.
    """

    def __init__(self, actions: ActionMetrics) -> None:
        self._actions = actions
        self._next: int | None = None
        self._begun: OrderedDict[str, datetime] = OrderedDict()

    def read(self, table: StoredTable) -> None:
        """Take in what is new in the audit log."""
        after = table.next_number("number")
        first, self._next = self._next, after
        if first is None or first >= after:
            return
        for row in table.read("number", first, after, ["at", "kind", "subject", "detail"]).to_pylist():
            self._take_in(row["kind"], row["subject"], row["at"], json.loads(row["detail"]))

    def _take_in(self, kind: str, subject: str, at: datetime, detail: Mapping[str, Any]) -> None:
        run = detail.get("run_id")
        if run is not None:
            self._begun.setdefault(run, at)
            if len(self._begun) > _MOST_RUNS:
                self._begun.popitem(last=False)
        if kind == "data_access":
            for table in detail.get("tables") or (subject,):
                self._actions.accesses.add(1, table)
        elif kind == "action" and detail.get("outcome") != _BEGUN:
            self._actions.actions.add(1, detail.get("action") or subject, detail.get("outcome") or _DONE)
            if run is not None:
                self._actions.seconds.observe([(at - self._begun[run]).total_seconds()])
