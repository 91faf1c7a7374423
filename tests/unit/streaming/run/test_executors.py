"""How many executors work for an agent: told while it runs, and missed after a while."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from schemas.errors import MachineError
from streaming.batch.stream_faults import ExecutorEndedError
from streaming.commands.status import print_status
from streaming.delta.lake_reader import AgentLake
from streaming.run.driver import _own_conditions
from streaming.run.executors import EndedExecutors, ExecutorWatch, TaskCounts, forget_executors, read_cluster
from streaming.run.status import read_status
from streaming.service.health import Condition, Health
from streaming.store.place import Place
from streaming.testing.live_lake import agent


def read_executors(file: Path) -> int | None:
    return read_cluster(file).executors


class Counted:
    """Executors and a clock that a test sets."""

    def __init__(self, file: Path, health: Health) -> None:
        self.there: int | None = 2
        self.tasks: TaskCounts | None = TaskCounts(0, 0, 0)
        self.now, self.asked, self.lost = 100.0, 0, 0
        self.watch = ExecutorWatch(self.count, lambda: self.tasks, health, file, self.loses, lambda: self.now)

    def count(self) -> int | None:
        self.asked += 1
        return self.there

    def loses(self) -> None:
        self.lost += 1

    def after(self, seconds: float, there: int | None) -> None:
        self.now, self.there = self.now + seconds, there
        self.watch.check()


def test_executors_are_told_while_the_agent_runs(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    with closing(Health(file)) as health:
        counted = Counted(file, health)
        assert read_executors(file) is None, "an agent that runs without a cluster"
        for there in (2, 1, 0):
            counted.after(1, there)
            assert read_executors(file) == there
        counted.after(1, None)
        assert read_executors(file) == 0, "nobody could tell"
        counted.after(0.5, 2)
        assert (counted.asked, read_executors(file)) == (4, 0), "at most once a second"
    assert read_executors(file) is None, "it has ended"
    with closing(Health(file)):
        forget_executors(file)
        assert read_executors(file) is None, "another run has none yet"


def test_a_run_that_waits_for_another_leaves_its_executors_alone(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    with closing(Health(file)) as health:
        Counted(file, health).after(1, 2)
        waiting = _own_conditions(file)
        with closing(Health(waiting)):
            assert (read_executors(file), read_executors(waiting)) == (2, None)


def test_an_agent_that_has_lost_its_executors_for_a_minute_hears_so_once(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "agent.json", Health())
    for seconds, there, lost in (
        (300, 0, 0),  # there were none before: the cluster is full
        (1, 1, 0),
        (59, 0, 0),
        (30, None, 0),
        (1, 0, 1),
        (90, 0, 1),
        (1, 2, 1),
        (59, 0, 1),
        (2, 0, 2),
    ):
        counted.after(seconds, there)
        assert counted.lost == lost


def test_that_there_are_none_is_said_after_ten_seconds_and_over_with_the_first(tmp_path: Path) -> None:
    health = Health()
    counted = Counted(tmp_path / "agent.json", health)
    for seconds in (1, 9):
        counted.after(seconds - 0.5, 0)
        assert health.active == ()
    counted.after(2, 0)
    assert [each.condition for each in health.active] == [Condition.CLUSTER_AWAY]
    counted.after(1, 1)
    assert health.active == ()
    counted.after(9, 0)
    assert health.active == (), "counted from when there was one"


def test_status_shows_them_for_an_agent_that_has_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, lake = tmp_path / "agent.json", Place.local(tmp_path / "lake")
    with closing(Health(file)) as health:
        for there, shown in ((None, False), (3, True)):
            Counted(file, health).after(1, there)
            print_status(read_status(AgentLake(lake, agent()), None).with_health(file, lake), as_json=False)
            assert ("executors of the Spark cluster" in capsys.readouterr().out) is shown


@pytest.mark.parametrize(
    ("seconds", "tasks", "said"),
    [
        (59, TaskCounts(2, 1, 0), None),
        (61, TaskCounts(2, 1, 0), "2 tasks of this batch have not come to an end for a minute"),
        (61, TaskCounts(0, 1, 0), None),  # none is taken: that no executor is there is said otherwise
        (1, TaskCounts(2, 1, 1), "1 task of this batch failed on executors, and are run again"),
    ],
)
def test_tasks_that_fail_or_do_not_go_on_are_told_until_they_do(
    tmp_path: Path, seconds: float, tasks: TaskCounts, said: str | None
) -> None:
    health = Health()
    counted = Counted(tmp_path / "agent.json", health)
    counted.tasks = TaskCounts(tasks.active, tasks.completed, 0)
    counted.after(1, 2)
    counted.tasks = tasks
    counted.after(seconds, 2)
    told = {each.condition: each.cause for each in health.active}
    assert (told.get(Condition.EXECUTORS_FAILING) or "").startswith(said or "")
    assert bool(told) is (said is not None)
    counted.tasks = None
    counted.after(1, 2)
    assert len(health.active) == len(told), "nobody could tell"
    counted.tasks = TaskCounts(1, 2, 0)
    counted.after(1, 2)
    assert health.active == ()


def test_a_batch_that_executors_do_not_survive_ends_the_run_at_the_third_attempt_in_a_row() -> None:
    ended, fault = EndedExecutors(), ExecutorEndedError("an executor ends over its task: its heap is full")
    for _ in range(2):
        with pytest.raises(ExecutorEndedError):
            ended.weigh(fault)
    ended.closed()
    for _ in range(2):
        with pytest.raises(ExecutorEndedError):
            ended.weigh(fault)
    with pytest.raises(MachineError, match=r"its heap is full, in 3 attempts .*cluster\.memory"):
        ended.weigh(fault)
