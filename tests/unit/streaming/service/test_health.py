"""Conditions are reported once, keep their beginning, are read by other processes, and are all documented."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from streaming.service.health import (
    ActiveCondition,
    Condition,
    Health,
    is_running,
    read_health,
    running_since,
)

BEGUN = datetime(2026, 5, 7, tzinfo=UTC)
OPERATIONS = Path(__file__).resolve().parents[4] / "docs" / "operations.md"


def test_a_condition_keeps_its_beginning_and_is_told_when_it_changes(tmp_path: Path) -> None:
    told: list[tuple[Condition, ActiveCondition | None]] = []
    times = iter(BEGUN + timedelta(minutes=minute) for minute in range(10))
    file, expected = tmp_path / "agent.json", ActiveCondition(Condition.BROKER_AWAY, "timed out", BEGUN)
    with closing(Health(file, lambda *change: told.append(change), lambda: next(times))) as health:
        for cause in ("refused", "refused", "timed out"):
            health.begins(Condition.BROKER_AWAY, cause)
        assert health.active == read_health(file) == (expected,)
        health.ends(Condition.BROKER_AWAY)
        health.ends(Condition.BROKER_AWAY)
        assert health.active == read_health(file) == ()
    assert [change and change.cause for _, change in told] == ["refused", "timed out", None]


@given(st.lists(st.sampled_from(["refused", "timed out", "unknown host", None])))
def test_causes_that_take_turns_are_told_once_each(causes: list[str | None]) -> None:
    told, expected = list[str | None](), list[str | None]()
    health = Health(changed=lambda _, state: told.append(state and state.cause))
    since = set[str | None]()
    for cause in causes:
        health.update(Condition.BROKER_AWAY, cause)
        assert [each.cause for each in health.active] == ([] if cause is None else [cause])
        if cause is None and since:
            expected.append(None)
            since.clear()
        elif cause is not None and cause not in since:
            expected.append(cause)
            since.add(cause)
    assert told == expected


def test_a_cause_with_a_figure_is_told_each_time_and_not_remembered_for_ever() -> None:
    told = list[str]()
    health = Health(changed=lambda _, state: told.append(state.cause if state else ""))
    causes = [f"{number} records wait" for number in range(1000)]
    for cause in causes:
        health.begins(Condition.TRANSACTION_OPEN, cause)
    assert told == causes


def test_a_disk_that_takes_nothing_does_not_keep_a_condition_from_being_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    health = Health(tmp_path / "file" / "agent.json")
    health.begins(Condition.DISK_UNUSABLE, "read-only")
    assert [each.cause for each in health.active] == ["read-only"]


def test_every_condition_is_explained_to_operators() -> None:
    rows = [line for line in OPERATIONS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    explained = {line.split("`")[1] for line in rows}
    assert {each.value for each in Condition} <= explained


def test_an_agent_that_no_process_runs_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    assert read_health(file) == ()
    with closing(Health(file)):
        with closing(Health(file)) as fenced:
            fenced.begins(Condition.BROKER_AWAY, "refused")
        assert is_running(file) and len(read_health(file)) == 1, "the driver that took over keeps it"
    assert file.exists() and not is_running(file) and read_health(file) == ()


def test_since_when_an_agent_runs_is_that_of_its_newest_process(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    assert running_since(file) is None
    with closing(Health(file)):
        first = running_since(file)
        assert first is not None
        assert datetime.now(UTC) - first < timedelta(minutes=1)
        os.utime(file.with_suffix(".lock"), (1, 1))
        with closing(Health(file)):
            later = running_since(file)
            assert later is not None
            assert later >= first
    assert running_since(file) is None
