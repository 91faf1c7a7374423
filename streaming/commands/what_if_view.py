"""A what-if report on the terminal, and the lines it shares with the HTML page."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.counts import count_of
from streaming.history.candidate_answers import Answering
from streaming.history.what_if_found import Changes, Flips, WhatIf
from streaming.history.what_if_report import cold_text
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal

SIDES = (
    "alerts",
    "alerts_per_day",
    "budget",
    "days_over_budget",
    "judged",
    "frauds",
    "precision",
    "recall",
    "cp100",
    "answered",
)
_NAMES = {
    "budget": "alerts per day asked for",
    "days_over_budget": "days with more than that",
    "cp100": "card precision@100",
    "answered": "answered by a model",
}
CHANGES = ("added", "removed", "re-classified", "severity changed")


def sides(found: WhatIf) -> Iterator[tuple[str, object, object]]:
    """Return each figure's name with that of the published and that of the candidate's alerts."""
    for name in SIDES:
        shown = _NAMES.get(name, name.replace("_", " "))
        yield shown, getattr(found.published, name), getattr(found.replayed, name)
    for name in dict.fromkeys([*found.published.by_reason, *found.replayed.by_reason]):
        yield f"by {name}", found.published.by_reason.get(name, 0), found.replayed.by_reason.get(name, 0)


def changed(changes: Changes) -> tuple[int, int, int, int]:
    """Return the counts in the order of `CHANGES`."""
    return changes.added, changes.removed, changes.reclassified, changes.regraded


def matrix(flips: Flips) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Return a matrix's columns and its rows, each with its name."""
    columns = sorted({new for row in flips.values() for new in row})
    return columns, [(old, [row.get(new, 0) for new in columns]) for old, row in flips.items()]


def summary(found: WhatIf) -> str:
    """Say how many alerts changed."""
    changes = found.changes
    return (
        f"{count_of(found.added, 'alert')} added, {found.removed} removed, {found.kept} kept; of these "
        f"{changes.reclassified} re-classified, {changes.regraded} with another severity"
    )


def answering_lines(found: WhatIf) -> list[str]:
    """Say where the classifications of the candidate's alerts come from, and what new ones took."""
    asked = found.answering
    if asked.model is None:
        alerts = count_of(found.unanswered, "alert")
        return [f"the candidate asks no model: {alerts} with the classification by rules"]
    why = ", ".join(f"{count} {reason}" for reason, count in asked.by_rules.items())
    return [
        f"classifications of {asked.model} to prompt {asked.prompt}: "
        f"{count_of(asked.same_question, 'alert')} by answers on record "
        f"to the very question, {asked.same_alert} by answers on record to the same alert, {asked.asked_now} "
        f"by new answers; {found.unanswered} with the classification by rules" + (f" ({why})" if why else ""),
        *_passed_over(asked),
        _asked(asked),
        *_left(asked),
    ]


def show_what_if(found: WhatIf, console: Terminal) -> None:
    """Print what a candidate would have changed."""
    show_text(
        console,
        f"{found.candidate} on {found.span}: {count_of(found.transactions, 'transaction')} over "
        f"{found.days:.2f} days, {count_of(found.known_frauds, 'known fraud')}",
    )
    if found.cold_from is not None:
        show_text(console, cold_text(found.cold_from))
    console.print()
    show_table(console, ("", "published", "candidate"), sides(found))
    show_text(console, summary(found))
    for name, flips in found.flips.items():
        columns, rows = matrix(flips)
        head = (f"{name.replace('_', ' ')}: published ↓ candidate →", *columns)
        console.print()
        show_table(console, head, ((old, *counts) for old, counts in rows))
    for name, of in (("entity", found.entities), ("reason", found.reasons)):
        console.print()
        show_table(console, (name, *CHANGES), ((each, *changed(changes)) for each, changes in of.items()))
    days = ((day, *counts) for day, counts in found.per_day.items())
    console.print()
    show_table(console, ("alerts of the day", "published", "candidate"), days)
    console.print()
    for line in answering_lines(found):
        show_text(console, line)
    show_text(console, f"the candidate's alerts are in {found.sandbox}")


def _passed_over(asked: Answering) -> list[str]:
    if not asked.passed_over:
        return []
    return [
        f"{count_of(asked.passed_over, 'alert')} answered by another model or prompt before, which does not "
        "count as the candidate's answer"
    ]


def _asked(asked: Answering) -> str:
    if asked.asks == "recorded":
        return "no model was asked"
    caps = [f"{asked.most_usd} USD"] * (asked.most_usd is not None)
    caps += [f"{asked.most_tokens} tokens"] * (asked.most_tokens is not None)
    tokens = f"{asked.input_tokens} + {asked.output_tokens} tokens"
    spent = f"{tokens}, {_money(asked, asked.usd)}"
    return f"asked now: {count_of(asked.calls, 'call')}, {spent}, of at most {' and '.join(caps)}"


def _left(asked: Answering) -> list[str]:
    left = asked.left
    if not left.groups:
        return []
    return [
        f"asking about the rest would take at most {count_of(left.calls, 'call')} about "
        f"{count_of(left.groups, 'group')}, "
        f"{left.input_tokens} + {left.output_tokens} tokens, {_money(asked, left.usd)}"
    ]


def _money(asked: Answering, usd: float) -> str:
    return f"{usd:.4f} USD" if asked.priced else "no price known"
