"""Plans outside the policy are refused as a whole, each time with the rule that refused them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent.planning.catalogue import CATALOGUE
from agent.planning.plan_policy import check_plan, check_step
from agent.planning.plans import (
    Plan,
    Step,
    catalogue_notes,
    load_plan,
    parsed_plan,
    plan_schema,
    reference_in,
    resolved,
)
from agent.planning.refusals import Refused
from schemas.errors import ConfigurationError
from schemas.policy import Policy
from tests.unit.plan_samples import CONTRACT, ground, plan, policy, query, step

HOURLY = "SELECT hour, count(*) AS n FROM alerts WHERE terminal = ? GROUP BY hour"
SPAN = {"from_time": "2026-05-01T00:00:00Z", "to_time": "2026-05-02T00:00:00Z"}
WHOLE = plan(
    query(1, HOURLY, "m1"),
    step(2, "entity_profile", entity="terminal", id="m1"),
    step(3, "similar_alerts", alert="$s1.rows.0.n", limit=3),
    step(4, "replay_preview", **SPAN, threshold=0.9),
    step(5, "run_job", notebook="/Shared/refit", parameters=[{"name": "day", "value": "$s1.rows.0.hour"}]),
    step(6, "notify", target="log", message="done"),
)


def rules(wanted: Plan, under: Policy, home: Path) -> list[str]:
    return [refusal.rule for refusal in check_plan(wanted, under, ground(home))]


def test_a_plan_inside_the_policy_is_not_refused(tmp_path: Path) -> None:
    assert check_plan(WHOLE, policy(), ground(tmp_path)) == ()


@pytest.mark.parametrize("action", sorted(CATALOGUE))
def test_an_action_that_the_policy_does_not_name_is_refused(tmp_path: Path, action: str) -> None:
    others = policy().actions.model_dump(exclude_none=True)
    others.pop(action, None)
    found = check_plan(plan(step(1, action)), policy(actions=others), ground(tmp_path))
    assert [str(each) for each in found] == [f"s1: actions.{action}: not allowed"]


def test_a_policy_that_names_nothing_refuses_everything(tmp_path: Path) -> None:
    found = rules(WHOLE, Policy(policyName="closed"), tmp_path)
    assert {"budgets.steps", *(f"actions.{each.action}" for each in WHOLE.steps)} == set(found)


@pytest.mark.parametrize(
    ("wanted", "rule", "said"),
    [
        (step(1, "delete_table"), "actions.delete_table", "no such action"),
        (step(1, "query_agregates"), "actions.query_agregates", "did you mean 'query_aggregates'"),
        (query(1, "SELECT * FROM ledger"), "dataAccess.tables", "'ledger' may not be read"),
        (query(1, "SELECT * FROM alerts WHERE terminal = ?"), "query.values", "1 are wanted, 0 given"),
        (query(1, "DROP TABLE alerts"), "query.statement", "only a single SELECT"),
        (step(1, "query_aggregates", sql="SELECT 1", sqll="x"), "plan.parameters.sqll", "not permitted"),
        (step(1, "entity_profile", entity="shop", id="x"), "plan.parameters.entity", "no kind of entity"),
        (step(1, "entity_profile", entity="terminal"), "plan.parameters.id", "required"),
        (
            step(1, "entity_history", entity="terminal", id="m", limit=21),
            "actions.entity_history.rows",
            "at most 20",
        ),
        (step(1, "similar_alerts", alert="abcdef", limit=11), "actions.similar_alerts.rows", "at most 10"),
        (step(1, "replay_preview", **SPAN), "plan.parameters", "expected one of"),
        (
            step(1, "replay_preview", **SPAN, threshold=0.9, candidate="candidates/x"),
            "plan.parameters",
            "expected one",
        ),
        (
            step(1, "replay_preview", **SPAN, candidate="/etc/passwd"),
            "dataAccess.readOnlyPaths",
            "/etc/passwd lies in none",
        ),
        (
            step(1, "replay_preview", **SPAN, candidate="candidates/../../secret.yaml"),
            "dataAccess.readOnlyPaths",
            "lies in none",
        ),
        (
            step(
                1,
                "replay_preview",
                from_time="2024-05-01T00:00:00Z",
                to_time="2024-05-02T00:00:00Z",
                candidate="candidates/a\0b",
            ),
            "dataAccess.readOnlyPaths",
            "null character",
        ),
        (step(1, "run_job", notebook="/Users/x"), "actions.run_job.notebooks", "'/Users/x' may not run"),
        (
            step(1, "notify", target="boss", message="x"),
            "actions.notify.targets",
            "'boss' may not be notified",
        ),
        (
            query(1, "SELECT 1 AS x FROM alerts WHERE terminal = ?", "$s0.x"),
            "plan.references",
            "no step 's0'",
        ),
        (
            query(1, "SELECT 1 AS x FROM alerts WHERE terminal = ?", "$s1.x"),
            "plan.references",
            "no step 's1'",
        ),
    ],
)
def test_what_lies_outside_the_policy_is_refused_with_the_rule(
    tmp_path: Path, wanted: dict[str, Any], rule: str, said: str
) -> None:
    found = check_plan(plan(wanted), policy(), ground(tmp_path))
    assert [each.rule for each in found] == [rule]
    assert said in found[0].detail
    assert found[0].step == "s1"


def test_a_link_out_of_the_read_only_paths_is_followed_and_refused(tmp_path: Path) -> None:
    (tmp_path / "candidates").mkdir()
    (tmp_path / "outside.yaml").touch()
    (tmp_path / "candidates" / "inside.yaml").touch()
    (tmp_path / "candidates" / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    for name, expected in (("inside", []), ("link", ["dataAccess.readOnlyPaths"])):
        wanted = plan(step(1, "replay_preview", **SPAN, candidate=f"candidates/{name}.yaml"))
        assert rules(wanted, policy(), tmp_path) == expected


def test_a_lake_outside_the_read_only_paths_is_refused(tmp_path: Path) -> None:
    closed = policy(dataAccess={"readOnlyPaths": ["elsewhere"], "tables": ["alerts", "transactions"]})
    assert rules(plan(query(1, HOURLY, "m1")), closed, tmp_path) == ["dataAccess.readOnlyPaths"]
    assert rules(plan(step(1, "notify", target="log", message="x")), closed, tmp_path) == []


@pytest.mark.parametrize(
    ("wanted", "table"),
    [
        (step(1, "entity_profile", entity="terminal", id="m"), "transactions"),
        (step(1, "similar_alerts", alert="abcdef"), "alerts"),
        (step(1, "replay_preview", **SPAN, threshold=0.5), "labels"),
        (query(1, "SELECT count(*) FROM batches"), "batches"),
    ],
)
def test_a_table_outside_the_policy_is_refused_to_every_action(
    tmp_path: Path, wanted: dict[str, Any], table: str
) -> None:
    tables = [each for each in policy().dataAccess.tables if each != table]
    closed = policy(dataAccess={"readOnlyPaths": ["lake"], "tables": tables})
    found = check_plan(plan(wanted), closed, ground(tmp_path))
    assert [each.rule for each in found] == ["dataAccess.tables"]
    assert repr(table) in found[0].detail


def test_steps_and_calls_are_bounded(tmp_path: Path) -> None:
    many = plan(*(step(number, "post_finding", title="x") for number in range(7)))
    assert rules(many, policy(), tmp_path) == ["budgets.steps", "actions.post_finding.calls"]


def test_actions_run_only_where_they_are_audited(tmp_path: Path) -> None:
    assert rules(WHOLE, policy(auditLogging=False), tmp_path) == ["auditLogging"]


def test_what_must_be_planned_cannot_be_taken_from_a_result(tmp_path: Path) -> None:
    for taken in (
        step(2, "query_aggregates", sql="$s1.rows.0.sql"),
        step(2, "notify", target="$s1.rows.0.who", message="x"),
        step(2, "run_job", notebook="$s1.rows.0.path"),
    ):
        found = rules(plan(query(1, HOURLY, "m"), taken), policy(), tmp_path)
        assert "plan.references" in found


def test_two_steps_of_one_id_are_refused(tmp_path: Path) -> None:
    twice = plan(query(1, HOURLY, "m"), query(1, HOURLY, "m"))
    assert rules(twice, policy(), tmp_path) == ["plan.steps"]


def test_a_step_is_checked_again_with_the_values_it_refers_to(tmp_path: Path) -> None:
    planned = Step.model_validate(step(2, "similar_alerts", alert="$s1.rows.0.alert_id", limit=1))
    assert check_step(planned, policy(), ground(tmp_path)) == ()
    met = planned.model_copy(update={"parameters": resolved(planned.parameters, lambda _: "x" * 500)})
    assert [each.rule for each in check_step(met, policy(), ground(tmp_path))] == ["plan.parameters.alert"]


def test_references_are_whole_values_and_found_at_any_depth() -> None:
    assert reference_in("$s1.rows.0.n") is not None
    assert not any(map(reference_in, ("s1.rows", "$s1", "x $s1.n", "$s1.n x", "$S1.n", 5, None)))
    nested = {"parameters": [{"name": "a", "value": "$s1.n"}], "message": "$s2.m"}
    assert resolved(nested, lambda found: f"<{found.step}>") == {
        "parameters": [{"name": "a", "value": "<s1>"}],
        "message": "<s2>",
    }


def test_the_schema_for_the_model_admits_what_may_be_planned_and_nothing_else() -> None:
    some = policy(
        actions={
            "query_aggregates": {},
            "entity_history": {"rows": 20},
            "notify": {"targets": {"log": "log"}},
        }
    )
    check = jsonschema.Draft202012Validator(plan_schema(some, CONTRACT.entity_names, 6)).is_valid
    assert check({"steps": [query(1, "SELECT 1", "m1")]})
    assert check({"steps": [step(1, "entity_history", entity="terminal", id="m", limit=20)]})
    assert not check({"steps": []})
    assert not check({"steps": [step(1, "entity_history", entity="shop", id="m", limit=20)]})
    assert not check({"steps": [step(1, "entity_history", entity="terminal", id="m", limit=21)]})
    assert not check({"steps": [step(1, "run_job", notebook="/Shared/refit", parameters=[])]})
    assert not check({"steps": [step(1, "notify", target="boss", message="x")]})
    assert "run_job" not in catalogue_notes(some)
    assert "entity_history" in catalogue_notes(some)


def test_every_key_of_the_schema_is_required_and_no_other_admitted() -> None:
    def objects(schema: Any) -> list[dict[str, Any]]:
        parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
        own = [schema] if isinstance(schema, dict) and "properties" in schema else []
        return [*own, *(found for part in parts for found in objects(part))]

    for each in objects(plan_schema(policy(), CONTRACT.entity_names, 6)):
        if isinstance(each.get("type"), str):
            assert each["required"] == list(each["properties"])
            assert each["additionalProperties"] is False


def test_a_plan_file_is_read_or_its_fault_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(WHOLE.model_dump(mode="json")), encoding="utf-8")
    assert load_plan(path) == WHOLE
    assert load_plan(path).digest == WHOLE.digest
    for content, said in (
        ("{", "not valid JSON"),
        ('{"steps": []}', "steps"),
        ('{"step": []}', "did you mean 'steps'"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=said):
            load_plan(path)
    with pytest.raises(ConfigurationError, match="no such file"):
        load_plan(tmp_path / "absent.json")


def nested(levels: int) -> str:
    return (
        f'{{"steps": [{{"id": "s1", "action": "x", "parameters": {{"a": {"[" * levels}{"]" * levels}}}}}]}}'
    )


@pytest.mark.parametrize(
    "text",
    ["no json", "[]", '{"steps": [{"id": "S!", "action": "x"}]}', '{"plan": 1}', nested(5), nested(900)],
)
def test_what_is_no_plan_is_a_refusal_when_a_model_wrote_it(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parsed_plan(text)
    assert caught.value.refusals[0].rule == "plan.format"
