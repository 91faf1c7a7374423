"""Orders: what somebody asks to be done to cases, by name, as the command line and the server have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from schemas.cases import CaseSettings, CloseReason
from streaming.cases.actions import (
    Actor,
    CaseAction,
    assign,
    attach,
    claim,
    close,
    comment,
    escalate,
    merge,
    release,
    reopen,
)

OrderName = Literal["claim", "release", "assign", "comment", "attach", "escalate", "close", "reopen", "merge"]


@dataclass(frozen=True)
class Order:
    """What is to be done.

    Attributes:
        what: its name.
        text: a comment, or why.
        assignee: whom `assign` gives cases to, None for nobody.
        reason: for which `close` closes them.
        kind: of fraud, for the labels that `close` writes.
        into: the case that `merge` makes them part of.
        name: of the file that `attach` keeps.
        content: of that file.
    """

    what: OrderName
    text: str = ""
    assignee: str | None = None
    reason: CloseReason = "other"
    kind: str | None = None
    into: str = ""
    name: str = ""
    content: bytes = b""

    def within(self, into: str | None) -> Order:
        """Return the order with the whole id of the case to merge into, where it is about one."""
        return self if into is None else replace(self, into=into)

    def action(self, by: Actor, settings: CaseSettings) -> CaseAction:
        """Return what that comes to.

        Raises:
            ConfigurationError: what it needs cannot be used.
        """
        return _ACTIONS[self.what](self, by, settings)


_ACTIONS: Mapping[OrderName, Callable[[Order, Actor, CaseSettings], CaseAction]] = {
    "claim": lambda _, by, settings: claim(by, settings.lease),
    "release": lambda _, by, __: release(by),
    "assign": lambda order, _, __: assign(order.assignee, order.text),
    "comment": lambda order, _, __: comment(order.text),
    "attach": lambda order, _, __: attach(order.name, order.content),
    "escalate": lambda order, _, __: escalate(order.text),
    "close": lambda order, by, settings: close(
        by, order.reason, order.text, order.kind, two=order.reason in settings.second_person
    ),
    "reopen": lambda order, _, __: reopen(order.text),
    "merge": lambda order, by, _: merge(by, order.into),
}
