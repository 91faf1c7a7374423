"""What becomes of a request, whatever the receiver does: one attempt, in bounded time, to one address."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.guarded_http import Reach
from streaming.notify.outcomes import LONGEST_RETRY_AFTER, DeliveryOutcome, retry_after_of
from streaming.notify.signing import secret_key
from streaming.notify.webhook import Webhook
from tests.unit.streaming.notify.receivers import OLDER_SECRET, SECRET, Desk, alert, answer, desk, notice
from tests.unit.streaming.notify.test_signing import verify

KEYS = [secret_key(SECRET), secret_key(OLDER_SECRET)]


def sent(receiver: Desk, seconds: float = 5.0) -> DeliveryOutcome:
    return once(receiver.url, seconds)


def once(url: str, seconds: float = 5.0, reach: Reach = "public", **changes: Any) -> DeliveryOutcome:
    with closing(Webhook(url, KEYS, reach, seconds)) as webhook:
        return webhook.deliver(notice(**changes))


def test_a_request_is_signed_and_holds_the_alert_as_it_is(receiver: Desk) -> None:
    assert sent(receiver).became == "delivered"
    ((headers, body),) = receiver.arrived
    content = json.loads(body)
    assert content == {"type": "alert.raised", "timestamp": "2026-01-01T00:00:00.000000Z", "data": alert()}
    assert headers["webhook-id"] == f"msg_{alert()['alert_id']}_1"
    assert headers["content-type"] == "application/json"
    for secret in (SECRET, OLDER_SECRET):
        assert verify()(secret, headers, body, time.time())


def test_each_attempt_has_the_same_id_and_body_and_a_time_of_its_own(receiver: Desk) -> None:
    clock = iter([1_000.0, 1_000.0, 2_000.0, 2_000.0])
    receiver.script = [answer(500), answer(200)]
    with closing(Webhook(receiver.url, KEYS, "public", 5.0, now=lambda: next(clock))) as webhook:
        assert [webhook.deliver(notice()).became for _ in range(2)] == ["failed", "delivered"]
    first, second = receiver.arrived
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert [each.headers["webhook-timestamp"] for each in receiver.arrived] == ["1000", "2000"]
    receiver.arrived.clear()
    once(receiver.url, revision=2)
    assert receiver.arrived[0].headers["webhook-id"] != first.headers["webhook-id"]
    assert json.loads(receiver.arrived[0].body)["type"] == "alert.revised"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_is_success(receiver: Desk, status: int) -> None:
    receiver.script = [answer(status)]
    assert sent(receiver) == DeliveryOutcome("delivered")


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_is_said_of_the_message_is_not_repeated(receiver: Desk, status: int) -> None:
    receiver.script = [answer(status)]
    assert sent(receiver) == DeliveryOutcome("refused", f"answered {status}")


@pytest.mark.parametrize("status", [401, 403, 404, 408, 410, 425, 429, 500, 502, 503])
def test_what_may_be_mended_is_tried_again(receiver: Desk, status: int) -> None:
    receiver.script = [answer(status)]
    assert sent(receiver) == DeliveryOutcome("failed", f"answered {status}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Desk, status: int) -> None:
    with desk() as elsewhere:
        receiver.script = [answer(status, location=elsewhere.url)]
        assert sent(receiver) == DeliveryOutcome("failed", f"answered {status}")
        assert elsewhere.arrived == []


def test_a_receiver_says_when_it_wants_to_be_asked_again(receiver: Desk) -> None:
    receiver.script = [answer(429, retry_after="7"), answer(503, retry_after="999999")]
    assert sent(receiver).retry_after == 7.0
    assert sent(receiver).retry_after == LONGEST_RETRY_AFTER


@given(st.text(max_size=30) | st.integers().map(str) | st.floats().map(str))
def test_whatever_it_says_of_that_a_wait_is_bounded(value: str) -> None:
    assert 0.0 <= retry_after_of(value, 1e9) <= LONGEST_RETRY_AFTER


def test_one_that_was_let_go_of_delivers_again(receiver: Desk) -> None:
    webhook = Webhook(receiver.url, KEYS, "public", 5.0)
    for _ in range(3):
        assert webhook.deliver(notice()) == webhook.deliver(notice()) == DeliveryOutcome("delivered")
        webhook.close()
        webhook.close()
    assert len(receiver.arrived) == 6


def test_a_date_to_ask_again_is_understood() -> None:
    assert retry_after_of("Thu, 01 Jan 1970 00:01:00 GMT", 50.0) == 10.0
    assert retry_after_of("Thu, 01 Jan 1970 00:01:00 GMT", 90.0) == 0.0


def drips(head: bool) -> object:
    """Answer a byte at a time, of the head or of the body, for as long as anybody listens."""

    def step(request: BaseHTTPRequestHandler) -> None:
        if not head:
            request.send_response(200)
            request.send_header("content-length", "100000")
            request.end_headers()
        for each in b"HTTP/1.1 200 OK\r\nx-slow: " + b"x" * 100_000:
            request.wfile.write(bytes([each]))
            time.sleep(0.02)

    return step


@pytest.mark.parametrize(("head", "became"), [(True, "failed"), (False, "delivered")])
def test_a_slow_drip_takes_no_longer_than_an_attempt_may(receiver: Desk, head: bool, became: str) -> None:
    receiver.script = [drips(head)]  # type: ignore[list-item]  # a step, whatever it is called
    begun = time.monotonic()
    assert sent(receiver, 0.5).became == became
    assert time.monotonic() - begun < 3.0


def test_a_receiver_that_never_answers_is_left(receiver: Desk) -> None:
    receiver.script = [lambda _: receiver.over.wait(30) and None]
    begun = time.monotonic()
    assert sent(receiver, 0.4) == DeliveryOutcome("failed", "no answer within 0.4 s")
    assert time.monotonic() - begun < 3.0


def test_a_huge_answer_is_not_read(receiver: Desk) -> None:
    read = list[int]()

    def huge(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(2_000):
            read.append(request.wfile.write(b"x" * 100_000))

    receiver.script = [huge]
    assert sent(receiver).became == "delivered"
    assert len(read) < 500, "whoever asked has hung up"


@pytest.mark.parametrize(
    "step", [lambda request: request.connection.close(), lambda request: request.wfile.write(b"nonsense\r\n")]
)
def test_what_is_no_answer_fails(receiver: Desk, step: object) -> None:
    receiver.script = [step]  # type: ignore[list-item]  # as above
    outcome = sent(receiver, 2.0)
    assert outcome.became == "failed"
    assert "127.0.0.1" not in outcome.said


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/secret-path"
        outcome = once(url)
    assert outcome.became == "failed"
    assert "secret-path" not in outcome.said


def test_a_name_that_leads_to_a_private_network_is_not_connected_to(
    receiver: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolved(_: object, port: int, *__: object, **___: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    url = receiver.url.replace("127.0.0.1", "hooks.example.org")
    outcome = once(url)
    assert outcome == DeliveryOutcome("failed", "the name leads to a private network")
    assert receiver.arrived == []
    assert once(url, reach="named").became == "delivered"
