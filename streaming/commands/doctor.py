"""`flagstream doctor`: what this machine lacks, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict

from schemas.spec import AgentSpec
from streaming.commands.doctor_checks import check_machine
from streaming.home.settings import Settings
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json


def show_machine(settings: Settings, spec: AgentSpec | None, *, as_json: bool) -> bool:
    """Print what each check found; return whether all will do."""
    found = check_machine(settings if spec is None else settings.under(spec), spec)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        rows = ((each.name, "ok" if each.ok else "FAIL", each.found, each.advice) for each in found)
        show_table(Terminal(), ("check", "", "found", "what to do"), rows)
    return all(each.ok for each in found)
