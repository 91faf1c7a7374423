from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.processes import PortTakenError, Service, free_port, one_at_a_time
from schemas.errors import MachineError

WAITS = [sys.executable, "-c", "import signal; signal.pause()"]
IGNORES_TERM = [
    sys.executable,
    "-uc",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); signal.pause()",
]
FAILS = [
    sys.executable,
    "-c",
    "import sys; sys.exit('it broke\\n\\tat frame one\\n\\tat frame two\\n\\tat frame three')",
]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service("child", tmp_path / "child")
    yield service
    service.stop()


def test_facts_last_as_long_as_the_child(service: Service) -> None:
    assert service.facts() is None
    service.start(WAITS, {"port": "1"}, lambda: True)
    assert service.facts() == {"port": "1"}
    assert service.stop() is True
    assert service.facts() is None
    assert service.stop() is False


def test_a_child_deaf_to_asking_is_ended(service: Service) -> None:
    service.start(IGNORES_TERM, {}, lambda: "deaf" in service.log.read_text())
    assert service.stop(seconds=0.2) is True
    assert service.facts() is None


def test_a_child_that_ends_at_once_is_reported_by_what_it_said_without_its_stack(service: Service) -> None:
    with pytest.raises(MachineError, match=r"child did not come up; its log ends: it broke$"):
        service.start(FAILS, {}, lambda: False)
    assert service.facts() is None


def test_a_child_that_is_not_ready_in_time_is_ended(service: Service) -> None:
    with pytest.raises(MachineError, match=r"child did not come up; its log ends: \(empty\)"):
        service.start(WAITS, {}, lambda: False, seconds=0.2)
    assert service.facts() is None


def test_a_child_that_nobody_waits_for_any_more_is_ended_at_once(service: Service) -> None:
    stop = threading.Event()

    def ready() -> bool:
        stop.set()
        return False

    with pytest.raises(MachineError, match="child was ended while it started"):
        service.start(WAITS, {}, ready, unwanted=stop.is_set)
    assert service.facts() is None


def test_a_torn_record_counts_as_not_running(service: Service) -> None:
    service.folder.mkdir()
    (service.folder / "child.json").write_text('{"pid": 1')
    assert service.facts() is None
    assert service.stop() is False


def test_only_one_at_a_time_holds_a_guard(tmp_path: Path) -> None:
    entered = threading.Event()

    def second() -> None:
        with one_at_a_time(tmp_path / "guard"):
            entered.set()

    waiting = threading.Thread(target=second)
    with one_at_a_time(tmp_path / "guard"):
        waiting.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    waiting.join()


def test_free_ports_can_be_bound_by_anyone() -> None:
    assert 1024 <= free_port() <= 65535


def test_a_port_that_somebody_else_took_meanwhile_is_told_apart(service: Service) -> None:
    listens = "import socket, sys; socket.socket().bind(('127.0.0.1', int(sys.argv[1])))"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match="Address already in use"):
            service.start([sys.executable, "-c", listens, str(port)], {}, lambda: False)
