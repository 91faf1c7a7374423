"""Who runs an agent: one at a time, without fencing each other in turns, whatever the clocks say."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.errors import FencedError, RetryableError
from streaming.store.files import FileState
from streaming.store.local_files import LocalFiles
from streaming.store.owner import BEAT_SECONDS, TAKEOVER_SECONDS, Owner, OwnerRecord
from streaming.store.place import Place

SECONDS = 20.0
pytestmark = pytest.mark.timeout(60)
RECORD = OwnerRecord("0" * 32, "elsewhere", 7, datetime(2026, 5, 7, tzinfo=UTC))


class Clock:
    """A clock that the test moves; it may be years off."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


MADE: list[Owner] = []


@pytest.fixture(autouse=True)
def _locks_end_with_the_test() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().release()


def owner(folder: Path, clock: Clock | None = None, host: str = "one", home: str = "home") -> Owner:
    """An owner on a machine of its own, unless host and home say otherwise."""
    files = LocalFiles(Place.local(folder / "store"))
    made = Owner(files, "tester", folder / home, clock=clock or Clock(), host=host)
    MADE.append(made)
    return made


def watch(clock: Clock, seconds: float, *watching: Owner) -> list[str | None]:
    """Let time pass while some look as often as a waiting run does; return what they said last."""
    said: list[str | None] = []
    for _ in range(int(seconds / BEAT_SECONDS)):
        clock.at += BEAT_SECONDS
        said = [each.waits_for() for each in watching]
    return said


def test_a_second_run_waits_while_the_counter_moves_and_takes_over_once_it_stands(tmp_path: Path) -> None:
    clock = Clock(1e9)
    first, second = owner(tmp_path), owner(tmp_path, clock, "two", "other")
    assert first.waits_for() is None
    for _ in range(10):
        (said,) = watch(clock, TAKEOVER_SECONDS - BEAT_SECONDS, second)
        assert said is not None
        assert said.startswith(f"waiting for another run of this agent: one (process {os.getpid()}) since")
        first.beat()
    assert second.waits_for() is not None
    assert watch(clock, TAKEOVER_SECONDS, second) == [None]
    with pytest.raises(FencedError, match="another run of this agent has taken over: by two"):
        first.beat()
    assert not first.holds
    assert second.holds
    second.beat()


def test_a_clean_end_gives_the_record_up_at_once(tmp_path: Path) -> None:
    first, second = owner(tmp_path), owner(tmp_path, host="two", home="other")
    assert first.waits_for() is None
    assert second.waits_for() is not None
    first.release()
    assert second.waits_for() is None
    first.release()
    second.beat()


def test_who_lives_on_the_same_machine_is_not_taken_for_dead(tmp_path: Path) -> None:
    first, second = owner(tmp_path), owner(tmp_path)
    assert first.waits_for() is None
    assert second.waits_for() is not None
    assert second.waits_for() is not None


def test_of_two_that_see_it_stand_still_one_takes_it(tmp_path: Path) -> None:
    clock = Clock()
    LocalFiles(Place.local(tmp_path / "store")).create("tester.json", RECORD.to_json())
    both = [owner(tmp_path, clock, name, name) for name in ("one", "two")]
    assert all(each.waits_for() for each in both)
    assert [said is None for said in watch(clock, TAKEOVER_SECONDS, *both)] == [True, False]


class Lost(LocalFiles):
    """Files that cannot be read, or not be made, while somebody says so."""

    is_away = is_full = False

    def create(self, name: str, content: bytes) -> FileState | None:
        if self.is_full:
            raise RetryableError("the store is full")
        return super().create(name, content)

    def read(self, name: str) -> FileState | None:
        if self.is_away:
            raise RetryableError("the store is away")
        return super().read(name)


def test_who_could_not_read_the_record_begins_to_watch_it_anew(tmp_path: Path) -> None:
    """While the store is away its holder cannot move it either."""
    clock, files = Clock(), Lost(Place.local(tmp_path / "store"))
    files.create("tester.json", RECORD.to_json())
    waiting = Owner(files, "tester", tmp_path / "home", clock=clock, host="two")
    MADE.append(waiting)
    assert waiting.waits_for() is not None
    files.is_away = True
    clock.at += BEAT_SECONDS
    with pytest.raises(RetryableError):
        waiting.waits_for()
    files.is_away = False
    assert watch(clock, TAKEOVER_SECONDS, waiting) != [None]
    assert watch(clock, BEAT_SECONDS, waiting) == [None]


def test_who_has_not_looked_for_a_while_begins_to_watch_anew(tmp_path: Path) -> None:
    clock = Clock()
    LocalFiles(Place.local(tmp_path / "store")).create("tester.json", RECORD.to_json())
    waiting = owner(tmp_path, clock, "two", "other")
    assert waiting.waits_for() is not None
    clock.at += 10 * TAKEOVER_SECONDS
    assert waiting.waits_for() is not None
    assert watch(clock, TAKEOVER_SECONDS, waiting) == [None]


def test_whose_looks_are_slow_takes_over_as_well_after_enough_of_them(tmp_path: Path) -> None:
    """Each gap counts as two beats at most, however long it was."""
    clock = Clock()
    LocalFiles(Place.local(tmp_path / "store")).create("tester.json", RECORD.to_json())
    waiting = owner(tmp_path, clock, "two", "other")
    looks = 0
    while waiting.waits_for() is not None:
        clock.at += TAKEOVER_SECONDS
        looks += 1
    assert looks == TAKEOVER_SECONDS / (2 * BEAT_SECONDS)


def test_who_cannot_write_the_record_leaves_no_lock(tmp_path: Path) -> None:
    files = Lost(Place.local(tmp_path / "store"))
    waiting = Owner(files, "tester", tmp_path / "home", host="two")
    files.is_full = True
    with pytest.raises(RetryableError):
        waiting.waits_for()
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", RECORD.to_json().replace(b"0" * 32, b"../../../../etc/x"), b"\xff"]
)
def test_a_record_that_is_none_is_replaced_and_leads_to_no_file(tmp_path: Path, content: bytes) -> None:
    LocalFiles(Place.local(tmp_path / "store")).create("tester.json", content)
    assert owner(tmp_path).waits_for() is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 40)),
        st.tuples(st.sampled_from(["beat", "ask", "watch", "release"]), st.integers(0, 2)),
    ),
    max_size=60,
)


@given(steps=STEPS)
@properties(max_examples=40)
def test_nobody_takes_over_from_who_moves_and_who_was_overtaken_learns_it(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Three machines whose clocks began at other times."""
    folder = tmp_path_factory.mktemp("owner")
    clocks = [Clock(start) for start in (0.0, -1e6, 1e9)]
    owners = [owner(folder, clocks[each], f"m{each}", f"h{each}") for each in range(3)]
    still_since, now, holder = 0.0, 0.0, None

    def beats(number: int) -> bool:
        try:
            owners[number].beat()
        except FencedError:
            return False
        return True

    for step, value in [*steps, *(("beat", each) for each in range(3))]:
        if step == "pass":
            now += value
            for clock in clocks:
                clock.at += value
        elif step in {"ask", "watch"}:
            for _ in range(1 if step == "ask" else 7):
                if not owners[value].holds and owners[value].waits_for() is None:
                    assert holder is None or now - still_since >= TAKEOVER_SECONDS
                    holder, still_since = value, now
                for clock in clocks:
                    clock.at += BEAT_SECONDS
                now += BEAT_SECONDS
        elif step == "beat" and owners[value].holds:
            assert beats(value) is (holder == value)
            still_since = now if holder == value else still_since
        elif step == "release":
            owners[value].release()
            holder = None if holder == value else holder
    assert [each for each in range(3) if owners[each].holds] == ([] if holder is None else [holder])


CHILD = """
import sys, time
from pathlib import Path
from streaming.store.local_files import LocalFiles
from streaming.store.owner import Owner
from streaming.store.place import Place
folder, home, takeover, host = sys.argv[1:]
files = LocalFiles(Place.local(Path(folder)))
owner = Owner(files, "tester", Path(home), takeover=float(takeover), host=host)
while owner.waits_for() is not None:
    time.sleep(0.01)
print("owner", flush=True)
while True:
    owner.beat()
    time.sleep(0.02)
"""


def child(
    folder: Path, home: str = "home", takeover: float = 0.3, host: str = "one"
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(folder / "store"), str(folder / home), str(takeover), host]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(*children: subprocess.Popen[str]) -> None:
    for each in children:
        each.kill()
        each.communicate()


def owns(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "owner\n"


def test_after_a_kill_the_next_run_on_the_same_machine_does_not_wait(tmp_path: Path) -> None:
    first = child(tmp_path)
    try:
        owns(first)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert owner(tmp_path).waits_for() is None
    finally:
        end(first)


def test_after_a_kill_another_machine_waits_until_the_counter_has_stood_still(tmp_path: Path) -> None:
    first = child(tmp_path)
    try:
        owns(first)
        first.send_signal(signal.SIGKILL)
        first.wait()
        clock = Clock()
        other = owner(tmp_path, clock, "two", "other")
        assert other.waits_for() is not None
        assert watch(clock, TAKEOVER_SECONDS, other) == [None]
    finally:
        end(first)


def stop_between_two_beats(process: subprocess.Popen[str], folder: Path) -> None:
    """Who is stopped in the moment of a beat would keep the lock of the file."""
    stopped = False
    while not stopped:
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        with (folder / "store" / "tester.lock").open("a") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stopped = True
        if not stopped:
            process.send_signal(signal.SIGCONT)


def test_who_is_stopped_and_wakes_is_fenced(tmp_path: Path) -> None:
    first = child(tmp_path)
    second = None
    try:
        owns(first)
        stop_between_two_beats(first, tmp_path)
        second = child(tmp_path)
        owns(second)
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=SECONDS)
        assert "FencedError: another run of this agent has taken over" in errors
        assert second.poll() is None
    finally:
        end(first, *([second] if second else []))


def test_of_processes_that_race_one_at_a_time_owns(tmp_path: Path) -> None:
    """Each on a machine of its own; when the owner dies, one of the others follows, and the third waits."""
    racing = [child(tmp_path, f"home{each}", 0.3, f"m{each}") for each in range(3)]
    try:
        left = list(racing)
        while left:
            record = _record_once_moving(tmp_path)
            (holder,) = [each for each in left if each.pid == record.pid]
            assert all(each.poll() is None for each in left)
            holder.kill()
            holder.wait()
            left.remove(holder)
        for each in racing:
            output, _ = each.communicate()
            assert output == "owner\n"
    finally:
        end(*racing)


def _record_once_moving(folder: Path) -> OwnerRecord:
    """Return the record once its counter has moved twice."""
    files, deadline, seen = LocalFiles(Place.local(folder / "store")), time.monotonic() + SECONDS, set()
    while time.monotonic() < deadline:
        held = files.read("tester.json")
        record = None if held is None else OwnerRecord.parse(held.content)
        if record is not None and record.beat:
            seen.add((record.holder, record.beat))
            if sum(holder == record.holder for holder, _ in seen) > 2:
                return record
        time.sleep(0.01)
    raise AssertionError("nobody owns it")
