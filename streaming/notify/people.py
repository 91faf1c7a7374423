"""Slack, e-mail and PagerDuty, by way of Apprise: a few lines for people.

Apprise says of an attempt whether it was taken, of mails by whom, and nothing else. Its requests follow no
redirect, and where the host's name leads is checked just before. An attempt that outlasts its time is left
behind, and none begins beside it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from apprise import AppriseAsset, NotifyBase, NotifyFormat, NotifyType
from apprise.exception import AppriseException
from apprise.plugins.email import NotifyEmail
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP, NotifyPagerDuty
from apprise.plugins.slack import NotifySlack

from schemas.errors import ConfigurationError, MachineError
from schemas.routes import EmailTarget, PagerDutyTarget
from streaming.kafka.bounded import within
from streaming.notify.notices import Notice
from streaming.notify.outcomes import DELIVERED, DeliveryOutcome, leads_astray

MESSAGE_HEADER = "X-Flagstream-Message"
_HTTPS_PORT = 443
_DIGEST_DIGITS = 16
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_MODES = {"starttls": "starttls", "tls": "ssl", "none": "insecure"}
_KINDS = {
    "low": NotifyType.INFO,
    "medium": NotifyType.WARNING,
    "high": NotifyType.WARNING,
    "critical": NotifyType.FAILURE,
}
_PAGES = {"low": "info", "medium": "warning", "high": "error", "critical": "critical"}
_ASSET = AppriseAsset(app_id="flagstream", app_desc="flagstream", http_redirects=False)


class Recipients:
    """Who of several has one notice, by digests of their addresses; an attempt left behind still adds to it.

    Args:
        message_id: of the notice.
        had: who has it already.
    """

    def __init__(self, message_id: str = "", had: Iterable[str] = ()) -> None:
        self.message_id, self.busy, self._had = message_id, threading.Lock(), set(had)

    @property
    def had(self) -> tuple[str, ...]:
        """Who has it, in a fixed order."""
        return tuple(sorted(self._had.copy()))

    def note(self, address: str) -> None:
        """Somebody has it."""
        self._had.add(_digest_of(address))

    def __contains__(self, address: str) -> bool:
        """Say whether somebody has it."""
        return _digest_of(address) in self._had


class _Mail(NotifyEmail):
    """A mail to each of several; Apprise asks who has it already, and says who has taken it."""

    recipients: Recipients

    def is_delivered(self, key: Any, per_message: bool = False) -> bool:  # noqa: ARG002 -- Apprise's signature
        return isinstance(key, str) and key in self.recipients

    def mark_delivered(self, key: Any, per_message: bool = False) -> None:  # noqa: ARG002 -- Apprise's signature
        if isinstance(key, str):
            self.recipients.note(key)


@dataclass
class People:
    """People behind a service that Apprise knows; see streaming.notify.outcomes.Receiver.

    Attributes:
        made: makes the service for one notice, and for those who lack it: what was sent before does not slow
            it.
        host: that is connected to.
        port: of it.
        private_hosts: hosts that may lie in a private network.
        seconds: that an attempt may take.
        ids: whether ids of entities may stand in the text.
    """

    made: Callable[[Notice, Recipients], NotifyBase] = field(repr=False)
    host: str
    port: int
    private_hosts: Collection[str]
    seconds: float
    ids: bool
    _recipients: Recipients = field(default_factory=Recipients, init=False, repr=False)

    def deliver(self, notice: Notice) -> DeliveryOutcome:
        """See Receiver."""
        if self._recipients.message_id != notice.message_id:
            self._recipients = Recipients(notice.message_id, notice.had)
        outcome = self._within_time(notice, self._recipients)
        return outcome if outcome == DELIVERED else replace(outcome, had=self._recipients.had)

    def close(self) -> None:
        """See Receiver; each attempt has a connection of its own."""

    def _within_time(self, notice: Notice, recipients: Recipients) -> DeliveryOutcome:
        try:
            return within(self.seconds, lambda: self._alone(notice, recipients), "Apprise")
        except TimeoutError:
            return DeliveryOutcome("failed", f"no answer within {self.seconds:g} s")
        except MachineError as fault:
            return DeliveryOutcome("failed", str(fault))

    def _alone(self, notice: Notice, recipients: Recipients) -> DeliveryOutcome:
        if not recipients.busy.acquire(blocking=False):
            return DeliveryOutcome("failed", "the attempt before has not ended")
        try:
            return self._attempt(notice, recipients)
        finally:
            recipients.busy.release()

    def _attempt(self, notice: Notice, recipients: Recipients) -> DeliveryOutcome:
        astray = leads_astray(self.host, self.port, self.private_hosts)
        if astray is not None:
            return DeliveryOutcome("failed", astray)
        taken = self.made(notice, recipients).notify(
            body="\n".join([*notice.lines(ids=self.ids), notice.message_id]),
            title=notice.title,
            notify_type=_KINDS[notice.severity],
            body_format=NotifyFormat.TEXT,
        )
        return DELIVERED if taken else DeliveryOutcome("failed", "the service has not taken it")


def slack(url: str, private_hosts: Collection[str], seconds: float, *, ids: bool, key: str) -> People:
    """Return the people of a Slack channel.

    Args:
        url: of an incoming webhook.
        private_hosts: see People.
        seconds: see People.
        ids: see People.
        key: of the configuration, for errors.

    Raises:
        ConfigurationError: Slack has no such address; the message does not quote it.
    """
    parsed = NotifySlack.parse_native_url(url)
    if parsed is None:
        raise ConfigurationError(
            "expected https://hooks.slack.com/services/… of an incoming webhook", key=key
        )
    settings = {**parsed, "include_image": False, "format": "text", "asset": _ASSET}
    checked(lambda: NotifySlack(**settings), key)
    host = urlsplit(NotifySlack.webhook_url).hostname or ""
    port = urlsplit(NotifySlack.webhook_url).port or _HTTPS_PORT
    return People(lambda _, __: NotifySlack(**settings), host, port, private_hosts, seconds, ids)


def email(
    target: EmailTarget, password: str | None, private_hosts: Collection[str], seconds: float, *, key: str
) -> People:
    """Return the people of a list of addresses; see `slack`."""
    port = target.port or _PORTS[target.security]

    def made(recipients: Recipients) -> _Mail:
        headers = {MESSAGE_HEADER: recipients.message_id}
        mail = _Mail(
            smtp_host=target.server, host=target.server, port=port,
            secure_mode=_MODES[target.security], secure=target.security != "none",
            user=target.user, password=password, from_addr=target.sender, targets=list(target.to),
            headers=headers, format="text", asset=_ASSET,
        )  # fmt: skip
        mail.recipients = recipients
        return mail

    checked(lambda: made(Recipients()), key)
    return People(
        lambda _, recipients: made(recipients),
        target.server, port, private_hosts, seconds, target.ids,
    )  # fmt: skip


def pagerduty(
    target: PagerDutyTarget, routing_key: str, private_hosts: Collection[str], seconds: float, *, key: str
) -> People:
    """Return the people behind a service of PagerDuty, for whom revisions are one incident; see `slack`."""

    def made(severity: str, incident: str) -> NotifyPagerDuty:
        # The interface for events knows services by their integration key, and asks for no other.
        return NotifyPagerDuty(
            apikey="unused", integrationkey=routing_key, source="flagstream", region_name=target.region,
            severity=severity, dedup=incident, include_image=False, asset=_ASSET,
        )  # fmt: skip

    checked(lambda: made("info", "checked"), key)
    parts = urlsplit(PAGERDUTY_API_LOOKUP[target.region])
    return People(
        lambda notice, _: made(_PAGES[notice.severity], notice.incident),
        parts.hostname or "", parts.port or _HTTPS_PORT, private_hosts, seconds, target.ids,
    )  # fmt: skip


def checked(make: Callable[[], object], key: str) -> None:
    """Check that Apprise takes a configuration.

    Raises:
        ConfigurationError: it does not; what it says may hold secrets.
    """
    try:
        make()
    except (AppriseException, TypeError, ValueError):
        raise ConfigurationError("cannot be used; see docs/integrations.md", key=key) from None


def _digest_of(address: str) -> str:
    return hashlib.sha256(address.lower().encode()).hexdigest()[:_DIGEST_DIGITS]
