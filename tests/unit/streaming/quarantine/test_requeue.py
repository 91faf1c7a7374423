"""Records out of the quarantine: as if they arrived now, once, whatever crashes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.tables import UTC_MICROS
from streaming.batch.backfill_mark import unfinished_backfill
from streaming.batch.runner import arrival
from streaming.batch.steps import BatchStep
from streaming.commands.backfill import run_backfill
from streaming.commands.quarantine_view import show_record
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.history.explain import explain
from streaming.history.replay_runs import ReplaySpan as Span
from streaming.history.replay_runs import run_replay, run_what_if
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.terminal import Terminal
from streaming.quarantine import choosing
from streaming.quarantine.choosing import RecordFilter, RequeueTrials, slices_of
from streaming.quarantine.lane import RequeueMark, check_same_columns
from streaming.quarantine.requests import RequestTable, read_requests, requeues_place
from streaming.quarantine.waiting import waiting
from streaming.run.opening import Agent, open_agent
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import (
    CONTRACT,
    DAY,
    TOPIC,
    agent,
    events,
    frame,
    judge,
    records,
    without_broker,
)
from streaming.versions.clients import Clients
from tests.registry_rows import activate, entry, put

NOW = DAY + timedelta(hours=10)
ROWS = 90
TOLD = events(3 * ROWS)
# What a new version of the producer sends: the amount is in another field.
MOVED = [
    {**{k: v for k, v in each.items() if k != "amount"}, "value": each["amount"]}
    for each in TOLD[ROWS : 2 * ROWS]
]
MOVED[7] = {**MOVED[7], "value": "much"}
CORRECTED = CONTRACT.model_copy(update={"amount": CONTRACT.amount.model_copy(update={"field": "value"})})
SAME = ["sequence", *CONTRACT.arrow_schema().names, "late"]
ALERT = [
    "outbox_seq",
    "alert_id",
    "transaction_id",
    "sequence",
    "score",
    "log_odds",
    "reasons",
    "rules",
    "passed_by",
]


class CrashError(Exception):
    pass


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    without_broker(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(tmp_path / "home", {})


@contextmanager
def running(settings: Settings, at: BatchStep | None = None) -> Iterator[Agent]:
    def reached(step: BatchStep) -> None:
        if step is at:
            raise CrashError(step)

    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, agent()), "127.0.0.1:1", clients, Hooks(reached)) as started,
    ):
        yield started


def feed(started: Agent, batch: int, part: pa.Table, **how: Any) -> None:
    end = {TOPIC: {"0": int(part["offset"][-1].as_py()) + 1}}
    started.pipeline.process(lambda: part, "live", batch, lambda: end, **how)


def two_batches(started: Agent) -> None:
    """One that fits the contract, then one that does not."""
    feed(started, 0, records(TOLD[:ROWS]))
    feed(started, 1, records(MOVED, ROWS))


def table(settings: Settings, name: str, order: str | list[str]) -> pl.DataFrame:
    return frame(read_stored(settings.lake("tester") / name)).sort(order)


def waits(settings: Settings) -> pl.DataFrame:
    lake, path = settings.lake("tester"), requeues_place(PlacedAgent(settings, agent()))
    return waiting(lake / "quarantine", path, read_requests(path))


def ask(settings: Settings, chosen: pl.DataFrame, contract: EventContract | None = CORRECTED) -> str:
    said = None if contract is None else contract.model_dump_json()
    requests = RequestTable(requeues_place(PlacedAgent(settings, agent())), agent().replay_horizon)
    return requests.ask(slices_of(chosen), said, "anna", "the producer was changed")


def take_all(started: Agent, moment: datetime = NOW) -> int:
    taken = 0
    while started.requested.waits():
        taken += started.requested.take(moment) is not None
    return taken


def requeued(home: Path, chosen: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> Settings:
    settings = Settings.load(home, {})
    with running(settings) as started:
        two_batches(started)
        ask(settings, chosen(waits(settings)))
        assert take_all(started) > 0
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    return settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home where everything that waited was taken in slices of 40, without a crash; only read."""
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        patch.setattr(choosing, "SLICE_RECORDS", 40)
        return requeued(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def home_asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where everything that waits was asked for in slices of 40, and nothing was taken."""
    settings = Settings.load(tmp_path_factory.mktemp("asked"), {})
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        patch.setattr(choosing, "SLICE_RECORDS", 40)
        with running(settings) as started:
            two_batches(started)
            ask(settings, waits(settings))
    return settings.home


@pytest.fixture(scope="module")
def home_taken_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where everything that waited was taken at once."""
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        return requeued(tmp_path_factory.mktemp("taken_in")).home


@pytest.fixture
def taken_in(home_taken_in: Path, settings: Settings) -> None:
    """Everything that waited was taken at once."""
    shutil.copytree(home_taken_in, settings.home)


def at_moment(part: pa.Table, moment: datetime) -> pa.Table:
    place = part.schema.get_field_index("timestamp")
    stamps = pa.repeat(pa.scalar(moment, UTC_MICROS), part.num_rows)
    return part.set_column(place, "timestamp", stamps)


@pytest.mark.usefixtures("taken_in")
def test_the_state_is_that_of_the_same_records_arriving_then(settings: Settings, tmp_path: Path) -> None:
    other = Settings.load(tmp_path / "other", {})
    with running(other) as started:
        feed(started, 0, records(TOLD[:ROWS]))
        feed(started, 1, at_moment(records(MOVED, ROWS), NOW), contract=CORRECTED)
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    both = [table(each, "transactions", "sequence").select(SAME) for each in (settings, other)]
    assert both[0].equals(both[1])
    assert both[0].height == 3 * ROWS - 1
    alerts = [table(each, "alerts", "outbox_seq").select(ALERT) for each in (settings, other)]
    assert alerts[0].equals(alerts[1])
    assert set(alerts[0]["sequence"]) & set(range(ROWS, 2 * ROWS - 1)), "some of them were alerted"
    manifests = [sorted(each.profiles("tester").path.glob("*/manifest.json")) for each in (settings, other)]
    kept = [[json.loads(path.read_text()) for path in paths] for paths in manifests]
    assert kept[0] == kept[1] != []


@pytest.mark.usefixtures("taken_in")
def test_what_fails_again_says_why_and_how_often(settings: Settings) -> None:
    (row,) = waits(settings).to_dicts()
    assert (row["offset"], row["reason"], row["times"]) == (ROWS + 7, "mistyped_field", 2)
    assert row["arrived"] == datetime.fromisoformat(MOVED[7]["event_time"])
    assert row["rejected"] == NOW
    (request,) = read_requests(requeues_place(PlacedAgent(settings, agent())))
    assert (request.state, request.records, request.slices) == ("done", ROWS, (ROWS,))


@pytest.mark.usefixtures("taken_in")
def test_the_contract_the_moment_and_the_request_are_pinned(settings: Settings) -> None:
    (row,) = (
        table(settings, "batches", "batch_id")
        .filter(pl.col("query_id").str.starts_with("requeue-"))
        .to_dicts()
    )
    pins = json.loads(row["pins"])
    assert EventContract.model_validate(pins["contract"]) == CORRECTED
    assert pins["contract_digest"] == CORRECTED.digest != CONTRACT.digest
    mark = RequeueMark.of(pins)
    assert mark is not None
    assert (mark.slice, mark.slices, mark.records) == (0, 1, ROWS)
    assert mark.moment == int(NOW.timestamp() * 1_000_000)
    assert (row["read"], row["stored"], row["quarantined"]) == (ROWS, ROWS - 1, 1)
    assert json.loads(row["rejected"]) == {"mistyped_field": 1}
    shares = table(settings, "monitoring", "at").to_dicts()
    assert [each["rejected_share"] for each in shares] == [0.0, 1.0, round(1 / ROWS, 6), 0.0]
    assert json.loads(shares[1]["rejected_by_reason"]) == {"missing_field": 1.0}


@pytest.mark.long
@limits(
    deadline=None,
    max_examples=5,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    chosen=st.sets(st.integers(0, ROWS - 1), min_size=1),
    limit=st.integers(1, ROWS),
    cuts=st.lists(st.integers(1, ROWS - 1), max_size=3),
)
def test_any_choice_in_any_slices_is_that_of_its_records_arriving_then(
    tmp_path_factory: pytest.TempPathFactory, chosen: set[int], limit: int, cuts: list[int]
) -> None:
    """Between any batches of the stream: a slice, then a batch, then a slice, and so on."""
    homes = [Settings.load(tmp_path_factory.mktemp(name), {}) for name in ("requeued", "arriving")]
    wanted = pl.Series([ROWS + each for each in sorted(chosen)])
    bounds = sorted({0, *cuts, ROWS})
    later = records(TOLD[2 * ROWS :], 2 * ROWS)
    stream = [later.slice(first, end - first) for first, end in pairwise(bounds)]
    with pytest.MonkeyPatch.context() as patch, running(homes[0]) as started:
        patch.setattr(choosing, "SLICE_RECORDS", limit)
        two_batches(started)
        ask(homes[0], waits(homes[0]).filter(pl.col("offset").is_in(wanted.implode())))
        for number, part in enumerate(stream, 2):
            started.requested.take(NOW)
            feed(started, number, part)
        take_all(started)
    with running(homes[1]) as started:
        feed(started, 0, records(TOLD[:ROWS]))
        parts = at_moment(records([MOVED[each] for each in sorted(chosen)], 0), NOW)
        place = parts.schema.get_field_index("offset")
        parts = parts.set_column(place, "offset", wanted.to_arrow())
        slices = [parts.slice(first, limit) for first in range(0, parts.num_rows, limit)]
        for number, (again, part) in enumerate(zip_longest(slices, stream)):
            if again is not None:
                started.pipeline.process(lambda again=again: again, "again", number, dict, contract=CORRECTED)
            if part is not None:
                feed(started, number + 1, part)
    for name, order, columns in (("transactions", "sequence", SAME), ("alerts", "outbox_seq", ALERT)):
        both = [table(each, name, order).select(columns) for each in homes]
        assert both[0].equals(both[1])
    left = {ROWS + each for each in range(ROWS) if each not in chosen or each == 7}
    assert set(waits(homes[0])["offset"]) == left


def test_two_requests_for_the_same_records_store_them_once(settings: Settings) -> None:
    with running(settings) as started:
        two_batches(started)
        both = waits(settings)
        ask(settings, both)
        ask(settings, both)
        assert take_all(started) == 2
    assert table(settings, "transactions", "sequence")["transaction_id"].is_unique().all()
    rows = table(settings, "batches", "closed_at").filter(pl.col("query_id").str.starts_with("requeue-"))
    assert rows["read"].to_list() == [ROWS, 1], "the second finds what failed again, and nothing else"
    assert waits(settings)["times"].to_list() == [3]


def test_one_that_waits_for_the_wrong_contract_can_be_asked_for_again(settings: Settings) -> None:
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings), None)
        assert take_all(started) == 1
        assert waits(settings)["times"].to_list() == [2] * ROWS
        ask(settings, waits(settings))
        assert take_all(started) == 1
    assert table(settings, "transactions", "sequence").height == 2 * ROWS - 1
    assert waits(settings)["times"].to_list() == [3]


def test_an_id_stored_meanwhile_makes_a_record_a_duplicate(settings: Settings) -> None:
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings))
        feed(started, 2, at_moment(records(TOLD[ROWS : ROWS + 5], 2 * ROWS), NOW))
        take_all(started)
    assert table(settings, "duplicates", "offset")["offset"].to_list() == list(range(ROWS, ROWS + 5))
    assert table(settings, "transactions", "sequence")["transaction_id"].is_unique().all()
    assert waits(settings)["offset"].to_list() == [ROWS + 7], "a redelivery has left the quarantine, too"


def test_what_was_stored_long_ago_is_not_asked_for(settings: Settings) -> None:
    """Beyond the horizon nobody could tell it from a new payment."""
    with running(settings) as started:
        two_batches(started)
        feed(started, 2, at_moment(records(TOLD[ROWS : ROWS + 5], 2 * ROWS), NOW))
    lake = settings.lake("tester")
    places, later = (lake / "quarantine", lake / "transactions"), NOW + timedelta(days=3)
    trial = RequeueTrials(*places, CORRECTED, CONTRACT.duplicates.horizon, later).of(
        RecordFilter().of(waits(settings))
    )
    assert (trial.fit.height, trial.known, trial.reasons) == (ROWS - 6, 5, {"mistyped_field": 1})
    assert set(trial.chosen["offset"]) == set(range(ROWS + 5, 2 * ROWS))


def test_a_contract_with_other_columns_is_refused_by_command_and_agent(settings: Settings) -> None:
    other = CONTRACT.model_copy(update={"extra": {}})
    with pytest.raises(
        ConfigurationError, match=r"other columns than the agent's \(country, merchant_category\)"
    ):
        check_same_columns(CONTRACT, other)
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings), other)
        assert take_all(started) == 0
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    (request,) = read_requests(requeues_place(PlacedAgent(settings, agent())))
    assert request.state == "refused"
    assert "other columns" in request.why
    assert waits(settings).height == ROWS


@pytest.mark.parametrize("at", ["format", "key_format"])
def test_a_contract_whose_own_schema_cannot_be_used_is_refused_and_the_agent_goes_on(
    settings: Settings, at: str
) -> None:
    """As one that another version of the command has taken for usable."""
    written = {at: {"protobuf": {"schema": "no schema at all"}}}
    fields = CONTRACT.model_dump(mode="json") | written
    if at == "key_format":
        fields["transaction_id"] = {"field": "key:id"}
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings), EventContract.model_validate(fields))
        assert take_all(started) == 0
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    (request,) = read_requests(requeues_place(PlacedAgent(settings, agent())))
    assert request.state == "refused"
    assert "schema" in request.why


BY_REGISTRY = EventContract.model_validate({**CORRECTED.model_dump(), "format": {"avro": {"registry": True}}})


def test_a_contract_that_needs_a_registry_is_refused_where_the_agent_has_none(settings: Settings) -> None:
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings), BY_REGISTRY)
        assert take_all(started) == 0
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    (request,) = read_requests(requeues_place(PlacedAgent(settings, agent())))
    assert (request.state, "FLAGSTREAM_SCHEMA_REGISTRY" in request.why) == ("refused", True)


def test_a_request_waits_for_a_registry_that_is_away_and_the_stream_does_not(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {"FLAGSTREAM_SCHEMA_REGISTRY": "http://127.0.0.1:1"})
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings), BY_REGISTRY)
        assert started.requested.waits()
        assert started.requested.take(NOW) is None
        assert not started.requested.waits(), "for a while"
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    (request,) = read_requests(requeues_place(PlacedAgent(settings, agent())))
    assert request.state == "waiting"
    assert waits(settings).height == ROWS


def test_a_contract_with_other_references_is_refused() -> None:
    table = {"path": "t.csv", "on": {"terminal": "id"}, "columns": {"risk": {"field": "risk"}}}
    whole = CONTRACT.model_dump()
    own, other = (
        type(CONTRACT).model_validate({**whole, "references": {"merchants": {**table, **changes}}})
        for changes in ({}, {"path": "other.csv"})
    )
    check_same_columns(own, own)
    for theirs in (other, CONTRACT):
        with pytest.raises(ConfigurationError, match="other references than the agent's"):
            check_same_columns(own, theirs)


@pytest.mark.long
def test_what_a_request_had_decided_before_it_was_refused_is_not_taken_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "SLICE_RECORDS", 40)
    with running(settings) as started:
        two_batches(started)
        both = waits(settings)
        ask(settings, both)
        assert started.requested.take(NOW) is not None
        (request,) = read_requests(requeues_place(PlacedAgent(settings, agent())))
        requests = RequestTable(requeues_place(PlacedAgent(settings, agent())), agent().replay_horizon)
        requests.settle(request, "refused", 1, "the agent's contract was changed meanwhile")
        assert waits(settings).height == ROWS - 39
        ask(settings, both)
        assert take_all(started, NOW + timedelta(days=2)) == 3
    assert table(settings, "transactions", "sequence")["transaction_id"].is_unique().all()
    assert waits(settings)["offset"].to_list() == [ROWS + 7]


@pytest.mark.long
@pytest.mark.usefixtures("taken_in")
def test_replay_and_what_if_agree_over_requeued_batches(settings: Settings) -> None:
    found = run_replay(PlacedAgent(settings, agent()), Span())
    assert (found.rows, found.differences) == (3 * ROWS - 1, ())
    assert found.alerts > 0
    same = run_what_if(PlacedAgent(settings, agent()), agent(), Span())
    assert (same.added, same.removed) == (0, 0)


@pytest.mark.long
@pytest.mark.usefixtures("taken_in")
def test_a_snapshot_over_requeued_batches_is_replayed(settings: Settings) -> None:
    span = Span().span(Span().history(PlacedAgent(settings, agent())))
    create_snapshot(
        settings, AgentDefinition.pinned(agent(), CONTRACT), "kept", span._replace(first=ROWS + 20)
    )
    found = run_replay(PlacedAgent(settings, agent()), Span(snapshot="kept"))
    assert (found.rows, found.differences) == (2 * ROWS - 21, ())


@pytest.mark.usefixtures("taken_in")
def test_a_requeued_alert_is_explained(settings: Settings) -> None:
    alerts = table(settings, "alerts", "outbox_seq").filter(pl.col("query_id").str.starts_with("requeue-"))
    found = explain(PlacedAgent(settings, agent()), alerts["alert_id"][0], "customer")
    assert found.adds_up


@pytest.mark.long
def test_requeued_batches_do_not_move_the_stream(settings: Settings) -> None:
    """A lost checkpoint resumes at the offsets of the stream's own newest batch."""
    requeued(settings.home, lambda rows: rows)
    with running(settings) as started:
        ask(settings, waits(settings))
        take_all(started)
    with running(settings) as started:
        assert json.loads(started.stream.starting) == {TOPIC: {"0": 3 * ROWS}}


@pytest.mark.long
def test_rejected_history_is_taken_in_and_its_mark_stays(settings: Settings, tmp_path: Path) -> None:
    path, form = tmp_path / "history.jsonl", "%d.%m.%Y %H:%M:%S"
    german = [
        {**each, "event_time": f"{datetime.fromisoformat(each['event_time']):{form}}"} for each in TOLD[ROWS:]
    ]
    lines = [*TOLD[:ROWS], *german[: ROWS - 1]]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    run_backfill(PlacedAgent(settings, agent()), path)
    dated = CONTRACT.event_time.model_copy(update={"format": form})
    with running(settings) as started:
        ask(settings, waits(settings), CONTRACT.model_copy(update={"event_time": dated}))
        take_all(started)
        feed(started, 0, records(TOLD[2 * ROWS :], 2 * ROWS))
    assert table(settings, "transactions", "sequence").height == 3 * ROWS - 1
    assert unfinished_backfill(PlacedAgent(settings, agent())) is None
    found = run_replay(PlacedAgent(settings, agent()), Span())
    assert (found.backfilled, found.rows, found.differences) == (ROWS, 2 * ROWS - 1, ())


@pytest.mark.usefixtures("taken_in")
def test_labels_on_requeued_payments_count(settings: Settings) -> None:
    judge(PlacedAgent(settings, agent()), [MOVED[0]["tx_id"], MOVED[1]["tx_id"]])
    with running(settings) as started:
        feed(started, 3, records(events(4 * ROWS)[3 * ROWS :], 3 * ROWS))
    assert run_replay(PlacedAgent(settings, agent()), Span()).differences == ()


@pytest.mark.long
@pytest.mark.parametrize(
    "step",
    [
        BatchStep.TAKE,
        BatchStep.DECODE,
        BatchStep.STORE,
        BatchStep.SCORE,
        BatchStep.ALERT,
        BatchStep.PUBLISH,
        BatchStep.CLOSE,
    ],
)
def test_a_request_is_taken_once_whatever_crashes(
    settings: Settings, whole: Settings, home_asked: Path, step: BatchStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "SLICE_RECORDS", 40)
    shutil.copytree(home_asked, settings.home)
    for _ in range(3):
        with pytest.raises(CrashError), running(settings, step) as started:
            take_all(started)
            raise CrashError("nothing was left")
    with running(settings) as started:
        take_all(started)
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    for name, order, columns in (("transactions", "sequence", SAME), ("alerts", "outbox_seq", ALERT)):
        assert table(settings, name, order).select(columns).equals(table(whole, name, order).select(columns))
    assert table(settings, "quarantine", "offset").height == table(whole, "quarantine", "offset").height
    (request,) = read_requests(requeues_place(PlacedAgent(settings, agent())))
    assert request.state == "done"


@pytest.mark.parametrize(
    ("read", "behind", "found"),
    [
        pytest.param(None, False, NOW, id="nothing was read, nothing is to be"),
        pytest.param(NOW - timedelta(hours=5), False, NOW, id="an idle topic"),
        pytest.param(NOW + timedelta(minutes=9), False, NOW + timedelta(minutes=9), id="the broker is ahead"),
        pytest.param(NOW - timedelta(days=3), True, NOW - timedelta(days=3), id="three days to catch up"),
        pytest.param(None, True, None, id="started a moment ago"),
    ],
)
def test_records_arrive_in_the_stream_s_own_time(
    read: datetime | None, behind: bool, found: datetime | None
) -> None:
    assert arrival(NOW, read, behind=behind) == found


def test_a_backlog_s_redeliveries_are_recognised_after_a_request(settings: Settings) -> None:
    """Three days behind: what is taken out of the quarantine must not make the stream forget its ids."""
    read = datetime.fromisoformat(MOVED[-1]["event_time"])
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings))
        moment = arrival(read + timedelta(days=3), started.pipeline.stream_time, behind=True)
        assert moment is not None
        assert abs(moment - read) < timedelta(hours=1)
        take_all(started, moment)
        feed(started, 2, at_moment(records(TOLD[ROWS : ROWS + 5], 2 * ROWS), read))
        within = read - timedelta(minutes=50)
        feed(started, 3, at_moment(records(TOLD[ROWS - 5 : ROWS], 2 * ROWS + 5), within))
    assert table(settings, "duplicates", "offset")["offset"].to_list() == list(range(2 * ROWS, 2 * ROWS + 10))


@pytest.mark.parametrize("behind", [False, True])
def test_a_stamp_ahead_moves_nobody_s_arrival(settings: Settings, behind: bool) -> None:
    """One stamped centuries ahead, alone in the batch before, would make the stream forget all its ids."""
    read = datetime.fromisoformat(MOVED[-1]["event_time"])
    with running(settings) as started:
        two_batches(started)
        feed(started, 2, at_moment(records(TOLD[2 * ROWS : 2 * ROWS + 1], 2 * ROWS), read.replace(year=2900)))
        moment = arrival(read, started.pipeline.stream_time, behind=behind)
        assert moment is not None
        assert abs(moment - read) < timedelta(hours=1)
        ask(settings, waits(settings).filter(pl.col("reason") == "missing_field"))
        take_all(started, moment)
        feed(started, 3, at_moment(records(TOLD[ROWS : ROWS + 5], 2 * ROWS + 1), read))
        within = read - timedelta(minutes=50)
        feed(started, 4, at_moment(records(TOLD[ROWS - 5 : ROWS], 2 * ROWS + 6), within))
    found = table(settings, "duplicates", "offset")["offset"].to_list()
    assert found == list(range(2 * ROWS + 1, 2 * ROWS + 11))


@pytest.mark.long
def test_a_canary_decides_its_share_of_requeued_records(settings: Settings) -> None:
    active = agent(promotion={"canary_percent": 50})
    activate(settings, active)
    put(settings, entry(agent(version="1.1.0", threshold=0.9), "canary", "promoted"))
    requeued(settings.home)
    rows = table(settings, "alerts", "outbox_seq").filter(pl.col("query_id").str.starts_with("requeue-"))
    assert set(rows["spec_version"]) == {"1.0.0", "1.1.0"}
    batches = table(settings, "batches", "closed_at").filter(pl.col("query_id").str.starts_with("requeue-"))
    pins = json.loads(batches["pins"][0])
    assert pins["canary"]["contract_digest"] == pins["contract_digest"] == CORRECTED.digest
    assert run_replay(PlacedAgent(settings, active), Span()).differences == ()


@limits(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_whatever_was_sent_is_shown_on_one_line(content: bytes) -> None:
    out = io.StringIO()
    row = {"key": content, "value": content, "headers": None, "kafka_timestamp": NOW, "reason": "bad_time"}
    row |= {"detail": None, "query_id": "live", "batch_id": 0}
    show_record([row], Terminal(file=out, width=4_000))
    shown = out.getvalue()
    assert all(each.isprintable() for each in shown.replace("\n", ""))
    assert [line.partition(":")[0] for line in shown.splitlines()[:2]] == ["key", "value"]


def test_what_a_corrected_contract_does_not_want_waits_no_longer(settings: Settings) -> None:
    choosy = CORRECTED.model_copy(update={"where": "value > 20"})
    wanted = [each for each in MOVED if isinstance(each["value"], float) and each["value"] > 20]
    with running(settings) as started:
        two_batches(started)
        lake, chosen = settings.lake("tester"), waits(settings)
        horizon = CONTRACT.duplicates.horizon
        trials = RequeueTrials(lake / "quarantine", lake / "transactions", choosy, horizon, NOW)
        facts = trials.of(chosen).facts()
        ask(settings, trials.of(chosen).chosen, choosy)
        take_all(started)
    assert (facts["would_be_stored"], facts["would_be_filtered"]) == (len(wanted), ROWS - len(wanted))
    assert waits(settings).height == 0
    row = table(settings, "batches", "next_sequence").to_dicts()[-1]
    assert (row["read"], row["stored"], row["filtered"]) == (ROWS, len(wanted), ROWS - len(wanted))
    assert json.loads(row["filtered_by_reason"]) == {"where": ROWS - len(wanted) - 1, "where_unknown": 1}
