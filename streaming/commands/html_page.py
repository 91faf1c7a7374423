"""Reports that are one HTML page, which refers to nothing outside itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streaming.output.terminal import html_text

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;"
    "text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
)


def document(title: str, parts: Iterable[str], style: str = _STYLE) -> str:
    """Return a page of parts that are HTML already."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html_text(title)}</title>'
        f"<style>{style}</style></head><body>{''.join(parts)}</body></html>"
    )


def paragraph(text: str) -> str:
    """Return a paragraph of text, which is escaped."""
    return f"<p>{html_text(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a value that is None is a dash."""
    top = "".join(f"<th>{html_text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell(value: object) -> str:
    return f"<td>{'-' if value is None else html_text(str(value))}</td>"
