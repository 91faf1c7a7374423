"""A running agent through outages: it says what it waits for, goes on, loses and doubles nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker
from streaming.service.health import Condition
from streaming.testing.drivers import DRIVER_SECONDS, Child, wait_until
from streaming.testing.streams import versions
from tests.waiting_agent import SAID_WITHIN_SECONDS, WaitingAgent

pytestmark = pytest.mark.timeout(900)


class Outage(WaitingAgent):
    """An agent of its own, over a broker of its own that comes and goes."""

    def __init__(self, settings: Settings, folder: Path, topic: Callable[[str], str]) -> None:
        self.broker = EmbeddedBroker(folder / "broker", settings.jars_broker)
        super().__init__(settings, folder, topic, self.broker.start())


@pytest.fixture
def outage(settings: Settings, tmp_path: Path, topic: Callable[[str], str]) -> Iterator[Outage]:
    made = Outage(settings, tmp_path, topic)
    yield made
    made.drivers.end()
    made.broker.stop()


@pytest.mark.parametrize("seconds", [75, pytest.param(190, marks=pytest.mark.slow)])
def test_a_broker_that_is_away_for_long_is_waited_for(outage: Outage, seconds: float) -> None:
    outage.stream.send(300)
    driver = outage.start()
    outage.catches_up(driver)
    outage.broker.stop()
    back_at = time.monotonic() + seconds
    outage.says(Condition.BROKER_AWAY)
    before = versions(outage.lake)

    def is_over() -> bool:
        assert driver.poll() is None, driver.communicate()[0]
        assert Condition.BROKER_AWAY in outage.conditions(), "it is said all the time"
        return time.monotonic() > back_at

    wait_until(is_over, 2 * seconds, "the time to pass")
    assert versions(outage.lake) == before, "waiting commits nothing"
    assert outage.broker.start() == outage.bootstrap
    outage.stream.send(300)
    outage.catches_up(driver)
    outage.ends(driver)
    assert "broker_away since" in outage.drivers.outputs[-1]
    assert "broker_away: over" in outage.drivers.outputs[-1]
    outage.nothing_lost_or_doubled()


def test_a_broker_that_bounces_ten_times_costs_nothing(outage: Outage) -> None:
    """Every other time it is killed while the agent reads, stores and publishes."""
    driver = outage.start()
    for bounce in range(10):
        outage.stream.send(200)
        if bounce % 2:
            facts = json.loads((outage.broker.folder / "broker.json").read_text(encoding="utf-8"))
            process = psutil.Process(facts["pid"])
            process.kill()
            process.wait(20)
        else:
            outage.broker.stop()
        assert outage.broker.start() == outage.bootstrap
    outage.catches_up(driver, 4 * DRIVER_SECONDS)
    outage.ends(driver)
    outage.nothing_lost_or_doubled()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_agent_that_waits_ends_at_once_when_it_is_told_to(outage: Outage, how: int) -> None:
    outage.stream.send(300)
    driver = outage.start()
    outage.catches_up(driver)
    outage.broker.stop()
    outage.says(Condition.BROKER_AWAY)
    assert outage.ends(driver, how) < 15
    outage.broker.start()
    outage.stream.send(100)
    assert outage.drivers.run(outage.spec_file) == 0, outage.drivers.outputs[-1]
    outage.nothing_lost_or_doubled()


def test_an_agent_started_without_a_broker_claims_nothing_and_begins_when_there_is_one(
    outage: Outage,
) -> None:
    outage.stream.send(300)
    outage.broker.stop()
    driver = outage.start()
    outage.says(Condition.BROKER_AWAY)
    assert not outage.lake.path.exists()
    assert outage.broker.start() == outage.bootstrap
    outage.catches_up(driver)
    outage.ends(driver)
    outage.nothing_lost_or_doubled()


def test_a_run_with_an_end_gives_up_after_its_patience(outage: Outage) -> None:
    outage.broker.stop()
    assert outage.drivers.run(outage.spec_file, patience=4) == 1
    assert "gave up after 4 s: no broker answers" in outage.drivers.outputs[-1]
    assert not outage.lake.path.exists()


@contextmanager
def small_disk(outage: Outage, folder: Path) -> Iterator[Path]:
    """A file system of 64 megabytes in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    yield folder
    outage.drivers.end()
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(outage: Outage) -> Iterator[Path]:
    """A disk that holds the lake alone."""
    with small_disk(outage, outage.lake.path) as folder:
        yield folder


@pytest.fixture
def home(outage: Outage) -> Iterator[Path]:
    """A disk that holds all state, the file that says what is suffered from among it."""
    with small_disk(outage, outage.settings.home) as folder:
        yield folder


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


def make_read_only(disk: Path) -> Callable[[], None]:
    mount("-o", "remount,ro", str(disk))
    return lambda: mount("-o", "remount,rw", str(disk))


def fill(disk: Path) -> Callable[[], None]:
    """Leave no byte free; the result makes room again."""
    file = disk / "filling"
    with file.open("wb", buffering=0) as filling, pytest.raises(OSError, match="No space left"):
        while True:
            filling.write(b"x" * 65_536)
    return file.unlink


@pytest.mark.parametrize("harm", [make_read_only, fill])
def test_a_disk_that_takes_nothing_is_waited_for(
    outage: Outage, disk: Path, harm: Callable[[Path], Callable[[], None]]
) -> None:
    outage.stream.send(300)
    driver = outage.start()
    outage.catches_up(driver)
    heal = harm(disk)
    outage.stream.send(300)
    outage.says(Condition.DISK_UNUSABLE)
    assert driver.poll() is None
    heal()
    outage.catches_up(driver)
    outage.ends(driver)
    outage.nothing_lost_or_doubled()


def test_a_disk_of_all_state_fills_up_again_and_again_and_is_free_again(outage: Outage, home: Path) -> None:
    """Whatever was being written when it filled up is written when there is room."""
    outage.stream.send(300)
    driver = outage.start()
    outage.catches_up(driver)
    says = Said(driver)
    for _ in range(3):
        heal = fill(home)
        outage.stream.send(300)
        wait_until(lambda: says.has("disk_unusable since"), SAID_WITHIN_SECONDS, "the disk to be missed")
        assert driver.poll() is None
        assert outage.stored_payments() < len(outage.stream.sent_ids)
        says.forget()
        heal()
        outage.catches_up(driver)
    outage.ends(driver)
    outage.nothing_lost_or_doubled()


class Said:
    """What a driver prints, read while it runs: the file that says so otherwise is on the full disk."""

    def __init__(self, driver: Child) -> None:
        self._driver, self._forgotten = driver, 0

    def has(self, words: str) -> bool:
        return any(words in line for line in self._driver.said[self._forgotten :])

    def forget(self) -> None:
        self._forgotten = len(self._driver.said)


def test_an_agent_whose_jvm_is_killed_goes_on_with_another(outage: Outage) -> None:
    outage.stream.send(300)
    driver = outage.start()
    outage.catches_up(driver)
    (machine,) = [each for each in psutil.Process(driver.pid).children(recursive=True) if is_java(each)]
    os.kill(machine.pid, signal.SIGKILL)
    outage.stream.send(300)
    outage.says(Condition.RESTARTING)
    outage.catches_up(driver)
    outage.ends(driver)
    outage.nothing_lost_or_doubled()


def is_java(process: psutil.Process) -> bool:
    return process.name().startswith("java") and process.status() != psutil.STATUS_ZOMBIE
