"""What the demo caught, as one HTML page."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from schemas.spec import AgentSpec
from streaming.commands.demo_result import DemoResult
from streaming.commands.demo_view import cells, kind_cells, next_commands, summary
from streaming.commands.html_page import document, paragraph, table
from streaming.commands.html_plots import bars
from streaming.output.terminal import html_text

_MOST_LISTED = 200


def page(alerts: pl.DataFrame, result: DemoResult, spec: AgentSpec, home: Path) -> str:
    """Return the report; whatever comes from payments and models is escaped.

    Args:
        alerts: see demo_result.with_kinds, highest score first.
        home: of the demo's own state.
    """
    kinds = [kind_cells(each, spec) for each in result.kinds]
    rows = [cells(each) for each in alerts.head(_MOST_LISTED).to_dicts()]
    parts = [
        f"<h1>Demo of {html_text(spec.name)}</h1>",
        paragraph(summary(result)),
        "<h2>Planted frauds</h2>" if kinds else "",
        bars([each.kind for each in result.kinds], _caught(result), "payments"),
        _table(kinds),
        f"<h2>Alerts{f', the first {_MOST_LISTED}' if alerts.height > _MOST_LISTED else ''}</h2>",
        _table(rows),
        "<h2>How the alerts were classified</h2>",
        _classified(alerts),
        paragraph(f"Everything is in {result.lake}. Next:"),
        *(f"<pre>{html_text(each)}</pre>" for each in next_commands(home, alerts.head(1).to_dicts())),
    ]
    return document(f"demo of {spec.name}", parts)


def _caught(result: DemoResult) -> dict[str, list[int]]:
    return {
        "planted": [each.planted for each in result.kinds],
        "caught": [each.caught for each in result.kinds],
    }


def _classified(alerts: pl.DataFrame) -> str:
    by = ["classification", "classification_source", "severity"]
    counts = alerts.group_by(by).len("alerts").sort("alerts", *by, descending=[True, False, False, False])
    return table(counts.columns, counts.iter_rows())


def _table(rows: list[dict[str, object]] | list[dict[str, str]]) -> str:
    return table(list(rows[0]), [list(each.values()) for each in rows]) if rows else ""
