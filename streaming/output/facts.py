"""Facts for people and for programs: one per line, or one JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from streaming.output.tables import show_block, show_table
from streaming.output.terminal import Terminal, print_json


def show_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print facts as JSON, or one per line, those of a list of records as a table each."""
    if as_json:
        print_json(facts)
        return
    console = Terminal()
    show_block(console, dict(_lines(facts)))
    for name, value in facts.items():
        if _is_records(value):
            heads = list(dict.fromkeys(key for record in value for key in record))
            show_table(console, heads, [[record.get(key) for key in heads] for record in value], name)


def _lines(facts: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, object]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{within}{name}.")
        elif not _is_records(value):
            yield within + name, round(value, 6) if isinstance(value, float) else value  # whole in JSON


def _is_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
