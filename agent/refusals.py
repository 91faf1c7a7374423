"""Refusals: decisions that something may not be done, each with the rule that forbids it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """The rule that forbids something, what it says, and which step is meant, "" for the plan as a whole."""

    rule: str
    detail: str
    step: str = ""

    def __str__(self) -> str:
        """Return it as a person would say it."""
        return f"{self.step + ': ' if self.step else ''}{self.rule}: {self.detail}"


class Refused(Exception):  # noqa: N818 -- a decision that callers act on, not an error of the program
    """What was asked for may not be done."""

    def __init__(self, *refusals: Refusal) -> None:
        super().__init__("; ".join(map(str, refusals)))
        self.refusals = refusals


def refused(rule: str, detail: str, step: str = "") -> Refused:
    """Return what to raise when one rule forbids something."""
    return Refused(Refusal(rule, detail, step))
