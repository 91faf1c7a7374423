"""Facts for people and for programs: one per line, or one JSON object."""

from __future__ import annotations

from collections.abc import Mapping

from streaming.output.terminal import Terminal, print_json


def show_facts(facts: Mapping[str, object], *, as_json: bool) -> None:
    """Print facts as JSON, or one per line."""
    if as_json:
        print_json(facts)
        return
    console, width = Terminal(), max(len(name) for name in facts)
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", soft_wrap=True)
