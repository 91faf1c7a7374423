"""After they are stored, no valid rows can stop a batch, whatever they hold."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.model.budget import SpendingBudget
from agent.triage.disclosure import Disclosure
from agent.triage.ledger import MemoryLedger
from schemas.alert_documents import alert_documents, alert_json_schema
from schemas.errors import RetryableError
from schemas.spec import AgentSpec
from schemas.tables import UTC_MICROS
from streaming.batch.alerting import Alerted, report_faults
from streaming.batch.deciders import Deciders
from streaming.batch.engine import Engine
from streaming.batch.steps import BatchStep
from streaming.commands.explain import show
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import AgentLake
from streaming.delta.whole_tables import read_stored
from streaming.detection.model import save, train
from streaming.detection.scoring import Scorer
from streaming.history.explain import explain
from streaming.history.replay import Replayer
from streaming.history.replay_runs import ReplaySpan
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.entity_labels import entity_labels_schema
from streaming.output.terminal import Terminal
from streaming.run import opening
from streaming.run.surroundings import Hooks
from streaming.service.health import Condition, Health
from streaming.testing.alerts import parse_alert
from streaming.testing.live_lake import TOPIC, frame, records, without_broker
from streaming.versions.clients import Clients
from tests.unit.extreme_rows import CONTRACT, LARGEST, MOST_BYTES, START, AnsweringModel, payments, spec_of

MARKS = {"query_id": "q", "batch_id": 0, "created_at": START}
VALIDATOR = jsonschema.Draft202012Validator(alert_json_schema())
# Whole batches take too long to shrink.
PROPERTY = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
PLAIN: dict[str, Any] = {
    "at": START.isoformat(),
    "amount": 10.0,
    "currency": "EUR",
    "customer": "c1",
    "terminal": "m1",
    "latitude": None,
    "longitude": None,
    "memo": None,
}


def engine_of(folder: Path, **changes: Any) -> Engine:
    return engine_under(AgentDefinition.pinned(spec_of(folder, **changes), CONTRACT), folder)


def engine_under(definition: AgentDefinition, folder: Path) -> Engine:
    home, ledger = Settings.load(folder / "home", {}), MemoryLedger()
    return Engine.under(
        home, definition, AnsweringModel(), ledger, SpendingBudget(definition.spec.llm.budget)
    )


def stored(told: Sequence[dict[str, Any]], first: int = 0) -> pa.Table:
    """Return payments as the store step leaves them, by event time."""
    ordered = sorted(told, key=lambda each: str(each["at"]))
    rows = [
        {"sequence": first + place, "transaction_id": f"t{first + place}", **each, "event_time": each["at"]}
        for place, each in enumerate(ordered)
    ]
    fields = [CONTRACT.arrow_schema().field(column.name) for column in CONTRACT.columns]
    schema = pa.schema([pa.field("sequence", pa.int64()), *fields])
    columns = {name: [row[name] for row in rows] for name in schema.names}
    columns["event_time"] = pc.strptime(
        pa.array([each[:19] for each in columns["event_time"]], pa.string()), "%Y-%m-%dT%H:%M:%S", "us"
    ).cast(UTC_MICROS)
    return pa.table(columns, schema=schema)


def alerts_of(engine: Engine, rows: pa.Table, faults: int = 0) -> pa.Table:
    """Take rows through the steps from scoring to alerts."""
    deciders = Deciders(engine)
    decided = deciders.decide(rows, entity_labels_schema(CONTRACT.entity_names).empty_table())
    deciders.commit(decided.judged)
    assert np.isfinite(decided.judged[0].scored.score).all()
    assert len(decided.results[0].faults) == faults
    return decided.alerts(MARKS)


def check_documents(alerts: pa.Table) -> None:
    for document in alert_documents(alerts):
        assert len(document) <= MOST_BYTES
        VALIDATOR.validate(json.loads(document))
        parse_alert(document)


@pytest.fixture(scope="module", params=[("mixed", 1), ("scaled", 2), ("scaled", 3)])
def definition(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AgentDefinition:
    """Under each way to compare amounts without rates, in each arithmetic."""
    currencies, arithmetic = request.param
    spec = spec_of(tmp_path_factory.mktemp("definition"), arithmetic=arithmetic)
    profiles = spec.profiles.model_copy(update={"currencies": currencies, "peers": {"customer": "terminal"}})
    return AgentDefinition.pinned(spec.model_copy(update={"profiles": profiles}), CONTRACT)


@settings(PROPERTY, max_examples=25)
@given(batches=st.lists(payments(), min_size=1, max_size=3))
def test_any_valid_rows_become_alerts_that_fit_their_schema(
    tmp_path_factory: pytest.TempPathFactory,
    definition: AgentDefinition,
    batches: list[list[dict[str, Any]]],
) -> None:
    engine, first = engine_under(definition, tmp_path_factory.mktemp("extreme")), 0
    for told in batches:
        check_documents(alerts_of(engine, stored(told, first)))
        first += len(told)


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (1, {"amount": LARGEST}),
        (45, {"amount": LARGEST, "currency": "own"}),
        (44, {"amount": 5e-324}),
        (45, {"amount": 0.0, "currency": ""}),
    ],
)
def test_equal_extremes_become_alerts(tmp_path: Path, count: int, changes: dict[str, Any]) -> None:
    engine = engine_of(tmp_path, threshold=1e-9)
    alerts = alerts_of(engine, stored([{**PLAIN, **changes}] * count))
    check_documents(alerts)
    assert alerts.num_rows >= count


def test_ten_thousand_currencies_become_alerts(tmp_path: Path) -> None:
    told = [{**PLAIN, "currency": f"{number}", "amount": LARGEST / (1 + number)} for number in range(10_000)]
    alerts = alerts_of(engine_of(tmp_path), stored(told))
    assert alerts.num_rows == 10_000


class Asked(Clients):
    """Whom an agent asks, without a server."""

    def __init__(self, model: AnsweringModel) -> None:
        self._model = model

    def of(self, _: AgentSpec) -> Any:
        return self._model

    def abandon(self) -> None:
        pass


def taken(told: Sequence[dict[str, Any]], first: int) -> pa.Table:
    """Return payments as they come from the topic."""
    ids = range(first, first + len(told))
    named = [
        {"id": f"t{n}", **each, "customer_id": "k", "event_time": each["at"]}
        for n, each in zip(ids, told, strict=True)
    ]
    rows = records(named, first)
    values = [json.dumps(each).encode() for each in named]
    return rows.set_column(rows.schema.get_field_index("value"), "value", pa.array(values, pa.binary()))


def run(
    home: Settings,
    spec: AgentSpec,
    batches: Sequence[list[dict[str, Any]]],
    number: int,
    reached: Callable[[BatchStep], None] = lambda _: None,
) -> None:
    """Run an agent over batches of 40 payments, the first of which has this number."""
    with opening.open_agent(
        PlacedAgent(home, spec), "127.0.0.1:1", Asked(AnsweringModel()), Hooks(reached)
    ) as started:
        for told in batches:
            part, end = taken(told, number * 1_000), {TOPIC: {"0": number * 1_000 + len(told)}}
            started.pipeline.process(lambda part=part: part, "live", number, lambda end=end: end)
            number += 1


# What is found is shown whole, however long: a warning in its place would say nothing.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("mode", ["inline", "deferred"])
@settings(PROPERTY, max_examples=3)
@given(batches=st.lists(payments(30, 40), min_size=3, max_size=3))
def test_whole_batches_of_extremes_are_closed_recovered_and_replayed(
    tmp_path_factory: pytest.TempPathFactory, mode: str, batches: list[list[dict[str, Any]]]
) -> None:
    large = {**PLAIN, "amount": 900.0, "customer": "\x01" * 3_000}
    batches = [[*told, large] for told in batches]
    folder = tmp_path_factory.mktemp("extreme")
    spec = spec_of(folder, llm={"mode": mode, "budget": {"calls_per_batch": 50}})
    home = Settings.load(folder / "home", {})
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run(home, spec, batches[:2], 0)
        run(home, spec, batches[2:], 2)
    history, rows = ReplaySpan().history(PlacedAgent(home, spec)), sum(map(len, batches))
    found = Replayer(home, AgentDefinition.pinned(spec, CONTRACT), history, slice_rows=17).exactly(
        history.whole
    )
    assert (found.differences, found.rows) == ((), rows)
    published = read_stored(home.lake(spec.name) / "alerts")
    alerts = frame(published)
    check_documents(published)
    assert found.alerts == alerts.filter(pl.col("revision") == 1).height > 0
    assert "internal_error" not in alerts["fallback_reason"]
    assert alerts["clipped"].drop_nulls().explode().unique().to_list() != []


def test_a_trained_model_takes_whatever_features_become(tmp_path: Path) -> None:
    """It takes no infinite ones."""
    names = Scorer.under(spec_of(tmp_path), CONTRACT, None).feature_names
    random = np.random.default_rng(0)
    features = random.normal(size=(200, len(names))).astype(np.float32)
    path = save(train(features, random.random(200) < 0.3, names), tmp_path / "model", {})
    engine = engine_of(tmp_path, model={"path": str(path)})
    amounts = [0.0, 5e-324, 1e154, 1e300, LARGEST, 900.0] * 10
    told = [{**PLAIN, "amount": amount, "customer": f"c{n % 4}"} for n, amount in enumerate(amounts)]
    check_documents(alerts_of(engine, stored(told)))
    check_documents(alerts_of(engine, stored(told, len(told))))


class _KilledError(Exception):
    """Where a process would have died."""


def test_a_stored_row_that_stopped_earlier_versions_is_finished_and_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(step: BatchStep) -> None:
        if step is BatchStep.STORE:
            raise _KilledError

    without_broker(monkeypatch)
    spec, home = spec_of(tmp_path), Settings.load(tmp_path / "home", {})
    told = [{**PLAIN, "amount": LARGEST, "currency": "own"}] * 45
    with pytest.raises(_KilledError):
        run(home, spec, [told], 0, kill)
    run(home, spec, [[PLAIN]], 1)
    lake = home.lake(spec.name)
    alerts, batches = (frame(read_stored(lake / name)) for name in ("alerts", "batches"))
    assert sorted(batches["stored"].to_list()) == [1, 45]
    assert alerts.filter(pl.col("batch_id") == 0).height >= 45
    for wanted in alerts["alert_id"].unique().to_list()[:5]:
        found = explain(AgentLake(lake, spec), wanted, CONTRACT.primary_entity)
        show(found, Terminal(file=io.StringIO(), width=200))
        json.dumps(found.plain(), default=str, allow_nan=False)


class _OddFaultError(Exception):
    """Raised by nobody else."""


def _fails_for(method: str, odd: Callable[[Any], bool]) -> Callable[..., Any]:
    """Return a method of Disclosure that breaks on the odd ones."""
    sound = getattr(Disclosure, method)

    def call(self: Disclosure, given: Any) -> Any:
        if odd(given):
            raise _OddFaultError("text of outsiders")
        return sound(self, given)

    return call


@pytest.mark.parametrize(
    ("method", "odd"),
    [
        ("texts_of", lambda row: row.currency == "ODD"),
        ("disclose", lambda group: group.pattern.currency == "ODD"),
    ],
)
def test_a_group_that_meets_a_fault_falls_back_alone_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, odd: Callable[[Any], bool]
) -> None:
    monkeypatch.setattr(Disclosure, method, _fails_for(method, odd))
    engine = engine_of(tmp_path)
    told = [{**PLAIN, "amount": 900.0, "currency": each} for each in ("EUR", "ODD", "USD", "ODD")]
    rows = stored(told)
    decided = Deciders(engine).decide(rows, None)
    (flagged,), (result,) = decided.flagged, decided.results
    reasons = {
        (row.currency, each.fallback_reason)
        for row, each in zip(flagged.rows, result.classifications, strict=True)
    }
    assert reasons == {("EUR", None), ("USD", None), ("ODD", "internal_error")}
    check_documents(decided.alerts(MARKS))
    health = Health()
    report_faults(health, [result])
    (state,) = health.active
    assert state.condition is Condition.TRIAGE_FAULTY
    assert state.cause.startswith("_OddFaultError at test_extreme_rows.py:")
    assert Alerted.of([result]).status == "degraded"
    monkeypatch.undo()
    report_faults(health, [engine.decider.triage.decide(flagged.rows)])
    assert health.active == ()


def test_whatever_breaks_the_whole_of_triage_leaves_every_row_its_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise _OddFaultError

    engine = engine_of(tmp_path)
    monkeypatch.setattr(AnsweringModel, "ask", broken)
    alerts = alerts_of(engine, stored([{**PLAIN, "amount": 900.0}] * 3), faults=1)
    assert set(alerts["fallback_reason"].to_pylist()) == {"internal_error"}


def test_a_store_of_ours_that_fails_is_no_fault_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise RetryableError("the ledger is away")

    engine = engine_of(tmp_path)
    monkeypatch.setattr(MemoryLedger, "intend", away)
    with pytest.raises(RetryableError):
        alerts_of(engine, stored([{**PLAIN, "amount": 900.0}]))
