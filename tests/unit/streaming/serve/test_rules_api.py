"""Figures of rules are what counting alert by alert gives; recall finds frauds that nobody was alerted to."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.spec import AgentSpec
from streaming.delta.erasure_plan import Erasable
from streaming.delta.whole_tables import read_stored
from streaming.erasure.erasing import Erasure
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.inbox.alert_rows import AlertRows
from streaming.inbox.columns import WordColumn
from streaming.inbox.fields import InboxFields
from streaming.inbox.view import InboxView
from streaming.serve.rule_figures import LEAST_JUDGED, DaySpan, RuleTally, labelled_share
from streaming.serve.spec_differences import differences
from streaming.testing.api import ApiClient, api_of
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import judge
from streaming.testing.small_lake import BUSY_ALERTS, build_lake, next_batch, spec_of
from streaming.versions.moving import complete
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.registry_table import RegistryTable, registry_place
from streaming.versions.registry_watch import spec_in_force
from tests.browser_session import console_of

SPEC = spec_of()
DAY = date(2026, 5, 1)
SPAN = DaySpan(date(2026, 4, 28), date(2026, 5, 2))
UNALERTED = ["t00003", "t00007", "t00011"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings.load(tmp_path_factory.mktemp("ruled"), {})
    placed = PlacedAgent(settings, SPEC)
    build_lake(placed)
    stored = read_stored(placed.lake / "alerts", ["transaction_id"])
    assert stored is not None
    judge(placed, [*stored["transaction_id"].to_pylist()[:9], *UNALERTED, "stranger"])
    return settings


@pytest.fixture(scope="module")
def client(home: Settings) -> Iterator[ApiClient]:
    with api_of(home, SPEC) as asked:
        asked.headers.update(asked.bearer(SPEC, "operate"))
        wait_until(lambda: asked.get("/readyz").status_code == 200, 60, "the alerts to be read")
        yield asked


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_rule_s_figures_are_those_of_its_alerts(client: ApiClient) -> None:
    found = ok(client.get("/v1/rules?days=3"))
    assert (found["version"], found["threshold"], found["until"]) == ("1.0.0", 0.999, str(DAY))
    (large,) = found["rules"]
    alerts = ok(client.get("/v1/alerts?limit=200&filter=rule+%3D+large"))["alerts"]
    assert large["per_day"] == [0, 0, len(alerts)] == [0, 0, BUSY_ALERTS]
    assert large["condition"] == "when amount > 1000"
    frauds = [each for each in alerts if each["label"] == "fraud"]
    assert (large["labels"]["judged"], large["labels"]["precision"]) == (len(frauds), None)
    assert len(frauds) < LEAST_JUDGED
    assert large["amounts"] == {"EUR": pytest.approx(sum(each["amount"] for each in alerts))}
    assert large["fraud_amounts"] == {"EUR": pytest.approx(sum(each["amount"] for each in frauds))}
    none = ok(client.get(f"/v1/rules?days=3&until={date(2026, 4, 1)}"))
    assert (none["rules"][0]["per_day"], none["score"]["alerts"], none["steps"]) == ([0, 0, 0], 0, [])


def test_recall_names_the_frauds_that_were_missed_and_a_what_if_their_scores(client: ApiClient) -> None:
    before = ok(client.get("/v1/rules/recall"))
    assert (before["frauds"], before["caught"], before["not_stored"]) == (12, 9, 1)
    assert before["recall"] == 0.75
    assert before["by_why"] == {"below_threshold": 3}
    assert sorted(each["transaction_id"] for each in before["missed"]) == UNALERTED
    assert {each["score"] for each in before["missed"]} == {None}
    started = ok(client.post("/v1/what-ifs", json={"changes": {}}), 202)
    wait_until(
        lambda: ok(client.get(f"/v1/what-ifs/{started['job_id']}"))["state"] == "done", 60, "the what-if"
    )
    report = ok(client.get(f"/v1/what-ifs/{started['job_id']}/report"))["missed"]
    assert (report["count"], report["by_why"]) == (3, {"below_threshold": 3})
    after = ok(client.get("/v1/rules/recall"))
    for each in after["missed"]:
        assert 0 < each["score"] < each["threshold"] == 0.999
    assert sum(after["missed_amounts"].values()) == pytest.approx(
        sum(each["amount"] for each in report["largest"])
    )


def test_an_edit_says_what_it_differs_in_and_what_money_it_moves(client: ApiClient) -> None:
    order = {"changes": {"rules": []}}
    started = ok(client.post("/v1/what-ifs", json=order), 202)
    assert started["order"]["changes"] == order["changes"]
    assert [each["key"] for each in started["differences"]] == ["rules.large"]
    wait_until(
        lambda: ok(client.get(f"/v1/what-ifs/{started['job_id']}"))["state"] == "done", 60, "the what-if"
    )
    report = ok(client.get(f"/v1/what-ifs/{started['job_id']}/report"))
    gone = report["moved"]["money"]["removed"]["EUR"]
    shown = report["moved"]["largest"]["removed"]
    assert gone["alerts"] == report["removed"] == len(shown) > 0
    assert gone["amount"] == pytest.approx(sum(each["amount"] for each in shown))
    assert gone["frauds"] == sum(each["is_fraud"] is True for each in shown)
    assert report["moved"]["money"]["added"] == {}
    for each in shown:
        assert ok(client.get(f"/v1/alerts/{each['alert_id']}"))["alert"]["amount"] == each["amount"]


def test_a_day_that_no_payment_can_have_is_refused(client: ApiClient) -> None:
    for path in ("/v1/rules", "/v1/rules/recall"):
        for until in ("0001-01-01", "9999-12-31"):
            answer = client.get(path, params={"until": until, "days": 366})
            assert (answer.status_code, answer.json()["where"]) == (400, "until")
        for until in ("1971-01-01", "9000-01-01"):
            assert client.get(path, params={"until": until, "days": 366}).status_code == 200


def test_a_fraud_that_another_version_would_have_alerted_is_said_to_be(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    first = complete(SPEC)
    placed = PlacedAgent(settings, first)
    build_lake(placed)
    judge(placed, UNALERTED)
    registry = SpecRegistry(placed)
    registry.add(first, Author("anna", "first"))
    everything = [{"name": "all", "when": "amount > 0", "severity": "low", "reason": "all"}]
    with api_of(settings, first) as client:
        client.headers.update(client.bearer(first, "operate"))
        wait_until(lambda: client.get("/readyz").status_code == 200, 60, "the alerts to be read")
        explain(client)
        assert ok(client.get("/v1/rules/recall"))["missed"][0]["score"] is not None
        registry.add(complete(spec_of(version="2.0.0", rules=everything)), Author("anna", "all"))
        before, after = (each for each in registry.entries() if each.event == "added")
        moves = [
            replace(after, event="promoted", stage="active"),
            replace(before, event="replaced", stage="retired"),
        ]
        RegistryTable(registry_place(placed), first.replay_horizon).write(lambda _: moves)
        assert spec_in_force(placed).version == "2.0.0"
        found = ok(client.get("/v1/rules/recall"))
        assert {each["score"] for each in found["missed"]} == {None}, "by a version that is none in force"
        explain(client)
        found = ok(client.get("/v1/rules/recall"))
        assert found["by_why"] == {"since_changed": len(UNALERTED)}


def explain(client: ApiClient, **more: Any) -> str:
    job: str = ok(client.post("/v1/what-ifs", json={"changes": {}, **more}), 202)["job_id"]
    wait_until(lambda: ok(client.get(f"/v1/what-ifs/{job}"))["state"] == "done", 60, "the what-if")
    return job


@contextmanager
def served(tmp_path: Path, spec: AgentSpec, labelled: Sequence[str], days: int = 1) -> Iterator[ApiClient]:
    """An agent of a lake of its own, some of whose payments are labelled as frauds."""
    settings = Settings.load(tmp_path / "home", {})
    placed = PlacedAgent(settings, spec)
    build_lake(placed)
    for _ in range(1, days):
        next_batch(placed)
    judge(placed, labelled)
    with api_of(settings, spec) as client:
        client.headers.update(client.bearer(spec, "operate"))
        wait_until(lambda: client.get("/readyz").status_code == 200, 60, "the alerts to be read")
        yield client


def test_scores_of_a_what_if_with_blank_profiles_are_nobody_s(tmp_path: Path) -> None:
    late = ["t00603", "t00900"]
    with served(tmp_path, SPEC, late, days=2) as client:
        job = explain(client, from_time=f"{DAY + timedelta(days=1)}T00:00:00", warm_up="1h")
        report = ok(client.get(f"/v1/what-ifs/{job}/report"))
        assert report["cold_from"] is not None
        assert report["missed"]["count"] > 0
        found = ok(client.get("/v1/rules/recall"))
        assert {each["score"] for each in found["missed"]} == {None}
        assert found["by_why"] == {"below_threshold": len(late)}
        explain(client)
        assert ok(client.get("/v1/rules/recall"))["missed"] != found["missed"]


def test_what_a_what_if_has_found_is_dropped_once_rows_are_erased(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"policyName": "strict", "erasure": True}))
    spec = spec_of(policy)
    with served(tmp_path, spec, UNALERTED) as client:
        job = explain(client)
        before = ok(client.get(f"/v1/what-ifs/{job}/report"))["missed"]["largest"]
        gone = before[0]["entity"]
        placed = PlacedAgent(Settings.load(tmp_path / "home", {}), spec)
        Erasure(placed).run([Erasable("customer", gone)], "anna", "asked for it")
        answer = client.get(f"/v1/what-ifs/{job}/report")
        assert answer.status_code == 409
        assert "outdated" in answer.json()["detail"]
        assert ok(client.get(f"/v1/what-ifs/{job}"))["state"] == "outdated"
        found = ok(client.get("/v1/rules/recall"))
        assert {each["score"] for each in found["missed"]} == {None}
        again = explain(client)
        after = ok(client.get(f"/v1/what-ifs/{again}/report"))["missed"]["largest"]
        assert gone not in {each["entity"] for each in after}


def test_a_rule_may_be_called_score(tmp_path: Path) -> None:
    spec = spec_of(rules=[{"name": "score", "when": "amount > 1000", "severity": "high", "reason": "large"}])
    placed = PlacedAgent(Settings.load(tmp_path / "home", {}), spec)
    with served(tmp_path, spec, ()) as client:
        stored = read_stored(placed.lake / "alerts", ["transaction_id", "rules"])
        assert stored is not None
        rows = stored.to_pylist()
        hit = {row["transaction_id"] for row in rows if row["rules"]}
        alone = {row["transaction_id"] for row in rows} - hit
        judge(placed, sorted(hit | alone))
        wait_until(lambda: ok(client.get("/v1/rules/recall"))["frauds"] == len(hit | alone), 60, "labels")
        wait_until(lambda: ok(client.get("/v1/rules/recall"))["caught"] == len(hit | alone), 60, "labels")
        found = ok(client.get("/v1/rules/recall"))
        assert found["caught_by"] == {"score": len(hit)}
        assert found["caught_by_score"] == len(alone)


def test_a_condition_that_cannot_be_used_is_refused_at_once(client: ApiClient) -> None:
    before = len(ok(client.get("/v1/what-ifs")))
    for when, said in (("amount >", "rules.0.when"), ("no_such_column > 1", "no_such_column")):
        rule = {"name": "large", "when": when, "severity": "high", "reason": "large"}
        answer = client.post("/v1/what-ifs", json={"changes": {"rules": [rule]}})
        assert answer.status_code == 400
        assert said in answer.json()["detail"] + str(answer.json().get("where"))
    assert len(ok(client.get("/v1/what-ifs"))) == before


def test_the_rules_shown_are_those_that_decide_and_not_their_file_as_it_is_now(tmp_path: Path) -> None:
    def written(when: str) -> None:
        rules = [{"name": "large", "when": when, "severity": "high", "reason": "large"}]
        (tmp_path / "rules.yaml").write_text(json.dumps({"rules": rules}), encoding="utf-8")

    written("amount > 1000")
    spec = spec_of(rules=[], rules_file=str(tmp_path / "rules.yaml"))
    settings = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(settings, complete(spec)))
    written("amount > 7")
    with api_of(settings, spec) as client:
        client.headers.update(client.bearer(spec, "read"))
        table = ok(client.get("/v1/rules"))
        assert [each["condition"] for each in table["rules"]] == ["when amount > 1000"]
        assert table["decided_at"] is not None
    newer = spec.model_copy(update={"version": "1.1.0"})
    with api_of(settings, newer) as client:
        client.headers.update(client.bearer(newer, "read", name="bert"))
        table = ok(client.get("/v1/rules"))
        assert [each["condition"] for each in table["rules"]] == ["when amount > 7"]
        assert (table["version"], table["decided_at"]) == ("1.1.0", None), "no batch has been decided so"


def test_alerts_that_no_rule_has_hit_are_asked_for_however_many_rules_there_are(tmp_path: Path) -> None:
    many = [
        {"name": f"a_rule_with_a_long_name_{n:04}", "when": "amount > 1e9", "severity": "low", "reason": "r"}
        for n in range(400)
    ]
    large = {"name": "large", "when": "amount > 1000", "severity": "high", "reason": "large"}
    spec, settings = spec_of(rules=[large, *many]), Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(settings, spec))
    with console_of(settings, spec) as client:
        client.server.agents[spec.name].inbox.refresh()
        client.headers.update(client.bearer(spec, "read"))
        table = ok(client.get("/v1/rules"))
        found = ok(client.get("/v1/alerts", params={"filter": 'rule = ""', "limit": 500}))
        assert found["total"] == table["score"]["alerts"]
        assert all(not each["rules"] for each in found["alerts"])
        with_rules = ok(client.get("/v1/alerts", params={"filter": 'rule != ""'}))
        assert with_rules["total"] == table["rules"][0]["alerts"] == BUSY_ALERTS
        (link,) = re.findall(r'href="([^"]+)">Score alone', client.get("/console/rules").text)
        assert f"<title>{found['total']} alert" in client.get(unescape(link)).text


def test_days_without_payments_divide_nothing(client: ApiClient) -> None:
    assert ok(client.get("/v1/rules?days=1"))["days_with_payments"] == 1
    assert ok(client.get("/v1/rules?days=14"))["days_with_payments"] == 1
    assert ok(client.get(f"/v1/rules?days=3&until={date(2026, 4, 1)}"))["days_with_payments"] == 0


def refunds_of(scores: np.ndarray[Any, Any]) -> WordColumn:
    """Those of one score are refunds."""
    return WordColumn((scores == REFUNDED).astype(np.int32), [None, "refund"])


def view_of(rows: list[tuple[int, str | None, str, str, float]]) -> InboxView:
    """Rows are day of 2026 May, rules, label, currency and score; the amount is a hundred scores."""

    def words(place: int) -> WordColumn:
        known = [None, *sorted({str(row[place]) for row in rows if row[place] is not None})]
        return WordColumn(np.array([known.index(row[place]) for row in rows], np.int32), known)

    at = [
        int(datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp() * 1e6) + row[0] * 86_400_000_000 for row in rows
    ]
    scores = np.array([row[4] for row in rows], np.float64)
    places = np.arange(len(rows))
    return InboxView(
        InboxFields(()), len(rows), places, places,
        {"time": np.array(at, np.int64), "amount": scores * 100, "score": scores},
        {"rule": words(1), "label": words(2), "currency": words(3), "direction": refunds_of(scores)},
        {"transaction": pa.chunked_array([[f"t{each}" for each in places]], pa.large_string())}, AlertRows(),
    )  # fmt: skip


REFUNDED = 0.95
some_rows = st.lists(
    st.tuples(
        st.integers(-5, 5),
        st.sampled_from([None, "a", "b", "a b"]),
        st.sampled_from(["fraud", "genuine", "none"]),
        st.sampled_from(["EUR", "USD"]),
        st.sampled_from([0.91, 0.95, 0.99, 0.995]),
    ),
    max_size=40,
)


@given(some_rows)
def test_counting_at_once_is_counting_one_by_one(rows: list[tuple[int, str | None, str, str, float]]) -> None:
    tally = RuleTally(view_of(rows), SPAN)
    inside = [row for row in rows if -3 <= row[0] <= 1]
    assert tally.named() == sorted({name for row in inside for name in (row[1] or "").split()})
    for name in ("a", "b", None):
        mine = [row for row in inside if (name in (row[1] or "").split() if name else not row[1])]
        found = tally.of_score() if name is None else tally.of_rule(name, None)
        assert found.alerts == len(mine) == sum(found.per_day)
        assert found.per_day == [sum(row[0] == day for row in mine) for day in range(-3, 2)]
        assert found.alone == sum(row[1] == name for row in mine)
        assert found.labels.frauds == sum(row[2] == "fraud" for row in mine)
        assert found.labels.judged == sum(row[2] != "none" for row in mine)
        for currency in ("EUR", "USD"):
            of_it = [row for row in mine if row[3] == currency]
            for is_refund, sums, frauds in (
                (False, found.amounts, found.fraud_amounts), (True, found.refunds, found.fraud_refunds),
            ):  # fmt: skip
                those = [row for row in of_it if (row[4] == REFUNDED) is is_refund]
                assert sums.get(currency, 0.0) == pytest.approx(sum(row[4] * 100 for row in those), abs=0.01)
                fraud = sum(row[4] * 100 for row in those if row[2] == "fraud")
                assert frauds.get(currency, 0.0) == pytest.approx(fraud, abs=0.01)


@given(some_rows)
def test_a_step_keeps_what_reaches_its_threshold(rows: list[tuple[int, str | None, str, str, float]]) -> None:
    mine = [row for row in rows if -3 <= row[0] <= 1 and not row[1]]
    for step in RuleTally(view_of(rows), SPAN).steps(5):
        kept = [row for row in mine if row[4] >= step.threshold]
        lost = [row for row in mine if row[4] < step.threshold]
        assert step.alerts == len(kept) < len(mine)
        assert step.alerts_per_day == round(len(kept) / 5, 2)
        assert step.frauds_lost == sum(row[2] == "fraud" for row in lost)
        assert step.genuine_saved == sum(row[2] == "genuine" for row in lost)
        assert step.labels.judged == sum(row[2] != "none" for row in kept)


@given(st.integers(0, 400), st.integers(0, 400))
def test_a_share_lies_in_its_interval_and_few_labels_have_none(frauds: int, genuine: int) -> None:
    found = labelled_share(frauds + genuine, frauds)
    if frauds + genuine < LEAST_JUDGED:
        assert (found.precision, found.low, found.high) == (None, None, None)
    else:
        assert found.low is not None and found.precision is not None and found.high is not None
        assert 0 <= found.low <= found.precision <= found.high <= 1


def test_differences_name_rules_and_keys() -> None:
    after = spec_of(
        threshold=0.9,
        rules=[{"name": "large", "when": "amount > 5", "severity": "high", "reason": "large"}],
    )
    found = {each.key: (each.before, each.after) for each in differences(SPEC, after)}
    assert found == {
        "threshold": ("0.999", "0.9"),
        "rules.large.when": ('"amount > 1000"', '"amount > 5"'),
    }
    assert differences(SPEC, SPEC) == []
    (gone,) = differences(SPEC, spec_of(rules=[]))
    assert (gone.key, gone.after) == ("rules.large", None)
    assert gone.before is not None
    assert '"amount > 1000"' in gone.before
    (come,) = differences(spec_of(rules=[]), SPEC)
    assert (come.key, come.before, come.after) == ("rules.large", None, gone.before)


def test_a_million_alerts_are_counted_soon() -> None:
    """What it takes stands in docs/api.md; ten times that says that it became another algorithm."""
    rows, random = 1_000_000, np.random.default_rng(1)
    base = view_of(
        [(0, each, label, "EUR", 0.99) for each in (None, "a", "b", "a b") for label in ("fraud", "none")]
    )
    begin, end = SPAN.micros
    words = {
        name: WordColumn(random.integers(0, len(each.words), rows).astype(np.int32), each.words)
        for name, each in base.words.items()
    }
    numbers = {name: random.random(rows) for name in ("amount", "score")}
    numbers["time"] = random.integers(begin, end, rows)
    view = InboxView(base.fields, rows, np.arange(rows), np.arange(rows), numbers, words, {}, AlertRows())
    begun = time.perf_counter()
    tally = RuleTally(view, SPAN)
    total = tally.of_score().alerts + sum(tally.of_rule(each, None).alerts for each in tally.named())
    tally.steps(5)
    took = time.perf_counter() - begun
    assert total >= rows
    assert took < 3.0, took
