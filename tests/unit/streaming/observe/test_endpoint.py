"""The endpoint over real connections: health, metrics, and whoever means no good."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from schemas.errors import ConfigurationError, MachineError
from streaming.home.listen import ListenAddress, is_free, listen_address
from streaming.observe import endpoint as module
from streaming.observe.endpoint import MetricsEndpoint
from streaming.observe.metrics import Metrics
from streaming.observe.readiness import LONGEST_ROUND_SECONDS, LONGEST_STEP_SECONDS, Readiness
from streaming.service.health import Condition, Health
from streaming.testing.drivers import wait_until


class Watched:
    """An endpoint on a free port, with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now, self.refreshed = 0.0, 0
        self.readiness, self.metrics = Readiness(lambda: self.now), Metrics("a")
        self.health = Health()
        self.readiness.watch(self.health)
        self.endpoint = MetricsEndpoint(ListenAddress(0), self.metrics.registry, self.readiness, self.refresh)

    def refresh(self) -> None:
        self.refreshed += 1

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        url = f"http://{self.endpoint.address}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.endpoint.close()


def test_an_agent_is_ready_once_its_query_runs_and_nothing_is_waited_for(watched: Watched) -> None:
    assert watched.get("/livez") == (200, "ok\n")
    assert watched.get("/readyz") == (503, "the agent is being opened\n")
    watched.readiness.is_running = True
    assert watched.get("/readyz") == (200, "ok\n")
    watched.health.begins(Condition.BROKER_AWAY, "connection to 10.0.0.7 refused")
    status, said = watched.get("/readyz")
    assert status == 503
    assert said.startswith("broker_away since ")
    assert "10.0.0.7" not in said
    watched.health.ends(Condition.BROKER_AWAY)
    for waited in (Condition.ANOTHER_RUN, Condition.STORE_AWAY):
        watched.health.begins(waited, "away")
        assert watched.get("/readyz")[0] == 503
        watched.health.ends(waited)
    watched.health.begins(Condition.LABELS_FAILING, "a label")
    assert watched.get("/readyz") == (200, "ok\n")


def test_a_batch_that_takes_long_and_comes_further_is_alive(watched: Watched) -> None:
    watched.readiness.is_running = True
    watched.readiness.looped()
    for _ in range(10):
        watched.readiness.stepped()
        watched.now += LONGEST_STEP_SECONDS
        assert watched.get("/livez")[0] == 200
    watched.now += 1
    assert watched.get("/livez") == (503, "the loop has not moved for 901 s\n")
    watched.readiness.looped()
    watched.now += LONGEST_ROUND_SECONDS + 1
    assert watched.get("/livez")[0] == 503


def test_an_agent_whose_loop_stands_still_is_not_live(watched: Watched) -> None:
    watched.readiness.is_running = True
    watched.readiness.looped()
    watched.now += LONGEST_ROUND_SECONDS
    assert watched.get("/livez")[0] == 200
    watched.now += 1
    assert watched.get("/livez") == (503, "the loop has not moved for 121 s\n")
    watched.readiness.looped()
    assert watched.get("/livez")[0] == 200


def test_an_agent_that_waits_or_is_being_opened_is_live_however_long_it_takes(watched: Watched) -> None:
    watched.now += 100 * LONGEST_ROUND_SECONDS
    assert watched.get("/livez")[0] == 200


def test_metrics_are_refreshed_and_served_and_nothing_else_is(watched: Watched) -> None:
    watched.metrics.stream.read.add(3)
    status, text = watched.get("/metrics")
    assert status == 200
    assert 'flagstream_records_read_total{agent="a"} 3.0' in text
    assert "process_cpu_seconds_total" in text
    assert watched.refreshed == 1
    assert watched.get("/")[0] == watched.get("/metrics/../etc/passwd")[0] == 404
    assert watched.get("/metrics", "POST")[0] == watched.get("/livez", "DELETE")[0] == 405


def test_who_connects_and_says_nothing_keeps_nobody_from_asking(watched: Watched) -> None:
    silent = [socket.create_connection(("127.0.0.1", watched.endpoint.address.port)) for _ in range(20)]
    answers: list[int] = []
    asking = [threading.Thread(target=lambda: answers.append(watched.get("/livez")[0])) for _ in range(5)]
    for each in asking:
        each.start()
    for each in asking:
        each.join(5)
    for connection in silent:
        connection.close()
    assert answers == [200] * 5


def is_ended(connection: socket.socket) -> bool:
    with suppress(OSError):
        return connection.recv(1) == b""
    return True


def test_who_speaks_a_byte_at_a_time_is_not_listened_to_for_ever(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.5)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", watched.endpoint.address.port), 5) as slow:
        with suppress(OSError):
            while time.monotonic() - began < 20:
                slow.sendall(b"x")
                time.sleep(0.05)
        assert is_ended(slow)
    assert time.monotonic() - began < 10
    assert watched.get("/livez")[0] == 200


def test_however_many_connect_no_more_are_held_than_there_is_room_for(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_CONNECTIONS", 3)
    place = ("127.0.0.1", watched.endpoint.address.port)
    held = [socket.create_connection(place, 5) for _ in range(3)]
    for each in held:
        each.sendall(b"GET /livez HTTP/1.1\r\n")
    with socket.create_connection(place, 5) as one_too_many:
        assert is_ended(one_too_many)
    for each in held:
        each.sendall(b"\r\n")
        assert each.recv(12) == b"HTTP/1.0 200"
        each.close()
    wait_until(lambda: not watched.endpoint._server._held, 10, "room again")
    assert watched.get("/livez")[0] == 200


def test_a_port_that_is_taken_is_named(watched: Watched) -> None:
    taken = watched.endpoint.address
    assert not is_free(taken)
    with pytest.raises(MachineError, match=f"{taken.port}.*name another port"):
        MetricsEndpoint(taken, Metrics("b").registry, Readiness())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ListenAddress(9464, "127.0.0.1")),
        ("0.0.0.0:9464", ListenAddress(9464, "0.0.0.0")),
        ("[::]:80", ListenAddress(80, "::")),
        ("agent-1.example:65535", ListenAddress(65535, "agent-1.example")),
        ("off", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_is_a_port_or_a_host_and_a_port(text: str | None, address: ListenAddress | None) -> None:
    assert listen_address(text, "FLAGSTREAM_METRICS") == address


@pytest.mark.parametrize("text", ["x", ":9464", "9464:", "1.2.3.4", "99999", "http://a:1", "-1", "1 2"])
def test_all_else_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FLAGSTREAM_METRICS: expected a port"):
        listen_address(text, "FLAGSTREAM_METRICS")
