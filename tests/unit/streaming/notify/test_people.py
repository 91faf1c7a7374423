"""Slack, PagerDuty and mail servers as they are reached; no text of outsiders does anything there."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP
from apprise.plugins.slack import NotifySlack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.model.processes import free_port
from schemas.routes import EmailTarget, PagerDutyTarget
from streaming.notify.notices import Notice, plain
from streaming.notify.outcomes import DELIVERED, DeliveryOutcome
from streaming.notify.people import People, email, pagerduty, slack
from streaming.testing.drivers import wait_until
from tests.unit.streaming.notify.receivers import Desk, alert, answer, desk, notice, received

HOOK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7"
KEY = "0123456789abcdef0123456789abcdef"
HOSTILE = (
    "<!channel> <@U123> <https://evil.example|bank> *b* _i_ ~s~ `c` &amp;",
    "https://evil.example/x www.evil.example WWW.evil.example mailto:a@evil.example",
    "a\r\nBcc: victim@evil.example\r\n\r\nbody",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\u202egnp.exe \x1b[31mred \x00 \u2028 \u200b",
    "{{app_body}} {token} ${env:SECRET} %s",
)


def hostile(text: str) -> dict[str, Any]:
    return alert(
        1,
        entities={"customer": text},
        currency=text,
        transaction_id=text,
        rules=[text],
        reasons=[{"name": "amount", "contribution": 1.0, "text": text}],
        rationale=text,
    )


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Slack and PagerDuty on loopback: their addresses are Apprise's constants."""
    with desk() as found:
        base = found.url.removesuffix("/alerts")
        monkeypatch.setattr(NotifySlack, "webhook_url", f"{base}/services")
        monkeypatch.setitem(PAGERDUTY_API_LOOKUP, "us", f"{base}/v2/enqueue")
        yield found


def channel(*, ids: bool = False, seconds: float = 5.0) -> People:
    return slack(HOOK, (), seconds, ids=ids, key="url")


def on_call(*, ids: bool = False, seconds: float = 5.0) -> People:
    return pagerduty(PagerDutyTarget(routing_key="${env:K}", ids=ids), KEY, (), seconds, key="key")


def strings_in(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for each in content.values():
            yield from strings_in(each)
    elif isinstance(content, list):
        for each in content:
            yield from strings_in(each)
    elif isinstance(content, str):
        yield content


def test_slack_gets_a_title_and_a_few_lines(receiver: Desk) -> None:
    receiver.script = [answer(200, b"ok")]
    assert channel().deliver(notice(number=5)) == DELIVERED
    content = json.loads(receiver.arrived[0].body)
    (attached,) = content["attachments"]
    assert attached["title"] == "low: needs_review (payments)"
    assert f"alert {5:032x}, by rules, score 0.5000" in attached["text"]
    assert attached["text"].endswith(f"msg_{5:032x}_1")
    assert "sample-customer" not in attached["text"]
    channel(ids=True).deliver(notice())
    assert "customer sample-customer" in json.loads(receiver.arrived[1].body)["attachments"][0]["text"]


def test_pagerduty_gets_an_event_whose_key_is_the_alert_s(receiver: Desk) -> None:
    receiver.script = [answer(202, b"{}")] * 2
    for revision in (1, 2):
        found = on_call().deliver(notice(number=5, revision=revision, severity="critical"))
        assert found == DELIVERED
    first, second = (json.loads(each.body) for each in receiver.arrived)
    assert first["routing_key"] == KEY
    assert first["payload"]["severity"] == "critical"
    assert first["dedup_key"] == second["dedup_key"] == f"{5:032x}"


@pytest.mark.parametrize("made", [channel, on_call])
@pytest.mark.parametrize("status", [302, 400, 403, 404, 429, 500, 503])
def test_what_a_service_does_not_take_is_tried_again(receiver: Desk, made: Any, status: int) -> None:
    with desk() as elsewhere:
        receiver.script = [answer(status, location=elsewhere.url, retry_after="1")]
        assert made().deliver(notice()) == DeliveryOutcome("failed", "the service has not taken it")
        assert elsewhere.arrived == []


@pytest.mark.parametrize("made", [channel, on_call])
def test_a_service_that_never_answers_is_left(receiver: Desk, made: Any) -> None:
    receiver.script = [lambda _: receiver.over.wait(30) and None]
    assert made(seconds=0.5).deliver(notice()) == DeliveryOutcome("failed", "no answer within 0.5 s")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_outsiders_mentions_formats_or_links(receiver: Desk, text: str) -> None:
    receiver.script = [answer(200, b"ok"), answer(202, b"{}")]
    sent = Notice.of(received(hostile(text)))
    assert channel(ids=True).deliver(sent) == on_call(ids=True).deliver(sent) == DELIVERED
    slack_content, page = (json.loads(each.body) for each in receiver.arrived)
    assert slack_content["mrkdwn"] is False
    for shown in strings_in(slack_content["attachments"]):
        assert "<" not in shown and ">" not in shown
        is_harmless(shown)
    for shown in strings_in(page["payload"]):
        is_harmless(shown)


def is_harmless(shown: str) -> None:
    assert "://" not in shown and "www.evil" not in shown.lower() and "@" not in shown
    assert all(each.isprintable() or each == "\n" for each in shown.replace("\r\n", "\n"))


@given(st.text(max_size=300) | st.lists(st.sampled_from(["wWw.", "WWW", ".", "@", "://", "a"])).map("".join))
def test_an_outsider_s_text_is_one_short_line_that_leads_nowhere(text: str) -> None:
    shown = plain(text)
    assert ("\n" not in shown and shown == "") or shown.isprintable()
    assert "://" not in shown and "@" not in shown and "www." not in shown.lower()
    assert len(shown) <= 600


@pytest.mark.long
@given(st.text(max_size=100))
def test_a_title_holds_no_word_of_outsiders(text: str) -> None:
    assert Notice.of(received(hostile(text))).title == "low: needs_review (payments)"


class Mailbox:
    """Keeps what a mail server takes; `refusing` is what it answers instead."""

    def __init__(self) -> None:
        self.mails, self.refusing, self.refused = list[EmailMessage](), "", set[str]()
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's name
        self, _: object, __: object, envelope: Envelope, address: str, ___: object
    ) -> str:
        if address in self.refused:
            return "550 nobody of this name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: object, __: object, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's name
        if self.refusing:
            return self.refusing
        self.asked.set()
        await asyncio.to_thread(self.go_on.wait, 30)
        content = envelope.content
        assert isinstance(content, bytes)
        found = message_from_bytes(content, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append(found)
        return "250 taken"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    found = Mailbox()
    controller = Controller(found, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield found, controller.port
    finally:
        controller.stop()


def mailed(port: int, seconds: float = 5.0, **changes: Any) -> People:
    content = {
        "server": "127.0.0.1", "port": port, "security": "none",
        "sender": "flagstream@example.org", "to": ["a@example.org", "b@example.org"], "ids": True, **changes,
    }  # fmt: skip
    return email(EmailTarget.model_validate(content), None, (), seconds, key="email")


def test_a_mail_goes_to_each_address_in_plain_text(mailbox: tuple[Mailbox, int]) -> None:
    box, port = mailbox
    assert mailed(port).deliver(notice(number=5)) == DELIVERED
    assert sorted(str(each["To"]) for each in box.mails) == ["a@example.org", "b@example.org"]
    for each in box.mails:
        assert each["Subject"] == "low: needs_review (payments)"
        assert each["X-Flagstream-Message"] == f"msg_{5:032x}_1"
        assert each.get_content_type() == "text/plain"
        assert "customer sample-customer" in each.get_content()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_mail_has_no_header_and_no_part_of_an_outsider_s(mailbox: tuple[Mailbox, int], text: str) -> None:
    box, port = mailbox
    assert mailed(port).deliver(Notice.of(received(hostile(text)))) == DELIVERED
    for each in box.mails:
        assert each["Bcc"] is None and not each.is_multipart()
        is_harmless(each.get_content())


@given(refusals=st.lists(st.sets(st.sampled_from("abcd")), max_size=4), same_process=st.booleans())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_has_a_mail_never_gets_it_again_whatever_befalls_the_others(
    mailbox: tuple[Mailbox, int], refusals: list[set[str]], same_process: bool
) -> None:
    box, port = mailbox
    box.mails.clear()
    everybody = [f"{each}@example.org" for each in "abcd"]
    people, outcome = mailed(port, to=everybody), DeliveryOutcome("failed")
    for refused in [*refusals, set[str]()]:
        box.refused = {f"{each}@example.org" for each in refused}
        people = people if same_process else mailed(port, to=everybody)
        if outcome != DELIVERED:
            outcome = people.deliver(replace(notice(number=5), had=outcome.had))
    assert outcome == DELIVERED
    assert sorted(str(each["To"]) for each in box.mails) == everybody


def test_while_an_attempt_that_was_left_goes_on_none_begins_beside_it(mailbox: tuple[Mailbox, int]) -> None:
    box, port = mailbox
    people = mailed(port, seconds=0.3)
    box.go_on.clear()
    assert people.deliver(notice()).said == "no answer within 0.3 s"
    wait_until(box.asked.is_set, 20, "the mail")
    assert people.deliver(notice()).said == "the attempt before has not ended"
    box.go_on.set()
    wait_until(lambda: len(box.mails) == 2, 20, "the attempt that was left")
    wait_until(lambda: people.deliver(notice()) == DELIVERED, 20, "its end")
    assert len(box.mails) == 2


@pytest.mark.parametrize("said", ["450 later", "550 never", "421 closing"])
def test_a_mail_that_is_not_taken_is_tried_again(mailbox: tuple[Mailbox, int], said: str) -> None:
    box, port = mailbox
    box.refusing = said
    assert mailed(port).deliver(notice()) == DeliveryOutcome("failed", "the service has not taken it")
    box.refusing = ""
    assert mailed(port).deliver(notice()) == DELIVERED


def test_a_name_that_no_resolver_takes_fails_and_raises_nothing() -> None:
    found = email(
        EmailTarget.model_validate({"server": f"{'a' * 70}.org", "sender": "a@x.org", "to": ["b@x.org"]}),
        None, (), 5.0, key="email",
    )  # fmt: skip
    assert found.deliver(notice()) == DeliveryOutcome("failed", "the name cannot be resolved")


def test_a_mail_server_that_offers_no_encryption_gets_nothing_where_it_is_asked_for(
    mailbox: tuple[Mailbox, int],
) -> None:
    box, port = mailbox
    found = mailed(port, security="starttls").deliver(notice())
    assert found == DeliveryOutcome("failed", "the service has not taken it")
    assert box.mails == []
