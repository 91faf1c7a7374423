"""Refusals: decisions that something may not be done, each with the rule that forbids it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.documents import parse_json
from schemas.errors import ConfigurationError
from schemas.loading import Model, parse_document


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


def parsed_answer(text: str, model: type[Model], rule: str) -> Model:
    """Read what a model wrote as a document.

    Raises:
        Refused: by `rule`; it is not JSON, or no such document.
    """
    try:
        content = parse_json(text, where="")
    except ConfigurationError:
        raise refused(rule, "not JSON") from None
    try:
        return parse_document(content, model, where="")
    except ConfigurationError as fault:
        raise refused(rule, str(fault)) from None
