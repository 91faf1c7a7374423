"""`flagstream notify` killed anywhere, beside failing receivers and others of its kind, loses no alert."""

from __future__ import annotations

import signal
import subprocess
from http.server import BaseHTTPRequestHandler

from schemas.errors import FencedError
from streaming.testing.drivers import wait_until
from tests.notifiers import (
    SECONDS,
    Notifiers,
    decided,
    ids,
    key,
    publish,
    send,
    webhook,
)
from tests.unit.streaming.notify.receivers import SECRET, Desk, answer, desk


def test_killed_before_and_after_answers_it_delivers_each_alert_under_one_key(
    notifiers: Notifiers, receiver: Desk
) -> None:
    notifiers.route(webhook(receiver))
    sent = {key(each) for each in publish(notifiers)}
    struck = list[str]()
    for place, answers_first in ((1, False), (5, True), (3, False), (8, True)):
        child = notifiers.start()

        def strike(
            request: BaseHTTPRequestHandler, child: subprocess.Popen[str] = child, first: bool = answers_first
        ) -> None:
            if first:
                answer(204)(request)
            child.kill()
            child.wait()
            struck.append(ids(receiver)[-1])

        receiver.script = [*[answer(204)] * place, strike]
        wait_until(lambda: child.poll() is not None, SECONDS, "the blow")  # noqa: B023 -- called at once
        assert child.returncode == -signal.SIGKILL
        receiver.script = []
    last = notifiers.start()
    wait_until(lambda: set(ids(receiver)) == sent, SECONDS, "all alerts")
    summary, _ = notifiers.stop(last)
    bodies: dict[str, set[bytes]] = {}
    for each in receiver.arrived:
        bodies.setdefault(each.headers["webhook-id"], set()).add(each.body)
    assert all(len(found) == 1 for found in bodies.values())
    repeated = {each for each in bodies if ids(receiver).count(each) > 1}
    assert repeated <= set(struck)
    assert len(ids(receiver)) <= len(sent) + len(struck)
    assert summary["routes"][0]["failing_since"] is None


def test_a_receiver_that_fails_holds_up_no_other_and_is_caught_up_with(
    notifiers: Notifiers, receiver: Desk
) -> None:
    with desk() as broken:
        broken.script = [answer(500)] * 100
        notifiers.route(webhook(receiver), webhook(broken, "broken"))
        sent = [key(each) for each in publish(notifiers)]
        child = notifiers.start()
        wait_until(lambda: len(ids(receiver)) == len(sent), SECONDS, "the one that works")
        wait_until(lambda: len(broken.arrived) >= 2, SECONDS, "attempts")
        code, shown = notifiers.ask("check")
        assert code == 0
        works, fails = shown["routes"]
        assert (works["delivered"], works["failing_since"]) == (len(sent), None)
        assert (fails["delivered"], fails["said"]) == (0, "answered 500")
        assert fails["failing_since"] is not None
        assert fails["waiting"] >= len(sent)
        summary, said = notifiers.stop(child)
        assert "route_fails" in said
        assert SECRET not in said
        assert set(ids(broken)) == {ids(broken)[0]}, "in order: the first is waited for"
        broken.script = []
        again = notifiers.start()
        wait_until(lambda: set(ids(broken)) == set(sent), SECONDS, "the rest")
        summary, _ = notifiers.stop(again)
        assert [each["delivered"] for each in summary["routes"]] == [len(sent)] * 2
    assert sorted(ids(receiver)) == sorted(sent), "what had arrived is not sent again"


def test_of_two_processes_for_one_route_one_ends(notifiers: Notifiers, receiver: Desk) -> None:
    notifiers.route(webhook(receiver))
    records = decided(notifiers)
    send(notifiers, records[:10])
    children = [notifiers.start()]
    wait_until(lambda: len(ids(receiver)) == 10, SECONDS, "the first ten")
    children.append(notifiers.start())
    children[1].wait_for(lambda line: "routes_served" in line)
    send(notifiers, records)
    wait_until(lambda: any(each.poll() is not None for each in children), SECONDS, "the end of one")
    ended, goes_on = sorted(children, key=lambda each: each.poll() is None)
    assert ended.returncode == FencedError.exit_code
    wait_until(lambda: len(set(ids(receiver))) == len(records), SECONDS, "the rest")
    notifiers.stop(goes_on)
    repeated = {each for each in ids(receiver) if ids(receiver).count(each) > 1}
    assert len(repeated) <= 2
