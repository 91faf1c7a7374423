"""Dashboards, alert rules and pages name metrics that there are, and every metric is shown somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from streaming.commands.metrics import all_metrics, metrics_table
from streaming.observe.dashboards import DASHBOARDS, dashboard_named
from streaming.service.health import Condition

ROOT = Path(__file__).parents[4]
RULES = ROOT / "docker" / "prometheus" / "flagstream-rules.yml"
PAGE = ROOT / "docs" / "observability.md"
_METRIC = re.compile(r"\bflagstream_[a-z0-9_]+\b")
_CONDITIONS = re.compile(r'condition=~?"([^"]+)"')


def declared() -> dict[str, tuple[str, ...]]:
    """Every series name that can be scraped, with its labels."""
    found = {}
    for each in all_metrics():
        suffixes = ("_bucket", "_count", "_sum") if each.kind == "histogram" else ("",)
        found |= {f"{each.name}{suffix}": each.labels for suffix in suffixes}
    return found


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


QUERIES = [query for each in DASHBOARDS for panel in each.panels for query, _ in panel.queries]


@pytest.mark.parametrize("uid", [each.uid for each in DASHBOARDS])
def test_the_files_are_what_the_panels_say(uid: str) -> None:
    file = ROOT / "docker" / "grafana" / f"{uid}.json"
    name = uid.removeprefix("flagstream-")
    assert file.read_text(encoding="utf-8") == dashboard_named(uid), (
        f"flagstream spec dashboard {name} > docker/grafana/{uid}.json"
    )


def test_every_metric_of_a_panel_or_a_rule_is_declared_with_the_labels_asked_for() -> None:
    known = declared()
    for query in [*QUERIES, *(rule["expr"] for rule in rules())]:
        names = _METRIC.findall(query)
        assert set(names) <= set(known), query
        labels = {label for name in names for label in known[name]} | {"agent", "le", "job", "instance"}
        for group in re.findall(r"by \(([^)]*)\)", query):
            assert {each.strip() for each in group.split(",")} <= labels, query


def test_every_metric_is_shown_by_a_panel() -> None:
    shown = {name for query in QUERIES for name in _METRIC.findall(query)}
    shown |= {name.removesuffix("_bucket") for name in shown}
    assert {each.name for each in all_metrics()} - shown == set()


def test_conditions_of_rules_are_those_that_there_are_and_none_is_left_out() -> None:
    named = {
        name for rule in rules() for found in _CONDITIONS.findall(rule["expr"]) for name in found.split("|")
    }
    known = {str(each) for each in Condition}
    assert named <= known
    by_another_metric = {"model_away", "model_failing"}
    of_no_harm = {"entity_dominates", "progress_failing"}
    assert known - named == by_another_metric | of_no_harm


def test_panels_have_a_title_of_their_own_a_unit_and_a_sentence() -> None:
    for each in DASHBOARDS:
        titles = [panel.title for panel in each.panels]
        assert len(set(titles)) == len(titles)
        assert all(panel.meaning.endswith(".") and panel.unit for panel in each.panels)
        page = json.loads(dashboard_named(each.uid))
        ids = [panel["id"] for panel in page["panels"]]
        assert ids == list(range(1, len(ids) + 1))
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in page["panels"]}
        assert len(places) == len(ids)


def test_the_page_has_the_table_of_all_metrics() -> None:
    assert metrics_table() in PAGE.read_text(encoding="utf-8"), "`flagstream spec metrics` prints it"


def test_the_runbook_says_of_every_rule_what_it_means_and_three_steps() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in rules():
        (section,) = re.findall(rf"^### {rule['alert']}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        meaning, *steps = [line for line in section.strip().splitlines() if line]
        assert len(meaning) > 40, rule["alert"]
        assert [line[:2] for line in steps if line[0].isdigit()] == ["1.", "2.", "3."], rule["alert"]
    headings = set(re.findall(r"^### (Flagstream\w+)$", page, re.MULTILINE))
    assert headings == {rule["alert"] for rule in rules()}
