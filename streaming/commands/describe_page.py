"""An agent's description as one page of HTML that refers to nothing outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streaming.commands.html_page import document
from streaming.output.terminal import html_text

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0;width:100%}td{border:1px solid #ccc;padding:.25rem .6rem;"
    "vertical-align:top}td:first-child{width:16rem}@media print{body{margin:0}}"
)


def page(title: str, sections: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Return the page; all texts are escaped."""
    tables = [f"<h2>{html_text(name)}</h2>{_table(rows)}" for name, rows in sections.items()]
    return document(title, [f"<h1>{html_text(title)}</h1>", *tables], _STYLE)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{html_text(name)}</td><td>{html_text(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"
