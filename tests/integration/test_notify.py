"""`flagstream notify` as a process over a real broker: routes are tried, and SIGTERM ends it in order."""

from __future__ import annotations

import json
import re
import signal
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler

import httpx2

from streaming.testing.drivers import wait_until
from tests.notifiers import (
    SECONDS,
    Notifiers,
    ids,
    key,
    publish,
    webhook,
)
from tests.ports import free_port
from tests.unit.streaming.notify.receivers import Desk, answer, desk


def test_routes_take_what_they_name_and_are_tried_without_moving(
    notifiers: Notifiers, receiver: Desk
) -> None:
    with desk() as other:
        alerts = publish(notifiers)
        others = sorted({"low", "high"} - {alerts[0]["severity"]})
        notifiers.route(webhook(receiver, when={"severity": others}), webhook(other, "all", begins="newest"))
        code, shown = notifiers.ask("test", "--alert", alerts[0]["alert_id"][:8])
        assert code == 0
        assert [each["became"] for each in shown["routes"]] == ["not taken", "delivered"]
        code, shown = notifiers.ask("test", "--sample")
        assert [each["became"] for each in shown["routes"]] == ["delivered", "delivered"]
        other.script = [answer(400)]
        code, shown = notifiers.ask("test", "--sample", "--route", "all")
        assert code == 1
        assert [(each["route"], each["became"], each["said"]) for each in shown["routes"]] == [
            ("all", "refused", "answered 400")
        ]
        assert notifiers.ask("check")[1]["routes"][0]["delivered"] == 0
        assert ids(other)[0] == key(alerts[0])
        assert json.loads(other.arrived[0].body)["data"] == alerts[0]


def test_sigterm_waits_for_the_delivery_under_way(notifiers: Notifiers, receiver: Desk) -> None:
    notifiers.route(webhook(receiver, timeout="30s"))
    alerts = publish(notifiers)
    child, answered = notifiers.start(), threading.Event()

    def terminate(request: BaseHTTPRequestHandler) -> None:
        child.send_signal(signal.SIGTERM)
        child.wait_for(lambda line: "stopping" in line)
        answer(204)(request)
        answered.set()

    receiver.script = [answer(204), terminate]
    assert answered.wait(SECONDS)
    printed, rest = child.communicate(timeout=SECONDS)
    assert child.returncode == 0, rest
    delivered = json.loads(printed.splitlines()[-1])["routes"][0]["delivered"]
    assert 2 <= delivered == len(ids(receiver)) < len(alerts)


def test_its_metrics_say_which_receiver_fails_and_its_health_that_it_reads(
    notifiers: Notifiers, receiver: Desk
) -> None:
    with desk() as broken:
        broken.script = [answer(500)] * 100
        notifiers.route(webhook(receiver), webhook(broken, "broken"))
        sent, address = publish(notifiers), f"http://127.0.0.1:{free_port()}"
        child = notifiers.start("--metrics-port", address.rpartition(":")[2])
        wait_until(lambda: len(ids(receiver)) == len(sent) and broken.arrived, SECONDS, "attempts")
        assert [httpx2.get(f"{address}/{each}").text for each in ("livez", "readyz")] == ["ok\n", "ok\n"]

        def value(name: str, labels: str) -> float:
            pattern = rf'^flagstream_{name}{{agent="{notifiers.spec.name}",{labels}}} (\S+)$'
            found = re.search(pattern, httpx2.get(f"{address}/metrics").text, re.MULTILINE)
            return float(found[1]) if found is not None else -1.0

        counted = partial(value, "delivery_attempts_total", 'outcome="delivered",route="desk"')
        wait_until(lambda: counted() == len(sent), SECONDS, "the last to be counted")
        since = partial(value, "route_failing_since_timestamp_seconds")
        wait_until(lambda: since('route="broken"') > 0, SECONDS, "the one that fails")
        assert since('route="desk"') == 0
        assert value("condition_active", 'condition="route_stalled"') == 0
        notifiers.stop(child)
