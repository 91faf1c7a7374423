"""While a batch is finished the next one is taken, and neither is lost, repeated or decided too early."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from schemas.spec import AgentSpec
from streaming.batch.finisher import Finisher
from streaming.batch.pipeline import ClosedBatch
from streaming.batch.steps import BatchStep
from streaming.delta.lake_reader import LakeReader
from streaming.delta.log_tail import entry_path
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.source import last_committed, last_planned
from streaming.run import opening
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import TOPIC, agent, events, frame, records, run_live, without_broker
from streaming.versions.clients import Clients

ROWS, BATCHES = 60, 6
TOLD = events(ROWS * BATCHES, seed=7)
PATIENCE = 30.0
BESIDE = [step for step in BatchStep if step not in (BatchStep.OPEN, BatchStep.TAKE, BatchStep.DECODE)]


class _EndedError(Exception):
    """The process is gone."""


class _Reached:
    """Ends the process the n-th time that a step is reached, from whichever thread."""

    def __init__(self, step: BatchStep | None = None, times: int = 0) -> None:
        self._wanted, self._seen, self._gone = (step, times), Counter[BatchStep](), False

    def __call__(self, step: BatchStep) -> None:
        self._seen[step] += 1
        if self._gone or (step, self._seen[step]) == self._wanted:
            self._gone = True
            raise _EndedError


def overlapped(
    settings: Settings,
    spec: AgentSpec,
    first: int = 0,
    reached: Callable[[BatchStep], None] = lambda _: None,
    before_take: Callable[[int], None] = lambda _: None,
) -> tuple[int, list[int]]:
    """Run batches as the query does; return the first that Spark has not committed, and those that closed."""
    stream, closed, committed = records(TOLD), list[int](), first

    def note(batch: ClosedBatch) -> None:
        closed.append(batch.row["batch_id"])

    def take(number: int) -> pa.Table:
        before_take(number)
        return stream.slice(number * ROWS, ROWS)

    with (
        Clients(settings, "none") as clients,
        opening.open_agent(
            PlacedAgent(settings, spec), "127.0.0.1:1", clients, Hooks(reached=reached)
        ) as started,
    ):
        finisher = Finisher(started.pipeline.finish, note)
        try:
            for number in range(first, BATCHES):
                end = {TOPIC: {"0": (number + 1) * ROWS}}
                decided = started.pipeline.decide(
                    partial(take, number), "live", number, partial(dict, end), settle=finisher.settle
                )
                if decided is not None:
                    finisher.begin(decided)
                committed = number + 1
            finisher.settle()
        except _EndedError:
            pass
        finally:
            finisher.close()
    return committed, closed


def held(settings: Settings, spec: AgentSpec) -> dict[str, pl.DataFrame]:
    reader, found = LakeReader(settings.lake(spec.name), spec.tables), {}
    for table, order in {"transactions": "sequence", "alerts": "outbox_seq", "batches": "batch_id"}.items():
        rows = frame(read_stored(reader.place(table)))
        if table == "batches":
            rows = rows.select("batch_id", "first_sequence", "next_sequence", "read", "alerts", "offsets")
        times = [name for name in rows.columns if name.endswith(("_at", "_ms"))]
        found[table] = rows.drop(times, strict=False).sort(order)
    return found


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        settings = Settings.load(tmp_path_factory.mktemp("plain"), {})
        run_live(PlacedAgent(settings, agent()), TOLD, rows=ROWS)
        return held(settings, agent())


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    return Settings.load(tmp_path, {})


def spark_commits(settings: Settings, batch: int, planned: int = 0) -> None:
    """Leave the checkpoint that Spark leaves once it was given a batch back and has planned some more."""
    checkpoint = settings.checkpoint(agent().name)
    for folder, last in (("offsets", batch + planned), ("commits", batch)):
        (checkpoint / folder).mkdir(parents=True)
        for number in range(last + 1):
            (checkpoint / folder / str(number)).write_text("v1\n{}\n", encoding="utf-8")
    (checkpoint / "metadata").write_text('{"id": "live"}', encoding="utf-8")


@contextmanager
def opened(settings: Settings) -> Iterator[None]:
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, agent()), "127.0.0.1:1", clients),
    ):
        yield


def same(found: dict[str, pl.DataFrame], wanted: dict[str, pl.DataFrame]) -> None:
    assert wanted["alerts"].height > 5
    for table, rows in wanted.items():
        assert found[table].equals(rows), table


def test_the_next_batch_is_taken_while_one_is_finished_and_decided_after_it(
    settings: Settings, wanted: dict[str, pl.DataFrame]
) -> None:
    taken, order = threading.Event(), list[str]()

    def before_take(number: int) -> None:
        if number == 1:
            taken.set()

    def reached(step: BatchStep) -> None:
        if step is BatchStep.SCORE:
            assert taken.wait(PATIENCE), "nothing was taken meanwhile"
        if step in (BatchStep.STORE, BatchStep.CLOSE):
            order.append(step)

    assert overlapped(settings, agent(), reached=reached, before_take=before_take) == (
        BATCHES,
        list(range(BATCHES)),
    )
    assert order == [BatchStep.STORE, BatchStep.CLOSE] * BATCHES
    same(held(settings, agent()), wanted)


@pytest.mark.long
@pytest.mark.parametrize("step", BESIDE)
@pytest.mark.parametrize("is_committed", [True, False])
def test_whatever_ends_the_process_the_lake_becomes_the_same(
    settings: Settings, wanted: dict[str, pl.DataFrame], step: BatchStep, *, is_committed: bool
) -> None:
    reached = _Reached(step, 3)
    committed, _ = overlapped(settings, agent(), reached=reached)
    assert 2 <= committed < BATCHES
    again = committed if is_committed else max(0, committed - 1)
    if is_committed:
        spark_commits(settings, committed - 1)
    overlapped(settings, agent(), first=again)
    same(held(settings, agent()), wanted)


@pytest.mark.long
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("planned", [0, 1, 2])
def test_a_power_cut_that_tears_a_decision_costs_nothing_though_spark_has_committed_its_batch(
    settings: Settings, wanted: dict[str, pl.DataFrame], batch: int, planned: int
) -> None:
    committed, _ = overlapped(settings, agent(), reached=_Reached(BatchStep.SCORE, batch + 1))
    assert committed == batch + 1
    spark_commits(settings, batch, planned)
    table = settings.lake(agent().name) / agent().tables.transactions
    entry = entry_path(table, DeltaTable(table.path).version())
    entry.write_bytes(entry.read_bytes()[:100])
    with opened(settings):
        checkpoint = settings.checkpoint(agent().name)
        assert last_committed(checkpoint) == (batch - 1 if batch else None)
        assert last_planned(checkpoint) == batch
    overlapped(settings, agent(), first=batch)
    same(held(settings, agent()), wanted)


def test_what_goes_wrong_with_a_batch_is_raised_before_another_is_decided() -> None:
    def fail(_: Any) -> ClosedBatch:
        raise _EndedError

    finisher = Finisher(fail, lambda _: None)
    finisher.check()
    finisher.settle()
    finisher.begin(object())  # type: ignore[arg-type]  # nothing reads it
    for _ in range(2):
        with pytest.raises(_EndedError):
            finisher.settle()
        with pytest.raises(_EndedError):
            finisher.check()
    finisher.close()
