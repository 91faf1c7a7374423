"""Rules over two events in the engine: alerts under changing rules, restarts and replays, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alert import alert_id
from schemas.alert_documents import alert_json_schema
from schemas.contract import load_contract
from schemas.durations import elapsed_text
from schemas.errors import ConfigurationError, DataLossError
from schemas.rules import Rule
from schemas.spec import AgentSpec
from streaming.batch.deciders import Deciders
from streaming.batch.engine import Engine
from streaming.batch.flagging import absence_text, sequence_text
from streaming.batch.patterns_in_force import Stretch, stretches
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.stored import StoredTable, open_version
from streaming.history.replayed import REPLAY_MARKS
from streaming.home.settings import Settings
from streaming.labels.entity_labels import entity_labels_schema
from streaming.service.health import Health
from streaming.store.place import Place
from tests.unit.scoring_samples import agent_spec, stream

ROWS, PART = 480, 40
CONTRACT = load_contract("simulator")
NO_LABELS = entity_labels_schema(CONTRACT.entity_names).empty_table()
_BASE = {"severity": "high", "reason": "because"}
LARGE = {"name": "large", "when": "amount > 150", **_BASE}
TWICE: dict[str, Any] = {
    "name": "twice",
    "sequence": {"entity": "customer", "first": "amount > 50", "then": "amount > 60", "within": "2h"},
    **_BASE,
}
STRIKING: dict[str, Any] = {
    "name": "striking",
    "sequence": {
        "entity": "customer+terminal",
        "first": "amount > 1",
        "then": "score > 0.6 and count_customer_1_day > 1",
        "within": "1d",
    },
    **_BASE,
}
SILENT: dict[str, Any] = {
    "name": "silent",
    "absence": {"entity": "customer", "after": "amount > 60", "expected": "amount < 10", "within": "30m"},
    **_BASE,
}
SLOW = {**SILENT, "absence": {**SILENT["absence"], "within": "50m", "lateness": "1d"}}
VERSIONS = (
    (LARGE, TWICE, SILENT),
    (SILENT, STRIKING),
    (LARGE,),
    (TWICE, SLOW, LARGE),
)
_OF_THE_BATCH = ("created_at", "query_id", "batch_id", "outbox_seq")


def transactions() -> pa.Table:
    rows = stream(ROWS, seed=5, customers=25, terminals=6)
    memos = [None if row % 3 else f"memo {row}" for row in range(ROWS)]
    ids = pa.array([f"t{row:04d}" for row in range(ROWS)])
    return rows.append_column("transaction_id", ids).append_column("memo", pa.array(memos, pa.string()))


STREAM = transactions()


def specified(version: int, **changes: Any) -> AgentSpec:
    return agent_spec(rules=list(VERSIONS[version]), threshold=0.98, **changes)


@dataclass
class Agent:
    """Decides the stream batch by batch; what a lake would hold of it is at hand for a restart."""

    home: Path
    table: StoredTable
    checkpoint_rows: int = 1_000_000
    next_sequence: int = 0
    batches: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    engine: Engine | None = None

    def built(self, version: int, home: Path | None = None) -> Engine:
        spec = specified(version, profiles={"block_rows": 16, "checkpoint_rows": self.checkpoint_rows})
        settings_ = Settings.load(home or self.home)
        return Engine.on_rules(settings_, AgentDefinition.pinned(spec, CONTRACT))

    def start(self, version: int) -> None:
        self.engine = self.built(version)
        self.restore(self.engine, self.next_sequence)

    def restore(self, engine: Engine, sequence: int) -> None:
        engine.restore(self.table, sequence, lambda *_: NO_LABELS, self.stretches)

    def stretches(self, first: int, end: int) -> list[Stretch]:
        return stretches(pl.DataFrame(self.batches), first, end)

    def process(self, version: int, rows: int) -> None:
        assert self.engine is not None
        if self.engine.decider.rules.rules != specified(version).rules:
            self.engine = self.engine.with_rules(self.built(version).spec)
        first, self.next_sequence = self.next_sequence, min(self.next_sequence + rows, ROWS)
        self.alerts += decided(self.engine, STREAM.slice(first, self.next_sequence - first))
        pins = json.dumps(self.engine.decider.pins())
        bounds = {"first_sequence": first, "next_sequence": self.next_sequence}
        self.batches.append({**bounds, "pins": pins})
        self.engine.checkpoint_if_due()
        self.engine.close()


def decided(engine: Engine, rows: pa.Table) -> list[dict[str, Any]]:
    deciders = Deciders(engine)
    decided = deciders.decide(rows, NO_LABELS)
    alerts = decided.alerts(REPLAY_MARKS)
    deciders.commit(decided.judged)
    return [{name: each[name] for name in each if name not in _OF_THE_BATCH} for each in alerts.to_pylist()]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> StoredTable:
    folder = tmp_path_factory.mktemp("lake") / "transactions"
    for first in range(0, ROWS, PART):
        write_deltalake(folder, STREAM.slice(first, PART), mode="append")
    found = open_version(Place.local(folder))
    assert found is not None
    return found


def ran(
    agent: Agent, batches: Sequence[tuple[int, int]], restarts: frozenset[int] = frozenset()
) -> list[dict[str, Any]]:
    agent.start(batches[0][0])
    for number, (version, rows) in enumerate(batches):
        if number in restarts:
            agent.start(version)
        agent.process(version, rows)
    return agent.alerts


def in_order(alerts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(alerts, key=lambda each: (each["sequence"], each["kind"]))


batches_strategy = st.lists(
    st.tuples(st.integers(0, len(VERSIONS) - 1), st.sampled_from([0, 1, 37, 90, 150])), min_size=2, max_size=7
)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    batches=batches_strategy,
    restarts=st.frozensets(st.integers(0, 6)),
    checkpoint_rows=st.sampled_from([1, 100, 10_000]),
)
def test_restarts_change_no_alert_whatever_rules_came_and_went(
    table: StoredTable,
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[int, int]],
    restarts: frozenset[int],
    checkpoint_rows: int,
) -> None:
    straight = Agent(tmp_path_factory.mktemp("straight"), table)
    stopped = Agent(tmp_path_factory.mktemp("stopped"), table, checkpoint_rows)
    assert ran(stopped, batches, restarts) == ran(straight, batches)


def test_a_replay_in_slices_under_the_pinned_rules_raises_the_same_alerts(
    table: StoredTable, tmp_path: Path
) -> None:
    agent = Agent(tmp_path / "live", table, checkpoint_rows=100)
    plan = [(0, 90), (0, 60), (1, 100), (1, 50), (3, 180)]
    alerts = ran(agent, plan)
    kinds = {each["kind"] for each in alerts}
    assert kinds == {"transaction", "absence.silent"}
    hits = {name for each in alerts for name in each["rules"]}
    assert hits == {"large", "twice", "striking", "silent"}
    for home in (agent.home, tmp_path / "without-checkpoints"):
        again: list[dict[str, Any]] = []
        for version, first, end in ((0, 0, 150), (1, 150, 300), (3, 300, 480)):
            engine = agent.built(version, home)
            agent.restore(engine, first)
            for start in range(first, end, 33):
                again += decided(engine, STREAM.slice(start, min(33, end - start)))
        assert in_order(again) == in_order(alerts)


def test_an_absence_is_alerted_as_its_first_event_was_scored(table: StoredTable, tmp_path: Path) -> None:
    agent = Agent(tmp_path, table)
    alerts = ran(agent, [(0, 100)] * 5)
    absences = [each for each in alerts if each["kind"] == "absence.silent"]
    assert len(absences) > 5
    whole = agent.built(0, tmp_path / "whole")
    scored = whole.memory.scorer.score(STREAM)
    for each in absences:
        row = each["sequence"]
        assert each["transaction_id"] == f"t{row:04d}"
        assert each["alert_id"] == alert_id("sample", f"t{row:04d}", "absence.silent")
        assert (each["score"], each["log_odds"], each["base"]) == (
            scored.score[row], scored.log_odds[row], scored.base[row],
        )  # fmt: skip
        parts = [(reason["name"], reason["contribution"]) for reason in each["reasons"]]
        assert parts == [(reason.name, reason.contribution) for reason in scored.reasons(row)]
        assert (each["classification"], each["rules"]) == ("limit_breach", ["silent"])
        assert each["severity"] in ("high", "critical")
        assert each["passed_by"] > row
        assert each["rule_texts"][0].startswith("because: not within 30 minutes of 2020-09-1")
    assert len({each["alert_id"] for each in alerts}) == len(alerts)
    assert any(each["passed_by"] // 100 > each["sequence"] // 100 for each in absences), "another batch"


def test_a_sequence_says_how_long_after_its_first_event(table: StoredTable, tmp_path: Path) -> None:
    agent = Agent(tmp_path, table)
    (alert, *_) = [each for each in ran(agent, [(0, 480)]) if each["rules"] == ["twice"]]
    assert (alert["kind"], alert["passed_by"]) == ("transaction", None)
    (text,) = alert["rule_texts"]
    assert text.startswith("because: ")
    assert " after the first, at 2020-09-1" in text
    assert alert["rationale"].startswith(text[:60])


def test_state_that_lacks_a_rule_in_force_is_never_saved(table: StoredTable, tmp_path: Path) -> None:
    agent = Agent(tmp_path, table, checkpoint_rows=50)
    straight = ran(Agent(tmp_path / "straight", table), [(0, 100), (0, 380)])
    agent.checkpoint_rows = 1_000_000
    agent.start(0)
    agent.process(0, 100)
    agent.checkpoint_rows = 50
    agent.start(2)
    agent.process(2, 0)
    agent.start(0)
    agent.process(0, 380)
    assert agent.alerts == straight


def test_rows_that_no_batch_closes_are_not_guessed() -> None:
    pins = json.dumps({"spec": specified(0).model_dump(mode="json")})
    batches = pl.DataFrame([{"first_sequence": 0, "next_sequence": 5, "pins": pins}])
    assert [tuple(each[:2]) for each in stretches(batches, 2, 4)] == [(2, 4)]
    with pytest.raises(DataLossError, match="sequence 5"):
        stretches(batches, 0, 6)


def test_alerts_of_either_kind_fit_the_exported_schema(table: StoredTable, tmp_path: Path) -> None:
    kinds = alert_json_schema()["properties"]["kind"]["pattern"]
    found = pa.array([each["kind"] for each in ran(Agent(tmp_path, table), [(0, 480)])])
    assert np.all(pa.compute.match_substring_regex(found, kinds).to_numpy(zero_copy_only=False))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("entity: custmer", "rules.yaml:3: rules.0.absence.entity: rule 'quiet': no entity 'custmer'"),
        (
            "entity: customer+customer",
            "rules.yaml:3: rules.0.absence.entity: rule 'quiet': expected an entity",
        ),
        ("after: amout > 1", "rules.yaml:3: rules.0.absence.after: rule 'quiet': unknown column 'amout'"),
        ("expected: amount", "rules.yaml:3: rules.0.absence.expected: rule 'quiet': expected a condition"),
        ("within: 0s", "rules.yaml:3: rules.0.absence.within"),
        ("lateness: soon", "rules.yaml:3: rules.0.absence.lateness"),
    ],
)
def test_a_broken_pattern_is_refused_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    parts = {"entity": "customer", "after": "amount > 1", "expected": "amount > 2", "within": "1h"}
    name, _, value = text.partition(": ")
    parts[name] = value
    path = tmp_path / "rules.yaml"
    path.write_text("rules: []\n", encoding="utf-8")
    health = Health()
    watch = AgentDefinition.pinned(agent_spec(rules_file=str(path)), CONTRACT).rule_watch(health=health)
    watch.load()
    form = json.dumps(parts)
    path.write_text(
        f"rules:\n  - name: quiet\n    absence: {form}\n    severity: low\n    reason: quiet\n",
        encoding="utf-8",
    )
    assert watch.changed() is None
    assert [told in each.cause for each in health.active] == [True]


def test_texts() -> None:
    rule = Rule.model_validate(SILENT)
    moment = STREAM["event_time"][0].as_py()
    micros = int(moment.timestamp() * 1_000_000)
    assert sequence_text(Rule.model_validate(TWICE), micros, micros + 65_250_000) == (
        f"because: 1 minute 5.25 seconds after the first, at {moment:%Y-%m-%d %H:%M:%S} UTC"
    )
    told = absence_text(rule, moment, micros + 10_000_000)
    since, later = (f"{each:%Y-%m-%d %H:%M:%S} UTC" for each in (moment, moment + timedelta(seconds=10)))
    assert told == f"because: not within 30 minutes of {since}, as of {later}"
    assert [elapsed_text(each) for each in (0.0, 1.0, 3600.0, 90061.0)] == [
        "0 seconds", "1 second", "1 hour", "1 day 1 hour",
    ]  # fmt: skip


def test_a_pattern_without_an_entity_of_the_contract_is_refused_at_once() -> None:
    with pytest.raises(
        ConfigurationError, match="no entity 'terminl' in the contract; did you mean 'terminal'"
    ):
        AgentDefinition.pinned(
            agent_spec(rules=[{**TWICE, "sequence": {**TWICE["sequence"], "entity": "terminl"}}]), CONTRACT
        ).completed()
