"""What the demo shows at its end: the top alerts, what was caught of each kind, and where to go on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from schemas.counts import count_of
from schemas.spec import AgentSpec
from streaming.commands.demo_feed import DEMO_SPEC, planted_labels
from streaming.commands.demo_result import DemoResult, Planted
from streaming.output.shell import program
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json

_TOP = 10
_WIDE, _WIDER = 100, 160


def show_demo(
    alerts: pl.DataFrame, result: DemoResult, spec: AgentSpec, home: Path, *, as_json: bool
) -> None:
    """Print what came of a run.

    Args:
        alerts: see demo_result.with_kinds, highest score first.
        home: of the demo's own state.
    """
    top = alerts.head(_TOP).to_dicts()
    following, address = next_commands(home, top), report_of(home).as_uri()
    if as_json:
        shown = [cells(each) for each in top]
        ways = {"next": following, "console": console_command(home)}
        print_json({"demo": asdict(result), "top": shown, "report": address, **ways})
        return
    show_result(top, result, spec, Terminal())
    console = Terminal()
    console.print()
    labels = planted_labels(home)
    show_text(console, f"Everything is in {result.lake}, the labels of what was sent in {labels}.")
    show_text(
        console,
        "Metrics and health were served while it ran, at the address it said first. To serve them again, run "
        "the agent on:",
    )
    console.print(f"  {served_again(home)}", soft_wrap=True)
    console.print(f"The report: {address}", soft_wrap=True)
    console.print("To see it in the console:", f"  {console_command(home)}", sep="\n", soft_wrap=True)
    console.print("Next:", *(f"  {each}" for each in following), sep="\n", soft_wrap=True)


def report_of(home: Path) -> Path:
    """Return where the report of a demo lies, whose state is in `home`."""
    return home / "report.html"


def show_result(
    top: Sequence[Mapping[str, Any]], result: DemoResult, spec: AgentSpec, console: Terminal
) -> None:
    """Print alerts with as many columns as there is room for, then the figures."""
    rows = [cells(each) for each in top]
    heads = columns_for(console.width)
    show_table(
        console,
        heads,
        [[row[name] for name in heads] for row in rows],
        f"Top {count_of(len(rows), 'alert')} of {result.alerts:,}",
    )
    console.print()
    if result.kinds:
        kinds = [kind_cells(each, spec) for each in result.kinds]
        show_table(console, list(kinds[0]), [list(each.values()) for each in kinds], "Planted frauds")
        console.print()
    show_text(console, summary(result))


def columns_for(width: int) -> list[str]:
    """Return the columns of the table of alerts that a terminal of so many columns has room for."""
    heads = ["score", "severity", "classification", "amount", "why"]
    if width >= _WIDE:
        heads[3:3] = ["by"]
        heads[-1:-1] = ["planted"]
    return [*heads, "alert"] if width >= _WIDER else heads


def next_commands(home: Path, top: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return three commands to go on with, as they can be pasted into this shell."""
    command, at = program(), f"--home {shlex.quote(str(home))}"
    labels = shlex.quote(str(planted_labels(home)))
    first = f"explain {top[0]['alert_id'][:12]}" if top else "alerts"
    return [
        f"{command} {first} {at}",
        f"{command} replay {at}",
        f"{command} labels import {labels} --by simulator {at}",
    ]


def console_command(home: Path) -> str:
    """Return the command that opens the console on the demo's lake, as it can be pasted into this shell."""
    return f"{program()} serve --spec {DEMO_SPEC} --home {shlex.quote(str(home))} --listen 0 --console"


def served_again(home: Path) -> str:
    """Return the command that runs the demo's agent on, with metrics, as it can be pasted into this shell."""
    return f"{program()} run --spec {DEMO_SPEC} --home {shlex.quote(str(home))} --metrics-port 9464"


def summary(result: DemoResult) -> str:
    """Return what was sent and caught, in a sentence."""
    frauds = f"{result.caught} caught (recall {_percent(result.recall)})"
    alerts = f"{_percent(result.precision)} of them planted frauds (precision)"
    first = "no alert" if result.first_alert_s is None else f"first alert after {result.first_alert_s} s"
    return (
        f"{count_of(result.events, 'payment')}, {count_of(result.frauds, 'planted fraud')}, {frauds}; "
        f"{count_of(result.alerts, 'alert')}, {alerts}, {result.llm_alerts} classified by the model "
        f"({result.llm_due} of the {result.due} older than 30 s); {first}."
    )


def kind_cells(each: Planted, spec: AgentSpec) -> dict[str, object]:
    """Return what became of a kind of fraud, by head of column."""
    return {
        "kind": each.kind,
        "planted": each.planted,
        "caught": each.caught,
        "recall": _percent(each.caught / each.planted),
        "why the others were missed": _why_missed(each, spec),
    }


def _why_missed(each: Planted, spec: AgentSpec) -> str:
    if each.highest_missed is None or each.threshold is None:
        return "-"
    needs = "threshold" if spec.alerts_per_day is None else "the alert budget asks for"
    sign, count = next(iter(each.signs.items()))
    what = "nothing raised the score" if sign == "none" else f"{sign} raised it most"
    missed = each.planted - each.caught
    return (
        f"scores up to {each.highest_missed:.5f}, {needs} {each.threshold:.5g}; {what} in {count} of {missed}"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def cells(alert: Mapping[str, Any]) -> dict[str, str]:
    """Return an alert as it is shown, by head of column."""
    return {
        "score": f"{alert['score']:.5f}",
        "severity": alert["severity"],
        "classification": alert["classification"],
        "by": alert["classification_source"],
        "amount": f"{alert['amount']:.2f} {alert['currency']}",
        "why": "; ".join(reason["text"] for reason in alert["reasons"][:2]),
        "planted": alert["fraud_type"] or "-",
        "alert": alert["alert_id"],
    }
