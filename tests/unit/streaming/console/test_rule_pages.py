"""The pages of rules and what-ifs show what the API answers, and offer to try what may be tried."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from html import unescape
from typing import Any

import pytest

from streaming.console.charts import DAYS_HEIGHT, DAYS_WIDTH, day_bars
from streaming.console.rule_pages import advice_of
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.rule_figures import ThresholdStep, labelled_share
from streaming.testing.api import ApiClient
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import SILENT, judge
from streaming.testing.small_lake import build_lake, spec_of
from tests.browser_session import console_of, sign_in

HOSTILE_REASON = "<script>alert(1)</script> \u202egro.live"
LARGE = {"name": "large", "when": "amount > 1000", "severity": "high", "reason": HOSTILE_REASON}
ODD = {
    "name": "odd", "when": "memo = '<script>alert(1)</script> \u202egro.live \\ \"'", "severity": "low",
    "reason": "odd",
}  # fmt: skip
SPEC = spec_of(rules=[LARGE, ODD, SILENT])
MISSED = ("t00003", "t00007")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiClient]:
    home = Settings.load(tmp_path_factory.mktemp("lake") / "home", {})
    placed = PlacedAgent(home, SPEC)
    build_lake(placed)
    stored = read_stored(placed.lake / "alerts", ["transaction_id"])
    assert stored is not None
    judge(placed, [*sorted(set(stored["transaction_id"].to_pylist()))[:12], *MISSED])
    with console_of(home, SPEC) as asked:
        wait_until(lambda: asked.get("/readyz").status_code == 200, 60, "the alerts to be read")
        asked.headers.update(sign_in(asked, SPEC, "operate"))
        yield asked


def ok(client: ApiClient, path: str, **query: Any) -> str:
    answer = client.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    assert "<script>alert" not in answer.text
    assert not re.search("[\u202a-\u202e\x1b]", answer.text)
    return answer.text


def done(client: ApiClient, changes: dict[str, Any]) -> str:
    answer = client.post("/v1/what-ifs", json={"changes": changes})
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    wait_until(lambda: client.get(f"/v1/what-ifs/{job}").json()["state"] == "done", 60, "the what-if")
    return job


def test_rules_are_shown_with_the_api_s_figures_and_lead_to_their_alerts(client: ApiClient) -> None:
    shown, table = ok(client, "/console/rules", days=7), client.get("/v1/rules?days=7").json()
    head = shown[shown.index("<tbody>") : shown.index("</tbody>")]
    assert head.count("<tr>") == 1 + len(table["rules"]) == 4
    bars = sum(count > 0 for row in (table["score"], *table["rules"]) for count in row["per_day"])
    assert head.count("<rect ") == bars > 0
    hrefs = [unescape(each) for each in re.findall(r'<strong><a href="([^"]+)"', head)]
    for href, row in zip(hrefs, (table["score"], *table["rules"]), strict=True):
        assert re.search(rf"<title>{row['alerts']} alert", ok(client, href)), href
    assert "too few labels" in head
    assert f"{table['rules'][0]['labels']['precision'] * 100:.1f} %" in head


def test_missed_frauds_have_their_scores_once_somebody_has_asked(client: ApiClient) -> None:
    before = ok(client, "/console/rules")
    assert 'data-do="what-if-scores"' in before
    assert "no rule was hit, and the score was too low" in before
    job = done(client, {})
    after = ok(client, "/console/rules")
    assert 'data-do="what-if-scores"' not in after
    assert after.count("score too low by") == len(MISSED)
    report = ok(client, f"/console/what-ifs/{job}")
    assert all(each in report for each in MISSED)
    assert "Nothing: it was begun for the scores" in report
    assert '<a href="/console/rules">Rules</a> have them now' in report
    assert re.findall(r'data-key="u"[^>]* href="([^"]*)"', report) == ["/console/rules"]


def test_an_edit_is_shown_with_what_it_moves(client: ApiClient) -> None:
    job = done(client, {"rules": [ODD | {"severity": "critical"}], "threshold": 0.99})
    shown = ok(client, f"/console/what-ifs/{job}")
    report = client.get(f"/v1/what-ifs/{job}/report").json()
    assert report["removed"] > 0
    for each in report["moved"]["largest"]["removed"]:
        assert f"/console/alerts/{each['alert_id']}" in shown
    gone = report["moved"]["money"]["removed"]["EUR"]
    assert f"{gone['amount']:,.2f} EUR" in shown
    assert "rules.odd.severity" in shown
    for page in ("/console/what-ifs", "/console/rules"):
        assert f"/console/what-ifs/{job}" in ok(client, page)
    assert client.get(f"/console/what-ifs/{'0' * 16}").status_code == 404


def test_the_form_has_the_rules_as_the_api_takes_them(client: ApiClient) -> None:
    shown = ok(client, "/console/rules", threshold=0.9975)
    (given,) = re.findall(r'data-rules="([^"]*)"', shown)
    rules = json.loads(unescape(given))
    assert rules == [each.model_dump(mode="json") for each in SPEC.rules]
    assert rules[1]["when"] == ODD["when"]
    assert 'value="0.9975" data-was="0.999"' in shown
    assert 'data-where="absence.within"' in shown
    assert (
        client.post("/v1/what-ifs", json={"changes": {"rules": rules, "rules_file": None}}).json()[
            "differences"
        ]
        == []
    )


def test_who_may_only_read_tries_nothing(client: ApiClient) -> None:
    kept, header = dict(client.cookies), client.headers["X-CSRF-Token"]
    try:
        sign_in(client, SPEC, "triage", name="reader")
        shown = ok(client, "/console/rules")
        assert 'data-do="what-if' not in shown
        assert "operate" in shown
        ok(client, "/console/what-ifs")
    finally:
        client.cookies.clear()
        client.cookies.update(kept)
        client.headers["X-CSRF-Token"] = header


def test_days_without_alerts_and_labels_say_what_to_do(client: ApiClient) -> None:
    shown = ok(client, "/console/rules", until="2026-01-01")
    assert "No alert was raised in these days" in shown
    assert "Labels know no fraud of these days" in shown
    assert "Fewer than two alerts" in shown
    assert client.get("/console/rules?days=0").status_code == 404


def test_a_bar_is_as_high_as_its_share_of_the_most() -> None:
    days = [date(2026, 5, 1), date(2026, 5, 2)]
    first, last = day_bars(days, [1, 4])
    assert (first.height, last.height) == (DAYS_HEIGHT / 4, DAYS_HEIGHT)
    assert last.x + last.width <= DAYS_WIDTH
    assert [each.height for each in day_bars(days, [0, 0])] == [0, 0]


def step(threshold: float, lost: int, judged: int) -> ThresholdStep:
    labels = labelled_share(judged, judged)
    return ThresholdStep(
        threshold=threshold, alerts_per_day=1, alerts=judged, labels=labels, frauds_lost=lost, genuine_saved=0
    )


def test_advice_is_the_highest_threshold_that_loses_nothing_by_enough_labels() -> None:
    steps = [step(0.95, 0, 40), step(0.97, 0, 30), step(0.98, 1, 20), step(0.99, 0, 3)]
    found = advice_of(steps)
    assert found is not None
    assert found.threshold == 0.97
    assert advice_of([step(0.98, 1, 20), step(0.99, 0, 3)]) is None
