"""An alert as receivers get it: a body for programs, and a few lines for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.triage.untrusted_text import cleaned
from schemas.routes import When
from schemas.rules import SEVERITIES
from streaming.consume.received import Received

RAISED, REVISED = "alert.raised", "alert.revised"
_SHOWN_CHARACTERS = 120
_SHOWN_REASONS = 3
_ID = re.compile(r"[0-9a-f]{32}")
_WEB = re.compile(r"www\.", re.IGNORECASE)
_TEXTS = (
    "agent", "classification", "classification_source", "currency", "event_time", "severity", "created_at",
)  # fmt: skip


@dataclass(frozen=True)
class Notice:
    """One revision of an alert on its way out, or, as a CaseNotice, one change of a case.

    Attributes:
        alert: its document; that of the change, where it is one of a case.
        document: the same, byte for byte.
        had: which of several recipients have it already, as the receiver has named them.
    """

    alert: Mapping[str, Any]
    document: bytes
    had: tuple[str, ...] = ()

    @classmethod
    def of(cls, received: Received) -> Notice:
        """Return the notice of an alert that was read from the topic, and is whole."""
        return cls(received.alert, received.document)

    @property
    def message_id(self) -> str:
        """The idempotency key: the same for each attempt, by whichever process; another for each revision."""
        return f"msg_{self.alert['alert_id']}_{self.alert['revision']}"

    @property
    def severity(self) -> str:
        """That of the alert, or of the case."""
        return str(self.alert["severity"])

    @property
    def incident(self) -> str:
        """What all notices about the same have in common."""
        return str(self.alert["alert_id"])

    @property
    def made_at(self) -> datetime:
        """When it came to be, with a time zone."""
        return datetime.fromisoformat(self.alert["created_at"])

    def is_wanted(self, when: When) -> bool:
        """Say whether a route takes it."""
        return not when.case and is_wanted(when, self.alert)

    @property
    def kind(self) -> str:
        """Whether the alert is new, or replaces an earlier revision."""
        return RAISED if self.alert["revision"] == 1 else REVISED

    @property
    def body(self) -> bytes:
        """What a webhook receives: the same bytes at each attempt."""
        head = f'{{"type":"{self.kind}","timestamp":"{_moment(self.alert)}","data":'.encode()
        return head + self.document + b"}"

    @property
    def title(self) -> str:
        """One line without a word of outsiders."""
        revised = "" if self.kind == RAISED else f", revision {self.alert['revision']}"
        return f"{self.alert['severity']}: {self.alert['classification']} ({self.alert['agent']}{revised})"

    def lines(self, *, ids: bool) -> list[str]:
        """Return what people read; texts of outsiders are cut, of one line each, and lead nowhere.

        Args:
            ids: whether ids of entities may stand in it.
        """
        alert = self.alert
        entities = [f"{kind} {plain(value)}" for kind, value in alert["entities"].items()] if ids else []
        why = [plain(each["text"]) for each in alert["reasons"][:_SHOWN_REASONS]]
        return [
            f"alert {alert['alert_id']}, by {alert['classification_source']}, score {alert['score']:.4f}",
            f"{alert['amount']:.2f} {plain(alert['currency'])} at {alert['event_time']}",
            *([", ".join(entities)] if entities else []),
            *([f"rules: {', '.join(map(plain, alert['rules']))}"] if alert["rules"] else []),
            *([f"why: {'; '.join(why)}"] if why else []),
        ]


def is_whole(alert: Mapping[str, Any]) -> bool:
    """Say whether an alert has all that routes and notices ask it for, whatever else it holds."""
    reasons, rules, entities = alert.get("reasons"), alert.get("rules"), alert.get("entities")
    return (
        _ID.fullmatch(alert["alert_id"]) is not None
        and alert["revision"] >= 1
        and alert.get("severity") in SEVERITIES
        and all(isinstance(alert.get(name), str) for name in _TEXTS)
        and all(isinstance(alert.get(name), int | float) for name in ("score", "amount"))
        and isinstance(entities, dict)
        and isinstance(rules, list)
        and isinstance(reasons, list)
        and all(isinstance(each, dict) and "text" in each for each in reasons)
        and _is_moment(alert["created_at"])
    )


def is_wanted(when: When, alert: Mapping[str, Any]) -> bool:
    """Say whether a route takes an alert."""
    return (
        (not when.severity or alert["severity"] in when.severity)
        and (not when.classification or alert["classification"] in when.classification)
        and (when.revisions == "all" or alert["revision"] == 1)
    )


def plain(text: str) -> str:
    """Return an outsider's text for people: one short line, nothing invisible, no address to click on."""
    shown = cleaned(str(text), _SHOWN_CHARACTERS)
    return _WEB.sub("www[.]", shown.replace("://", "[:]//").replace("@", "(at)"))


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _moment(alert: Mapping[str, Any]) -> str:
    return str(alert["created_at"])
