"""One id that holds much of what comes in is reported, whatever else comes, and in bounded memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.batch import entity_shares
from streaming.batch.entity_shares import EntityShares
from streaming.batch.input_watch import InputWatch
from streaming.service.health import Condition, Health
from streaming.testing.live_lake import agent, events
from streaming.testing.trial import trial


def rows(ids: list[str | None]) -> pa.Table:
    return pa.table({"card": pa.array(ids, pa.string())})


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 400), max_size=300), min_size=1, max_size=8), st.integers(0, 60))
def test_a_share_is_missed_by_less_than_one_part_in_many(batches: list[list[int]], often: int) -> None:
    shares, seen = EntityShares(["card"]), Counter[str]()
    for batch in [*batches, [1_000 + each for each in range(1_000)]]:
        ids = [*map(str, batch), *["UNKNOWN"] * (often * len(batch) // 60)]
        shares.take(rows([*ids, None]))
        seen.update(ids)
    counted, total = shares._counted["card"], seen.total()
    largest, missed = max(seen.values()), total / entity_shares._COUNTED
    assert counted._counts.height <= entity_shares._COUNTED
    assert largest - missed <= counted.most <= largest


def test_a_change_shows_however_long_the_stream_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entity_shares, "_REMEMBERED", 4_000)
    shares = EntityShares(["card"])
    for _ in range(50):
        shares.take(rows([f"c{number}" for number in range(1_000)]))
    assert shares.above(0.5) == ()
    for _ in range(9):
        shares.take(rows(["0"] * 1_000))
    assert shares.above(0.5) == ("card",)
    assert shares.above(1.0) == ()


def test_few_payments_say_nothing_and_nobody_is_no_id() -> None:
    shares = EntityShares(["card"])
    shares.take(rows(["UNKNOWN"] * 999))
    assert shares.above(0.5) == ()
    shares.take(rows([None] * 5_000))
    assert shares.above(0.5) == ()


def test_the_condition_begins_and_ends() -> None:
    health = Health()
    watch = InputWatch(health, ["card"])
    watch.watch_placeholders(rows(["UNKNOWN"] * 1_500), 0.5)
    (state,) = health.active
    assert (state.condition, "card" in state.cause) == (Condition.ENTITY_DOMINATES, True)
    watch.watch_placeholders(rows([f"c{number}" for number in range(2_000)]), 0.5)
    assert health.active == ()


def test_an_agent_says_so(tmp_path: Path) -> None:
    told = [{**each, "terminal_id": "UNKNOWN"} for each in events(1_100)]
    spec = agent(rules=[])
    with trial(tmp_path, spec) as tried:
        tried.send(told)
        watch = tried._agent.pipeline._input
        assert watch._shares.above(0.5) == ("terminal",)
        assert tried.stored("monitoring", "at")["problems"].to_pylist() == [None]
