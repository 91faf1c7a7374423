"""A running agent through outages: it says what it waits for, goes on, loses and doubles nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from schemas.spec import AgentSpec, load_spec
from streaming.history.reconcile import reconcile
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker, ensure_topic
from streaming.run.status import read_status
from streaming.service.health import Condition, read_health
from streaming.testing.drivers import DRIVER_SECONDS, Drivers, wait_until
from streaming.testing.streams import Stream, stored, versions, write_spec

pytestmark = pytest.mark.timeout(900)
AGENT = "tester"
HOUR = timedelta(hours=1)
SAID_WITHIN_SECONDS = 30.0  # Spark's source alone would take three minutes


class Outage:
    """An agent of its own, over a broker of its own that comes and goes."""

    def __init__(self, settings: Settings, folder: Path, topic: Callable[[str], str]) -> None:
        self.settings = settings
        self.broker = EmbeddedBroker(folder / "broker", settings.jars_broker)
        self.bootstrap = self.broker.start()
        self.spec_file = write_spec(folder, topic)
        self.spec: AgentSpec = load_spec(self.spec_file)
        self.drivers = Drivers(settings, self.bootstrap)
        ensure_topic(self.bootstrap, self.spec.data_sources.transactions.topic, 2)
        self.stream = Stream(self.bootstrap, self.spec.data_sources.transactions.topic)

    @property
    def lake(self) -> Path:
        return self.settings.lake(AGENT)

    def start(self, **order: object) -> subprocess.Popen[str]:
        return self.drivers.start(self.spec_file, endless=True, **order)

    def conditions(self) -> set[Condition]:
        return {each.condition for each in read_health(self.settings.health(AGENT))}

    def says(self, condition: Condition) -> None:
        """Wait until the agent says that a condition holds."""
        wait_until(lambda: condition in self.conditions(), SAID_WITHIN_SECONDS, condition)

    def has_stored(self) -> bool:
        return read_status(self.lake, self.spec, None).totals["stored"] == len(self.stream.sent_ids)

    def catches_up(self, driver: subprocess.Popen[str], seconds: float = 2 * DRIVER_SECONDS) -> None:
        """Wait until everything sent is stored and nothing is suffered from, by the same process."""

        def settled() -> bool:
            assert driver.poll() is None, driver.communicate()[0]
            return self.has_stored() and not self.conditions()

        wait_until(settled, seconds, "the agent to go on by itself")

    def ends(self, driver: subprocess.Popen[str], with_signal: int = signal.SIGINT) -> float:
        """Ask the agent to end; return the seconds it took."""
        begun = time.monotonic()
        driver.send_signal(with_signal)
        assert self.drivers.outcome(driver) == 0, self.drivers.outputs[-1]
        return time.monotonic() - begun

    def nothing_lost_or_doubled(self) -> None:
        transactions = stored(self.lake, "transactions", "sequence")
        assert Counter(transactions["transaction_id"].to_pylist()) == Counter(self.stream.sent_ids)
        alerts = stored(self.lake, "alerts", "outbox_seq")
        assert len(set(alerts["alert_id"].to_pylist())) == alerts.num_rows > 0
        found = reconcile(self.lake, self.spec, self.bootstrap, HOUR)
        assert found.differences == 0, found


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
    assert not outage.lake.exists()
    assert outage.broker.start() == outage.bootstrap
    outage.catches_up(driver)
    outage.ends(driver)
    outage.nothing_lost_or_doubled()


def test_a_run_with_an_end_gives_up_after_its_patience(outage: Outage) -> None:
    outage.broker.stop()
    assert outage.drivers.run(outage.spec_file, patience=4) == 1
    assert "gave up after 4 s: no broker answers" in outage.drivers.outputs[-1]
    assert not outage.lake.exists()


@pytest.fixture
def disk(outage: Outage) -> Iterator[Path]:
    """A file system of 64 megabytes that holds the lake alone."""
    outage.lake.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(outage.lake))
    yield outage.lake
    outage.drivers.end()
    subprocess.run(["umount", "--lazy", str(outage.lake)], check=True)


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
