"""Alerts that wait for a late answer: which they are, what is asked, and when one is given up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from agent.budget import SpendingBudget
from agent.labels import Labeller
from agent.late import Unanswered
from agent.ledger import MemoryLedger
from agent.llm_client import CircuitBreaker, LlmClient
from agent.prompts import load_prompt
from agent.pseudonyms import Pseudonyms
from agent.triage import POLICIES, FlaggedRow, Triage, TriageResult
from schemas.alert import ALERTS, Reason, alert_ids, alerts_table, entities_array, reasons_array
from schemas.policy import load_policy
from schemas.spec import Budget, Llm, PromptReference, Rule
from schemas.tables import LATE
from streaming.batch import late_windows
from streaming.batch.late_windows import (
    LateJournal,
    Newest,
    Window,
    answered_since,
    deferred,
    flagged_rows,
    next_window,
    revised,
    texts_of,
)
from streaming.delta.lake import LakeTable, Stamp
from tests import scripted_llm as scripted

NOW = datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=3)
LABELLER = Labeller([Rule(name="large", when="amount > 1", severity="critical", reason="too large")])
KINDS = (
    (Reason("amount.customer", 5.0, "amount 40x usual"), Reason("rate.terminal", -0.5, "calm")),
    (Reason("rate.terminal", 4.0, "9 in an hour"),),
    (Reason("novelty.customer", 3.0, "never seen"),),
)


def row(number: int, rules: tuple[str, ...] = ()) -> FlaggedRow:
    reasons, score = KINDS[number % 3], 0.99 + (number % 90) / 10_000
    return FlaggedRow(
        alert_id=alert_ids("cards", [f"t{number}"])[0],
        transaction_id=f"t{number}",
        amount=100.0,
        currency="EUR",
        entities={"customer": f"c{number}", "terminal": "m1"},
        event_time=NOW,
        score=score,
        reasons=reasons,
        rules=rules,
        label=LABELLER.label(score, reasons, rules),
        untrusted={"memo": f"memo {number}"},
    )


ROWS = [row(number) for number in range(30)]


@contextmanager
def triage(
    server: scripted.ScriptedLlm,
    *,
    seconds: float = 5.0,
    calls: int = 8,
    mode: str = "deferred",
    ledger: MemoryLedger | None = None,
    tokens: int = 10**9,
    failures: int = 1000,
) -> Iterator[Triage]:
    llm = Llm(
        mode=mode,  # type: ignore[arg-type]  # one of two words
        base_url=server.base_url,
        max_concurrency=1,
        groups_per_request=1,
        deadline=timedelta(seconds=seconds),
        budget=Budget(calls_per_batch=calls, tokens_per_day=tokens),
    )
    with LlmClient(llm, breaker=CircuitBreaker(failures)) as client:
        yield Triage(
            llm,
            load_prompt(PromptReference(), "amount: amount, number"),
            client,
            ledger=ledger or MemoryLedger(),
            budget=SpendingBudget(llm.budget, lambda: NOW),
            policy=load_policy("default", POLICIES),
            pseudonyms=Pseudonyms(b"a key of thirty-two bytes, no less"),
        )


@pytest.mark.parametrize(("mode", "reasons", "asked"), [("deferred", {"deferred"}, 0), ("inline", {None}, 3)])
def test_a_batch_asks_the_model_in_inline_mode_alone(mode: str, reasons: set[Any], asked: int) -> None:
    with scripted.scripted_llm() as server, triage(server, mode=mode) as deciding:
        result = deciding.decide(ROWS)
        assert {verdict.fallback_reason for verdict in result.verdicts} == reasons
        assert len(server.requests) == asked


def test_all_are_answered_round_by_round_when_one_round_has_calls_for_some() -> None:
    with scripted.scripted_llm() as server, triage(server, calls=2) as asking:
        work = Unanswered(ROWS, asking)
        first, second = work.ask(), work.ask()
    assert (len(first.answers), len(second.answers)) == (20, 10)
    assert first.answers.keys() | second.answers.keys() == {each.alert_id for each in ROWS}
    assert (work.waiting, work.given_up, len(server.requests)) == (0, 0, 3)


def test_an_answer_of_no_use_is_asked_for_three_times() -> None:
    script = [scripted.says("no idea")] * 3
    with scripted.scripted_llm(*script) as server, triage(server, calls=1) as asking:
        work = Unanswered(ROWS[:1], asking)
        waiting = []
        while work.waiting:
            assert work.ask().answers == {}
            waiting.append(work.waiting)
    assert (waiting, work.given_up, len(server.requests)) == ([1, 1, 0], 1, 3)


def test_a_server_that_is_down_costs_no_attempt() -> None:
    script = [scripted.fails(503)] * 4 * 3
    with scripted.scripted_llm(*script) as server, triage(server, seconds=0.6) as asking:
        work = Unanswered(ROWS[:1], asking)
        while not (answers := work.ask().answers):
            assert work.waiting == 1
        assert len(server.requests) == 13
    assert (set(answers), work.given_up) == ({ROWS[0].alert_id}, 0)


def test_without_budget_alerts_wait_until_they_are_given_up() -> None:
    with scripted.scripted_llm() as server, triage(server, tokens=10) as asking:
        work = Unanswered(ROWS, asking)
        for _ in range(5):
            assert work.ask().result.calls == 0
        assert (work.waiting, work.given_up) == (30, 0)
        work.give_up()
        assert (work.waiting, work.given_up, server.requests) == (0, 30, [])


def test_questions_begun_by_another_are_answered_from_the_record() -> None:
    ledger = MemoryLedger()
    with scripted.scripted_llm() as server, triage(server, ledger=ledger) as asking:
        before = Unanswered(ROWS, asking).ask()
        again = Unanswered(ROWS, asking).ask()
        assert len(server.requests) == 3
    assert again.answers.keys() == before.answers.keys()
    assert (again.result.calls, again.result.reused) == (0, 3)


def stored_alerts(
    count: int, first: int = 0, reason: str | None = "deferred", rules: tuple[str, ...] = ()
) -> pa.Table:
    rows = [row(number, rules) for number in range(first, first + count)]
    columns = {
        **{name: [None] * count for name in TriageResult(()).columns()},
        "classification": [each.label.classification for each in rows],
        "severity": [each.label.severity for each in rows],
        "rationale": [each.label.rationale for each in rows],
        "classification_source": ["rules"] * count,
        "fallback_reason": [reason] * count,
        "alert_id": [each.alert_id for each in rows],
        "transaction_id": [each.transaction_id for each in rows],
        "amount": [each.amount for each in rows],
        "event_time": [each.event_time for each in rows],
        "score": [each.score for each in rows],
        "entities": entities_array(
            {name: [each.entities[name] for each in rows] for name in ("customer", "terminal")}
        ),
        "reasons": reasons_array([each.reasons for each in rows]),
        "rules": [list(each.rules) for each in rows],
        "sequence": [3 * number for number in range(first, first + count)],
        "outbox_seq": list(range(first, first + count)),
    }
    constants = {
        **{"agent": "cards", "spec_version": "1", "rules_version": "1", "query_id": "q", "batch_id": 0},
        **{"currency": "EUR", "base": 0.0, "log_odds": 0.0, "own_evidence": 0.0, "created_at": NOW},
    }
    return alerts_table(columns, constants)


def a_table(folder: Path, name: str, schema: pa.Schema, *parts: pa.Table) -> LakeTable:
    table = LakeTable(folder / name, schema, "cards/epoch", timedelta(days=30))
    table.claim(table.epoch + 1)
    for number, part in enumerate(parts):
        table.append(part, Stamp("filled", number))
    return table


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
        answers = Unanswered(flagged_rows(alerts, {}), asking).ask().answers
    late = revised(alerts, answers, LATER)
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

    assert journal().newest() == Newest(Window(0, 0), closed=True)
    first = journal()
    first.opened(Window(3, 9), alerts=5)
    first.asked(Window(3, 9), TriageResult((), calls=2, input_tokens=200, output_tokens=40, cost=0.5))
    assert journal().newest() == Newest(Window(3, 9), closed=False)
    second = journal()
    second.closed(Window(3, 9), given_up=1)
    assert journal().newest() == Newest(Window(3, 9), closed=True)
    rows = a_table(tmp_path, "late", LATE).read("commit", 0).to_pylist()
    assert [each["event"] for each in rows] == ["opened", "asked", "closed"]
    sums = {
        name: sum(each[name] for each in rows) for name in ("alerts", "given_up", "llm_calls", "cost_usd")
    }
    assert sums == {"alerts": 5, "given_up": 1, "llm_calls": 2, "cost_usd": 0.5}
