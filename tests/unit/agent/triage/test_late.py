"""Alerts that wait for a late answer: which they are, what is asked, and when one is given up."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from agent.triage.inquiries import Collected
from agent.triage.late import Unanswered
from agent.triage.ledger import MemoryLedger
from agent.triage.triage import Classification, TriageResult
from schemas.alert import ALERTS
from schemas.errors import DiskError
from schemas.tables import LATE
from streaming.batch import late_windows
from streaming.batch.late_windows import (
    LateJournal,
    LateProgress,
    LateWindow,
    answered_since,
    deferred,
    flagged_rows,
    next_window,
    revised,
    texts_of,
)
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.store.place import Place
from streaming.testing import scripted_llm as scripted
from tests.late_samples import LATER, NOW, ROWS, a_table, row, stored_alerts, triage, working


def worked_off(work: Unanswered, seconds: float = 60.0) -> dict[str, Classification]:
    """Ask until no alert waits any more; return the classifications by alert id."""
    asking, answers, latest = work.triage.inquiries, dict[str, Classification](), time.monotonic() + seconds
    while work.waiting:
        assert time.monotonic() < latest, "in time"
        asking.begin(work.cases, "window")
        found = asking.collect(0.05) if asking.keys else pause()
        answers |= work.settle(found.answers, found.given_up)
    return answers


def pause() -> Collected:
    time.sleep(0.01)  # a group rests by the clock
    return Collected()


@pytest.mark.parametrize(("mode", "reasons", "asked"), [("deferred", {"deferred"}, 0), ("inline", {None}, 3)])
def test_a_batch_asks_the_model_in_inline_mode_alone(mode: str, reasons: set[Any], asked: int) -> None:
    with scripted.scripted_llm() as server, triage(server, mode=mode) as deciding:
        result = deciding.decide(ROWS)
        assert {each.fallback_reason for each in result.classifications} == reasons
        assert len(server.requests) == asked


def test_all_are_answered_however_few_calls_may_be_under_way() -> None:
    with scripted.scripted_llm() as server, triage(server, calls=2) as asking:
        work = Unanswered(ROWS, asking)
        answers = worked_off(work)
        assert len(server.requests) == 3
    assert answers.keys() == {each.alert_id for each in ROWS}
    assert (work.waiting, work.given_up) == (0, 0)


@pytest.mark.parametrize(
    "useless",
    [
        scripted.says("no idea"),
        scripted.says("{}"),
        scripted.answer(classification="nonsense"),
        scripted.answer(evidence=["amount=1000000"]),
    ],
    ids=["invalid_json", "wrong_id", "wrong_enum", "evidence_mismatch"],
)
def test_an_answer_of_no_use_is_asked_for_once_more(useless: scripted.Step) -> None:
    with scripted.scripted_llm(*[useless] * 3) as server, triage(server, calls=1) as asking:
        work = Unanswered(ROWS[:1], asking)
        assert worked_off(work) == {}
        assert (work.waiting, work.given_up, len(server.requests)) == (0, 1, 2)


def test_an_answer_of_no_use_leaves_a_group_its_second_chance() -> None:
    with scripted.scripted_llm(scripted.says("no idea")) as server, triage(server, calls=1) as asking:
        work = Unanswered(ROWS[:1], asking)
        assert worked_off(work).keys() == {ROWS[0].alert_id}
        assert (work.waiting, work.given_up, len(server.requests)) == (0, 0, 2)


def test_a_server_that_is_down_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    for waited in ("agent.model.chat_endpoint._FIRST_BACKOFF_SECONDS", "agent.triage.inquiries._FIRST_REST"):
        monkeypatch.setattr(waited, 0.01)
    script = [scripted.fails(503)] * 4 * 3
    with scripted.scripted_llm(*script) as server, triage(server, seconds=0.6) as asking:
        work = Unanswered(ROWS[:1], asking)
        answers = worked_off(work)
        assert len(server.requests) == 13
    assert (set(answers), work.given_up) == ({ROWS[0].alert_id}, 0)


def test_a_server_that_counts_no_tokens_answers_all_the_same() -> None:
    def step(request: scripted.LlmRequest) -> scripted.LlmReply:
        return scripted.LlmReply(body={**scripted.completion(scripted.classification(request)), "usage": {}})

    with scripted.scripted_llm(default=step) as server, triage(server) as asking:
        assert worked_off(Unanswered(ROWS, asking)).keys() == {each.alert_id for each in ROWS}
        assert len(server.requests) == 3


def test_without_budget_alerts_wait_until_they_are_given_up() -> None:
    with scripted.scripted_llm() as server, triage(server, tokens=10) as asking:
        work = Unanswered(ROWS, asking)
        for _ in range(5):
            assert asking.inquiries.begin(work.cases, "window") == 0
        assert (work.waiting, work.given_up) == (30, 0)
        work.give_up()
        assert (work.waiting, work.given_up, server.requests) == (0, 30, [])


def test_questions_begun_by_another_are_answered_from_the_record() -> None:
    ledger = MemoryLedger()
    with scripted.scripted_llm() as server, triage(server, ledger=ledger) as asking:
        before = worked_off(Unanswered(ROWS, asking))
        again = Unanswered(ROWS, asking)
        assert again.settle(again.recorded()) == before
        assert (again.waiting, len(server.requests)) == (0, 3)


@pytest.mark.parametrize("hit", [(), ("large",)])
def test_stored_alerts_make_the_question_that_their_batch_would_have_asked(hit: tuple[str, ...]) -> None:
    texts = {3 * number: {"memo": f"memo {number}"} for number in range(9)}
    again = flagged_rows(stored_alerts(9, rules=hit), texts)
    assert again == [row(number, hit) for number in range(9)]


def test_free_texts_come_from_the_transactions(tmp_path: Path) -> None:
    schema = pa.schema([("sequence", pa.int64()), ("memo", pa.string())])
    rows = pa.table({"sequence": range(12), "memo": [None, "x"] * 6}, schema=schema)
    table = a_table(tmp_path, "transactions", schema, rows)
    assert texts_of(table, stored_alerts(4), ["memo"]) == {
        0: {}, 3: {"memo": "x"}, 6: {}, 9: {"memo": "x"},
    }  # fmt: skip
    assert texts_of(table, stored_alerts(4), []) == {}


def test_windows_hold_the_deferred_alerts_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_windows, "_MOST_ALERTS", 4)
    monkeypatch.setattr(late_windows, "_LOOK_AHEAD", 8)
    parts = [stored_alerts(9, reason="llm_off"), stored_alerts(6, 9), stored_alerts(2, 15, reason=None)]
    alerts = a_table(tmp_path, "alerts", ALERTS, *parts)
    windows, first = [], 0
    while first < 17:
        windows.append(next_window(alerts, first, 17))
        first = windows[-1].end
    assert windows == [(8, 8), (9, 13), (13, 15), (17, 17)]
    assert deferred(alerts.read("outbox_seq", 0))["outbox_seq"].to_pylist() == list(range(9, 15))


def test_alerts_of_a_version_with_a_model_of_its_own_make_windows_of_their_own(tmp_path: Path) -> None:
    versions = ["1.0.0"] * 3 + ["1.1.0"] * 2 + ["1.0.0"] * 4
    rows = stored_alerts(len(versions))
    place = rows.schema.get_field_index("spec_version")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(versions))
    alerts = a_table(tmp_path, "alerts", ALERTS, rows)
    canary = frozenset({"1.1.0"})
    assert next_window(alerts, 0, 9) == (0, 9)
    assert [next_window(alerts, first, 9, canary) for first in (0, 3, 5)] == [(0, 3), (3, 5), (5, 9)]


def test_a_revision_changes_what_the_model_says_and_nothing_else(tmp_path: Path) -> None:
    alerts = stored_alerts(30)
    with scripted.scripted_llm() as server, triage(server, calls=1) as asking:
        work = Unanswered(flagged_rows(alerts, {}), asking)
        asking.inquiries.begin(work.cases, "window")
        answers = work.settle(asking.inquiries.collect(30).answers)
    late = revised(alerts, answers, LATER, 900_000)
    said = {
        **{"revision": 2, "created_at": LATER, "classification": "card_testing", "severity": "high"},
        **{"rationale": "rapid small amounts", "classification_source": "llm", "fallback_reason": None},
        **{"model": "local", "prompt_id": "triage", "prompt_version": 2},
        "evidence": list(next(iter(answers.values())).evidence),
    }
    first = [each for each in alerts.to_pylist() if each["alert_id"] in answers]
    assert late.schema == ALERTS
    assert late.to_pylist() == [{**each, **said} for each in first]
    assert len(first) == 10
    table = a_table(tmp_path, "alerts", ALERTS, alerts, late)
    assert answered_since(table, 0) == answers.keys()
    assert deferred(table.read("outbox_seq", 0)).num_rows == 30, "revision 1 stays what it was"


def test_the_journal_tells_where_a_predecessor_ended(tmp_path: Path) -> None:
    def journal() -> LateJournal:
        return LateJournal(a_table(tmp_path, "late", LATE), "cards", lambda: NOW)

    first, second, third = LateWindow(3, 9), LateWindow(9, 12), LateWindow(15, 20)
    took = TriageResult((), calls=2, input_tokens=200, output_tokens=40, cost=0.5)
    steps: list[tuple[Callable[[LateJournal], None], LateProgress]] = [
        (lambda _: None, LateProgress((), 0)),
        (lambda each: each.opened(first, alerts=5), LateProgress((first,), 9)),
        (lambda each: each.asked(first, took), LateProgress((first,), 9)),
        (lambda each: each.opened(second, alerts=3), LateProgress((first, second), 12)),
        (lambda each: each.opened(third, alerts=4), LateProgress((first, second, third), 20)),
        (lambda each: each.closed(second, given_up=1), LateProgress((first, third), 20)),
        (lambda each: each.closed(first, given_up=0), LateProgress((third,), 20)),
        (lambda each: each.closed(third, given_up=0), LateProgress((), 20)),
    ]
    for step, expected in steps:
        writing = journal()
        writing.resume()
        step(writing)
        assert journal().resume() == expected
    rows = a_table(tmp_path, "late", LATE).read("commit", 0).to_pylist()
    events = ["opened", "asked", "opened", "opened", "closed", "closed", "closed"]
    assert [each["event"] for each in rows] == events
    sums = {
        name: sum(each[name] for each in rows) for name in ("alerts", "given_up", "llm_calls", "cost_usd")
    }
    assert sums == {"alerts": 12, "given_up": 1, "llm_calls": 2, "cost_usd": 0.5}


def test_all_outcomes_reach_the_audit_log_though_the_journal_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = list[TriageResult]()

    def full(*_: object) -> None:
        raise DiskError("no space left")

    took = [(LateWindow(at, at + 3), TriageResult((), calls=1 + at)) for at in (0, 3)]
    with scripted.scripted_llm() as server, triage(server) as asking, working(tmp_path, asking) as late:
        monkeypatch.setattr(LateJournal, "asked", full)
        monkeypatch.setattr(late.answers, "_on_answers", lambda results, _: heard.extend(results))
        with pytest.raises(DiskError):
            late.answers._note(took)
    assert heard == [result for _, result in took]


def test_a_table_of_the_time_when_one_window_was_open_is_gone_on_with(tmp_path: Path) -> None:
    old = a_table(tmp_path, "late", LATE)
    writing = LateJournal(old, "cards", lambda: NOW)
    for window in (LateWindow(0, 4), LateWindow(4, 9)):
        writing.opened(window, alerts=1)
        writing.closed(window, given_up=0)
    writing.opened(LateWindow(9, 11), alerts=1)
    plain = old.read("commit", 0)
    place = plain.schema.get_field_index("open_from")
    plain = plain.set_column(place, plain.schema.field(place), pa.nulls(plain.num_rows, pa.int64()))
    for rows, expected in (
        (plain, LateProgress((LateWindow(9, 11),), 11)),
        (plain.slice(0, 4), LateProgress((), 9)),
    ):
        folder = tmp_path / str(rows.num_rows)
        table = LakeTable(Place.local(folder), LATE, "cards/epoch", timedelta(days=30))
        table.claim(1)
        for commit in range(rows.num_rows):
            table.append(rows.slice(commit, 1), Stamp("cards/late", commit))
        assert LateJournal(table, "cards", lambda: NOW).resume() == expected
