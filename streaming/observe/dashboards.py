"""The dashboards of docker/grafana, from what they show: title, unit and queries of each panel.

Queries name metrics by the declarations in `streaming.observe.metrics`, so that none can be renamed and leave
an empty panel behind: a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from streaming.observe.decision_panels import ALERTS, MODEL
from streaming.observe.desk_panels import API, DELIVERIES
from streaming.observe.executor_panels import EXECUTORS
from streaming.observe.operation_panels import STATE, STREAM
from streaming.observe.panels import Panel

_WIDTH, _COLUMNS, _HEIGHT = 24, 3, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Dashboard:
    """A page of panels, in rows."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them."""
        return tuple(panel for _, panels in self.rows for panel in panels)


_OPERATION = (
    ("Stream", STREAM),
    ("State", STATE),
    ("Spark cluster", EXECUTORS),
    ("API", API),
    ("Deliveries", DELIVERIES),
)
DASHBOARDS: tuple[Dashboard, ...] = (
    Dashboard("flagstream-operation", "flagstream: operation", _OPERATION),
    Dashboard("flagstream-decisions", "flagstream: decisions", (("Alerts", ALERTS), ("Model", MODEL))),
)


def dashboard_named(uid: str) -> str:
    """Return a dashboard as Grafana imports it.

    Raises:
        StopIteration: there is none of this name.
    """
    found = next(each for each in DASHBOARDS if each.uid == uid)
    return json.dumps(_page(found), indent=2) + "\n"


def _page(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["flagstream"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_data_source(), _agents()]},
        "panels": list(_placed(dashboard.rows)),
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _agents() -> dict[str, Any]:
    query = "label_values(flagstream_ready, agent)"
    return {
        "name": "agent", "label": "Agent", "type": "query", "datasource": _SOURCE, "query": query,
        "definition": query, "refresh": 2, "multi": True, "includeAll": True, "allValue": ".+",
    }  # fmt: skip


def _placed(rows: Sequence[tuple[str, Sequence[Panel]]]) -> Iterator[dict[str, Any]]:
    """Yield rows and panels, each with its place on the page."""
    top, number = 0, 1
    for title, panels in rows:
        place = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}
        top, number = top + 1, number + 1
        for position, panel in enumerate(panels):
            line, column = divmod(position, _COLUMNS)
            width = _WIDTH // _COLUMNS
            place = {"x": column * width, "y": top + line * _HEIGHT, "w": width, "h": _HEIGHT}
            yield {**_of(panel), "id": number, "gridPos": place}
            number += 1
        top += -(-len(panels) // _COLUMNS) * _HEIGHT


def _of(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
        for place, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "title": panel.title,
        "type": panel.kind,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
