from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from schemas.alert import ALERTS
from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from schemas.lake_tables import lake_schemas
from schemas.spec import AgentSpec
from schemas.tables import BATCHES, LATE
from streaming.cli.root import app
from streaming.commands.cost import estimated
from streaming.delta.lake import Lake
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.delta.lake_table import Stamp
from streaming.history.cost import booked, by_alert, closed_batches, cost_by, shares
from streaming.store.place import Place
from tests.unit.agent.triage.test_late import stored_alerts
from tests.unit.streaming.audit.test_audit_log import SPEC

DAY = datetime(2026, 1, 1, tzinfo=UTC)
PRICES = {"small": {"input": 1.0, "output": 10.0}, "large": {"input": 5.0, "output": 20.0}}


def spec(**changes: Any) -> AgentSpec:
    llm = {"model": "small", "prices": PRICES, **changes.pop("llm", {})}
    return AgentSpec.model_validate({**SPEC.model_dump(), "llm": llm, **changes})


def batch(number: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "query_id": "q",
        "batch_id": number,
        "closed_at": DAY + timedelta(hours=9 * number),
        "stored": 1_000,
        "alerts": 4,
        "llm_calls": 2,
        "input_tokens": 1_000,
        "output_tokens": 200,
        "cost_usd": 0.003,
    }
    pins = {"model": changes.pop("model", "small"), "prompt": changes.pop("prompt", "triage/1")}
    seconds = changes.pop("seconds", 2.0)
    steps = {"take": seconds / 2, "close": seconds / 2}
    return {**usual, **changes, "pins": json.dumps(pins), "durations": json.dumps(steps)}


BATCHES_DONE = [
    batch(0),
    batch(1, model="large", prompt="triage/2", cost_usd=0.009),
    batch(2, llm_calls=1, cost_usd=0.001),
    batch(3, alerts=0, llm_calls=0, input_tokens=0, output_tokens=0, cost_usd=0.0, model=None),
]


def at(folder: Path, used: AgentSpec) -> AgentLake:
    return AgentLake(Place.local(folder), used)


def lake_with(folder: Path, batches: list[dict[str, Any]]) -> Path:
    lake = Lake.open(
        Place.local(folder), SPEC, lake_schemas(load_contract("simulator")), retention=timedelta(days=30)
    )
    for place, row in enumerate(batches):
        lake.batches.append(pa.Table.from_pylist([row], schema=BATCHES), Stamp("q", place))
    return folder


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("day", {"2026-01-01": 0.013, "2026-01-02": 0.0}),
        ("model", {"small": 0.004, "large": 0.009, "none": 0.0}),
        ("prompt", {"triage/1": 0.004, "triage/2": 0.009}),
    ],
)
def test_what_was_booked_is_summed_up(by: str, expected: dict[str, float], tmp_path: Path) -> None:
    found = booked(at(lake_with(tmp_path, BATCHES_DONE), spec()), by, None)
    assert {row[by]: row["llm_usd"] for row in found["rows"]} == pytest.approx(expected)
    assert found["total"]["llm_usd"] == pytest.approx(0.013)
    assert found["total"]["llm_calls"] == 5


def test_late_answers_are_costs_of_the_batch_that_raised_the_alert(tmp_path: Path) -> None:
    nothing = {"llm_calls": 0, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}
    done = [batch(0, **nothing), batch(1, **nothing)]
    alerts = stored_alerts(8)
    alerts = alerts.set_column(
        alerts.schema.get_field_index("batch_id"), ALERTS.field("batch_id"), pa.array([0] * 6 + [1] * 2)
    )
    usual = {"event": "asked", "at": DAY, "alerts": 0, "given_up": 0}
    took = {"llm_calls": 2, "input_tokens": 80, "output_tokens": 16, "cost_usd": 0.008}
    rounds = [
        {**usual, **nothing, "event": "opened", "commit": 0, "first_outbox_seq": 0, "next_outbox_seq": 8},
        {**usual, **took, "commit": 1, "first_outbox_seq": 0, "next_outbox_seq": 8},
        {**usual, **took, "commit": 2, "first_outbox_seq": 4, "next_outbox_seq": 8},
    ]
    lake = Lake.open(
        Place.local(tmp_path), SPEC, lake_schemas(load_contract("simulator")), retention=timedelta(days=30)
    )
    for place, row in enumerate(done):
        lake.batches.append(pa.Table.from_pylist([row], schema=BATCHES), Stamp("q", place))
    lake.alerts.append(alerts, Stamp("q", 0))
    lake.late.append(pa.Table.from_pylist(rounds, schema=LATE), Stamp("q", 0))
    rows = booked(at(tmp_path, spec()), "batch", None)["rows"]
    assert [row["llm_usd"] for row in rows] == pytest.approx([0.008 * 6 / 8 + 0.004, 0.008 * 2 / 8 + 0.004])
    assert [row["input_tokens"] for row in rows] == [100, 60]
    each = booked(at(tmp_path, spec()), "alert", None)["rows"]
    assert len(each) == 8
    assert sum(row["llm_usd"] for row in each) == pytest.approx(0.016)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**9)), max_size=6))
def test_what_a_round_took_is_shared_out_in_whole_numbers(rounds: list[tuple[int, int, int]]) -> None:
    columns = np.array(rounds, dtype=np.int64).reshape(-1, 3).T
    starts, ends, counts = np.minimum(*columns[:2]), np.maximum(*columns[:2]), columns[2]
    found = shares(starts, ends, counts, 9)
    assert found.sum() == counts[ends > starts].sum()
    even = np.zeros(9)
    for start, end, count in zip(starts, ends, counts, strict=True):
        even[start:end] += count / max(end - start, 1)
    assert np.all(np.abs(found - even) <= len(rounds))


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(0, 10**6))
def test_the_parts_of_alerts_are_whole_and_add_up(by_model: list[bool], tokens: int) -> None:
    batches = pl.DataFrame(
        [{"query_id": "q", "batch_id": 0, "input_tokens": tokens, "output_tokens": tokens, "llm_usd": 1.0}]
    )
    rows = [
        {
            "alert_id": str(n),
            "query_id": "q",
            "batch_id": 0,
            "classification_source": "llm" if each else "rules",
        }
        for n, each in enumerate(by_model)
    ]
    found = by_alert(batches, pl.DataFrame(rows).with_row_index("outbox_seq"))
    parts = found["input_tokens"].to_list()
    assert all(isinstance(each, int) for each in parts)
    assert sum(parts) == tokens
    paying = [part for part, pays in zip(parts, by_model, strict=True) if pays] or parts
    assert max(paying) - min(paying) <= 1
    assert found["llm_usd"].sum() == pytest.approx(1.0)


def test_each_batch_has_a_row_with_the_machine_s_time(tmp_path: Path) -> None:
    rows = booked(at(lake_with(tmp_path, BATCHES_DONE), spec(compute_price=1.8)), "batch", None)["rows"]
    assert [row["batch_id"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["compute_usd"] == pytest.approx(2.0 * 1.8 / 3_600)
    dearer = booked(at(tmp_path, spec(compute_price=1.8)), "batch", 3.6)["total"]
    assert dearer["compute_usd"] == pytest.approx(4 * 2.0 * 3.6 / 3_600)


def test_an_unknown_grouping_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'model'"):
        booked(at(tmp_path, spec()), "modle", None)


def test_models_without_a_price_are_named(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, BATCHES_DONE)
    assert booked(at(lake, spec()), "day", None)["unpriced"] == []
    only_small = spec(llm={"prices": {"small": PRICES["small"]}})
    assert booked(at(lake, only_small), "day", None)["unpriced"] == ["large"]


def test_an_agent_that_never_ran_has_cost_nothing(tmp_path: Path) -> None:
    for by in ("alert", "batch", "day", "model", "prompt"):
        found = booked(at(tmp_path, spec()), by, None)
        assert (found["rows"], found["total"]["llm_usd"]) == ([], 0)
    assert list(tmp_path.iterdir()) == []


def test_the_alerts_that_the_model_answered_for_share_their_batch_s_tokens(tmp_path: Path) -> None:
    told = [("a", 0, "llm"), ("b", 0, "rules"), ("c", 0, "llm"), ("d", 2, "rules"), ("e", 2, "rules")]
    lake = lake_with(tmp_path, BATCHES_DONE)
    rows = pa.Table.from_pylist(
        [
            {"alert_id": name, "query_id": "q", "batch_id": number, "classification_source": source}
            for name, number, source in told
        ]
    ).append_column("outbox_seq", pa.array(range(len(told))))
    found = by_alert(closed_batches(at(lake, spec()), 0.0), pl.DataFrame(rows))
    assert dict(found.select("alert_id", "llm_usd").iter_rows()) == pytest.approx(
        {"a": 0.0015, "b": 0.0, "c": 0.0015, "d": 0.0005, "e": 0.0005}
    )
    assert found["input_tokens"].to_list() == [500, 0, 500, 500, 500]


def test_a_forecast_from_nothing_says_what_it_assumes(tmp_path: Path) -> None:
    found = estimated(at(tmp_path, spec()), 100.0, 0.5)
    assert found.alerts_per_day == pytest.approx(100 * 86_400 * 0.01)
    assert found.limited_by == "llm.budget.tokens_per_day"
    used = found.input_tokens_per_day + found.output_tokens_per_day
    assert used == pytest.approx(spec().llm.budget.tokens_per_day)
    assert (found.machines, found.compute_usd_per_day) == (1, 12.0)
    for name in ("alerts_per_event", "calls_per_alert", "input_tokens_per_call", "events_per_second"):
        assert "assumed" in getattr(found.basis, name).basis


def test_a_forecast_starts_from_what_the_lake_has_shown(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, BATCHES_DONE)
    found = estimated(at(lake, spec()), 2.0, None)
    events = 2 * 86_400
    alerts = events * 12 / 4_000
    calls = alerts * 5 / 12
    assert found.events_per_day == events
    assert found.alerts_per_day == pytest.approx(alerts)
    assert found.calls_per_day == pytest.approx(calls)
    assert found.llm_usd_per_day == pytest.approx(calls * (600 * 1.0 + 120 * 10.0) / 1e6)
    assert (found.limited_by, found.model) == ("none", "small")
    assert (found.compute_usd_per_day, found.month_usd) == (None, None)
    free = estimated(at(lake, spec()), 2.0, 0.0)
    assert free.month_usd == pytest.approx(30 * found.llm_usd_per_day)
    assert "measured over 4,000 events" in found.basis.alerts_per_event.basis


def test_few_calls_a_batch_keep_the_forecast_down(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, BATCHES_DONE)
    found = estimated(
        at(lake, spec(llm={"budget": {"calls_per_batch": 1, "tokens_per_day": 10**9}})),
        10_000.0,
        None,
    )
    assert found.limited_by == "llm.budget.calls_per_batch"
    assert found.calls_per_day == pytest.approx(86_400 / 2.0)


def test_calls_that_all_failed_measure_no_tokens(tmp_path: Path) -> None:
    failed = [batch(place, input_tokens=0, output_tokens=0) for place in range(2)]
    found = estimated(at(lake_with(tmp_path, failed), spec()), 10.0, None)
    assert found.basis.output_tokens_per_call.value == spec().llm.max_output_tokens
    assert found.llm_usd_per_day > 0


def test_a_high_rate_takes_as_many_machines_as_large_batches_have_shown(tmp_path: Path) -> None:
    large = [batch(place, stored=50_000, seconds=1.0) for place in range(3)]
    found = estimated(at(lake_with(tmp_path, [*BATCHES_DONE, *large]), spec()), 120_000.0, 1.0)
    assert (found.basis.events_per_second.value, found.machines) == (50_000.0, 3)
    assert found.compute_usd_per_day == 72.0


def test_a_fixed_number_of_alerts_a_day_does_not_grow_with_the_rate(tmp_path: Path) -> None:
    for rate in (1.0, 1_000.0):
        assert estimated(at(tmp_path, spec(alerts_per_day=50.0)), rate, None).alerts_per_day == pytest.approx(
            50
        )


def test_without_a_model_only_the_machine_costs(tmp_path: Path) -> None:
    found = estimated(at(lake_with(tmp_path, BATCHES_DONE), spec(llm={"provider": "none"})), 10.0, 1.0)
    assert (found.model, found.calls_per_day, found.llm_usd_per_day) == ("none", 0.0, 0.0)
    assert found.month_usd == 720.0


def test_batches_are_in_order_of_time_whatever_the_files_say(tmp_path: Path) -> None:
    agent = at(lake_with(tmp_path, BATCHES_DONE[::-1]), spec())
    found = cost_by("batch", closed_batches(agent, 0.0), LakeReader.of(agent))
    assert found["batch_id"].to_list() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "arguments",
    [("--forecast", "inf"), ("--forecast", "nan"), ("--compute-price", "nan"), ("--compute-price", "-1")],
)
def test_a_rate_or_a_price_that_is_none_is_bad_input(tmp_path: Path, arguments: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["cost", "--home", str(tmp_path), *arguments])
    assert result.exit_code == 2, result.exception


def test_what_no_price_is_known_of_is_unknown_and_not_free(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(spec(llm={"prices": {}}).model_dump_json(), encoding="utf-8")
    asked = ["cost", "--forecast", "10", "--spec", str(file), "--home", str(tmp_path)]
    done = CliRunner().invoke(app, [*asked, "--json"])
    found = json.loads(done.output)
    assert [found[name] for name in ("llm_usd_per_day", "compute_usd_per_day", "month_usd")] == [None] * 3
    printed = " ".join(CliRunner().invoke(app, asked).output.split())
    assert "unknown: no price of small in llm.prices of the spec" in printed
    assert "--compute-price names one" in printed


def test_a_model_on_this_machine_costs_no_tokens(tmp_path: Path) -> None:
    found = estimated(at(tmp_path, spec(llm={"model": None, "prices": {}})), 10.0, 1.0)
    assert (found.model, found.llm_usd_per_day) == ("local", 0.0)
