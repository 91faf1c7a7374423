"""Which rows leave, and when: by times that nobody outside chooses, and one table's fault is no other's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, MachineError
from schemas.tables import BATCHES, DUPLICATES, LABELS_QUARANTINE, LEDGER, QUARANTINE
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.delta.rewriting import maintained_alone
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.quarantine.requests import RequestTable, RequeueSlice
from streaming.retention import enforcing
from streaming.retention.enforcing import RetentionKeeper
from streaming.retention.row_cuts import of_batches
from streaming.retention.witness import AHEAD, witnessed
from streaming.store.place import Place
from streaming.testing.live_lake import CONTRACT, agent

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD, YOUNG = NOW - timedelta(days=31), NOW - timedelta(days=29)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
KEPT = {"quarantine": "30d", "duplicates": "30d"}


class Kept:
    """A lake with batches that were closed at two times, and rows of them that claim to be of 1970."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings.load(home, {})
        self.ages: dict[str, Any] = KEPT
        closed = [("live", 0, OLD), ("live", 1, YOUNG)]
        batches = [{"query_id": q, "batch_id": b, "closed_at": at} for q, b, at in closed]
        self.write("batches", BATCHES, batches)
        rows = [
            {"topic": "t", "partition": 0, "offset": number, "kafka_timestamp": at, "query_id": "live"}
            | {"batch_id": min(number // 2, 2)}
            for number, at in enumerate([LONG_AGO, NOW, LONG_AGO, NOW, LONG_AGO])
        ]
        self.write("quarantine", QUARANTINE, rows)
        self.write("duplicates", DUPLICATES, rows)

    def stores(self, payments: Iterable[tuple[str, datetime]]) -> None:
        """Have payments of some queries, as Kafka has dated them, be all that there are."""
        rows = [
            {"sequence": number, "query_id": query, "kafka_timestamp": at}
            for number, (query, at) in enumerate(payments)
        ]
        fields = [QUARANTINE.field("query_id"), QUARANTINE.field("kafka_timestamp")]
        self.write("transactions", pa.schema([("sequence", pa.int64()), *fields]), rows, mode="overwrite")

    def write(self, table: str, schema: pa.Schema, rows: list[dict[str, Any]], **more: Any) -> None:
        place = self.reader.place(table)
        write_deltalake(place.path, pa.Table.from_pylist(rows, schema=schema), **more)

    @property
    def reader(self) -> LakeReader:
        return LakeReader(self.settings.lake("tester"), agent().tables)

    def in_force(self) -> AgentDefinition:
        return AgentDefinition.pinned(agent(retention=self.ages), CONTRACT)

    def keeper(self, now: datetime = NOW, witness: datetime | None = None) -> RetentionKeeper:
        return RetentionKeeper(self.settings, self.in_force, lambda: now, lambda: witness or now)

    def offsets(self, table: Any) -> list[int]:
        return sorted(self.reader.frame(table, ["offset"])["offset"].to_list())


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_rejections_and_redeliveries_are_as_old_as_their_batch_whatever_their_senders_say(kept: Kept) -> None:
    assert kept.keeper().enforce() == {"quarantine": 2, "duplicates": 2}
    assert kept.offsets("quarantine") == kept.offsets("duplicates") == [2, 3, 4]


def test_what_is_no_label_is_as_old_as_when_it_was_set_aside_whatever_its_sender_says(kept: Kept) -> None:
    times = [(LONG_AGO, YOUNG), (NOW, OLD), (LONG_AGO, OLD), (NOW, YOUNG)]
    earlier = [(OLD, None), (YOUNG, None)]  # set aside by a version that did not say when
    rows = [
        {"offset": number, "kafka_timestamp": stamp, "recorded_at": at}
        for number, (stamp, at) in enumerate([*times, *earlier])
    ]
    kept.write("labels_quarantine", LABELS_QUARANTINE, rows)
    kept.ages = {"labels_quarantine": "30d"}
    assert kept.keeper().enforce() == {"labels_quarantine": 3}
    assert kept.offsets("labels_quarantine") == [0, 3, 5]


def test_a_table_of_an_earlier_version_goes_by_the_time_on_the_topic(kept: Kept) -> None:
    rows = [{"offset": number, "kafka_timestamp": at} for number, at in enumerate([OLD, YOUNG])]
    kept.write("labels_quarantine", pa.schema(list(LABELS_QUARANTINE)[:-1]), rows)
    kept.ages = {"labels_quarantine": "30d"}
    assert kept.keeper().enforce() == {"labels_quarantine": 1}
    assert kept.offsets("labels_quarantine") == [1]


def test_what_an_open_request_names_stays_until_it_is_settled(kept: Kept) -> None:
    requests = RequestTable(kept.reader.place("requeues"), timedelta(days=1))
    place = {"topic": "t", "partition": 0, "first_offset": 1, "next_offset": 2}
    requests.ask([RequeueSlice([place], 1)], None, "me", "why")
    assert kept.keeper().enforce() == {"quarantine": 1, "duplicates": 2}
    assert kept.offsets("quarantine") == [1, 2, 3, 4]


def test_a_table_that_cannot_be_cut_keeps_no_other_from_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise ConfigurationError("no profiles")

    monkeypatch.setattr(RetentionKeeper, "_cut_ledger", refuse)
    kept.write("ledger", DUPLICATES, [{"offset": 0}])
    kept.ages = {"transactions": "400d", "ledger": "400d", **KEPT}
    with pytest.raises(ConfigurationError, match="no profiles"):
        kept.keeper().enforce()
    assert kept.offsets("quarantine") == [2, 3, 4]


def test_of_old_answers_of_models_one_stays_for_each_that_no_later_one_gives(kept: Kept) -> None:
    told = [
        (OLD, "question", "a", None),
        (OLD, "answer", "a", "fraud"),
        (OLD, "answer", "b", "fraud"),
        (OLD, "answer", "c", "review"),
        (YOUNG, "answer", "d", "review"),
        (YOUNG, "question", "e", None),
    ]
    rows = [
        {"commit": number, "at": at, "kind": kind, "key": key, "classification": said}
        for number, (at, kind, key, said) in enumerate(told)
    ]
    kept.write("ledger", LEDGER, rows)
    kept.ages = {"transactions": "400d", "ledger": "400d"}
    later = kept.keeper(NOW + timedelta(days=370))
    assert later.enforce() == {"ledger": 3}
    assert sorted(kept.reader.frame("ledger", ["key"])["key"]) == ["b", "d", "e"]
    assert later.enforce() == {}


@pytest.mark.parametrize(
    ("ages", "left"),
    [
        ([500, 401, 399, 1], [2, 3]),
        ([500, 399, 20_000, 1], [1, 2, 3]),  # a clock was set back to 1971 meanwhile
        ([500, 20_000, 401, 399], [3]),
        ([500, -4000, 401, 399], [3]),  # it was years ahead
        ([20_000, 399, 399, 20_000], [1, 2, 3]),
        ([399, 500, 399, 500], [0, 1, 2, 3]),
    ],
)
def test_what_was_stored_while_a_clock_was_set_back_takes_nothing_young_with_it(
    kept: Kept, ages: list[int], left: list[int]
) -> None:
    times = [NOW - timedelta(days=age) for age in ages]
    asked = [{"commit": n, "at": at, "kind": "intent", "key": f"k{n}"} for n, at in enumerate(times)]
    kept.write("ledger", LEDGER, asked)
    closed = [
        {"query_id": "live", "batch_id": n, "first_sequence": n * 10, "next_sequence": n * 10 + 10}
        | {"closed_at": at}
        for n, at in enumerate(times)
    ]
    kept.write("batches", BATCHES, closed, mode="overwrite")
    kept.ages = {"transactions": "400d", "ledger": "400d"}
    keeper = kept.keeper()
    keeper.enforce()
    assert sorted(kept.reader.frame("ledger", ["commit"])["commit"]) == left
    assert keeper._closed_before(kept.reader, NOW - timedelta(days=400)) == left[0] * 10


@pytest.mark.parametrize("ahead", [timedelta(days=8), timedelta(days=3650)])
def test_a_clock_that_no_other_confirms_takes_nothing_young_and_is_said(kept: Kept, ahead: timedelta) -> None:
    wrong = kept.keeper(NOW + ahead, witness=NOW - timedelta(days=7))
    with pytest.raises(MachineError, match=r"clock says .* noted nothing after 2026-05-25: rows leave .* by"):
        wrong.enforce()
    assert kept.offsets("quarantine") == kept.offsets("duplicates") == [2, 3, 4]


def test_a_clock_is_ahead_of_the_others_for_a_week_before_it_is_said(kept: Kept) -> None:
    assert kept.keeper(NOW, witness=NOW - AHEAD).enforce() == {"quarantine": 2, "duplicates": 2}
    idle = kept.keeper(NOW + timedelta(hours=1), witness=NOW - AHEAD)
    assert idle.enforce() == {}, "nothing has become too old meanwhile"


def test_a_witness_at_the_end_of_all_time_stops_nothing(kept: Kept) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    assert kept.keeper(NOW, witness=last).enforce() == {"quarantine": 2, "duplicates": 2}


def test_without_another_clock_nothing_leaves(kept: Kept) -> None:
    alone = RetentionKeeper(kept.settings, kept.in_force, lambda: NOW)
    assert alone.enforce() == {}
    assert kept.offsets("quarantine") == [0, 1, 2, 3, 4]


def test_kafka_s_times_of_the_newest_payments_say_what_time_it_is(kept: Kept) -> None:
    noted = [*[LONG_AGO] * 100, *[NOW - AHEAD] * 33, *[NOW + timedelta(days=3650)] * 31]
    kept.stores(("live", at) for at in noted)
    assert witnessed(PlacedAgent(kept.settings, agent())) == NOW - AHEAD
    alone = RetentionKeeper(kept.settings, kept.in_force, lambda: NOW + timedelta(days=3650))
    with pytest.raises(MachineError, match="noted nothing after 2026-05-25"):
        alone.enforce()
    assert kept.offsets("quarantine") == [2, 3, 4]


def test_loaded_history_says_of_no_day_that_it_has_come(kept: Kept) -> None:
    history = [("backfill-1", NOW + timedelta(days=3650))] * 100
    kept.stores(history)
    assert witnessed(PlacedAgent(kept.settings, agent())) is None
    kept.stores([*history, ("live", NOW)])
    assert witnessed(PlacedAgent(kept.settings, agent())) == NOW


def test_what_another_keeper_has_removed_meanwhile_stays_counted(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after this one has opened a table, before its commit."""
    kept.ages = {"quarantine": "30d"}
    other = [kept.keeper()]

    def after_the_other(place: Place) -> AbstractContextManager[None]:
        if other:
            assert other.pop().enforce() == {"quarantine": 2}
        return maintained_alone(place)

    monkeypatch.setattr(enforcing, "maintained_alone", after_the_other)
    assert kept.keeper(NOW + timedelta(days=5)).enforce() == {"quarantine": 2}
    found = kept.reader.table("quarantine")
    assert found is not None
    assert (found.count(), found.removed_rows) == (1, 4)


def test_the_ages_of_the_version_in_force_are_taken_each_round(kept: Kept) -> None:
    keeper = kept.keeper()
    kept.ages = {"quarantine": "60d"}
    assert not keeper.round()
    assert kept.offsets("quarantine") == [0, 1, 2, 3, 4]
    kept.ages = KEPT
    assert not keeper.round()  # not due


@pytest.mark.parametrize(
    ("own", "before"),
    [
        ("interval 864000 seconds", timedelta(days=10) - timedelta(hours=1)),
        ("interval 60 seconds", timedelta(0)),
    ],
)
def test_replaced_files_stay_for_an_hour_by_what_the_table_says_of_itself(
    kept: Kept, own: str, before: timedelta
) -> None:
    rows = kept.reader.rows("quarantine", QUARANTINE.names).to_pylist()
    configuration = {"delta.deletedFileRetentionDuration": own}
    kept.settings.lake("tester").path.joinpath("quarantine").rename(kept.settings.home / "away")
    kept.write("quarantine", QUARANTINE, rows, configuration=configuration)
    kept.keeper().enforce()
    newest = max((kept.reader.place("quarantine") / "_delta_log").path.glob("*.json"))
    removed = [json.loads(line).get("remove") for line in newest.read_text().splitlines()]
    times = {each["deletionTimestamp"] for each in removed if each is not None}
    assert times == {int((NOW - before).timestamp() * 1000)}


RANGES = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 20), st.integers(1, 9)), max_size=8
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 25), st.sampled_from("xy"), st.integers(0, 2)
    ),
    max_size=30,
)


@pytest.mark.long
@given(ranges=RANGES, rows=ROWS, batches=st.sets(st.tuples(st.sampled_from("xy"), st.integers(0, 2))))
def test_of_batches_all_leave_but_for_spared_places(
    ranges: list[tuple[str, int, int, int]],
    rows: list[tuple[str, int, int, str, int]],
    batches: set[tuple[str, int]],
) -> None:
    spared = pl.DataFrame(
        [(topic, partition, first, first + count) for topic, partition, first, count in ranges],
        {"topic": pl.String, "partition": pl.Int32, "first_offset": pl.Int64, "next_offset": pl.Int64},
        orient="row",
    )
    closed = pl.DataFrame(sorted(batches), {"query_id": pl.String, "batch_id": pl.Int64}, orient="row")
    names = ["topic", "partition", "offset", "query_id", "batch_id"]
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], DUPLICATES)
    left = of_batches(closed, spared)(table).select(names).to_pylist()

    def stays(row: tuple[str, int, int, str, int]) -> bool:
        topic, partition, offset, *batch = row
        held = any(
            (topic, partition) == each[:2] and each[2] <= offset < each[2] + each[3] for each in ranges
        )
        return tuple(batch) not in batches or held

    assert [tuple(row.values()) for row in left] == [row for row in rows if stays(row)]
