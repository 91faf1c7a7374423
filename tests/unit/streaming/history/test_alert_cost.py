"""One alert's part of what a model cost is what `cost --by alert` gives it, read from its batch alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from schemas.alert import ALERTS
from schemas.contract import load_contract
from schemas.lake_tables import lake_schemas
from schemas.tables import BATCHES, LATE
from streaming.delta.lake import Lake
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.delta.lake_table import Stamp
from streaming.delta.stored import StoredTable
from streaming.history.alert_cost import cost_of_alert
from streaming.history.cost import booked
from streaming.store.place import Place
from streaming.testing.small_lake import spec_of
from tests.late_samples import stored_alerts

DAY = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = spec_of(llm={"model": "small", "provider": "openai", "prices": {"small": {"input": 1, "output": 2}}})
TOOK = st.tuples(st.integers(0, 3), st.integers(0, 999), st.integers(0, 99), st.sampled_from([0.0, 0.25]))
_FIGURES = ("llm_calls", "input_tokens", "output_tokens", "cost_usd")


def taken(figures: tuple[int, int, int, float]) -> dict[str, Any]:
    """What some calls took; where nothing was asked, nothing."""
    return dict(zip(_FIGURES, figures if figures[0] else (0, 0, 0, 0.0), strict=True))


def batches_of(figures: list[tuple[int, int, int, float]]) -> list[dict[str, Any]]:
    pins = json.dumps({"model": "small", "prompt": "triage/1"})
    usual = {"query_id": "q", "closed_at": DAY, "stored": 9, "alerts": 3, "pins": pins, "durations": "{}"}
    return [{**usual, "batch_id": at, **taken(each)} for at, each in enumerate(figures)]


def alerts_of(batch_ids: list[int], said: list[tuple[bool, bool]]) -> pa.Table:
    """Alerts in order of their batches, each by a model or not, deferred or not."""
    count = len(batch_ids)
    columns = {
        "query_id": ["q"] * count,
        "batch_id": sorted(batch_ids),
        "classification_source": ["llm" if model else "rules" for model, _ in said[:count]],
        "fallback_reason": ["deferred" if deferred else None for _, deferred in said[:count]],
    }
    rows = stored_alerts(count)
    for name, values in columns.items():
        field = ALERTS.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))
    return rows


def rounds_of(windows: list[tuple[int, int, tuple[int, int, int, float]]]) -> list[dict[str, Any]]:
    usual = {"event": "asked", "at": DAY, "alerts": 0, "given_up": 0}
    return [
        {**usual, "commit": at, "first_outbox_seq": min(a, b), "next_outbox_seq": max(a, b), **taken(each)}
        for at, (a, b, each) in enumerate(windows)
    ]


@pytest.mark.long
@given(
    asked=st.lists(TOOK, min_size=3, max_size=3),
    batch_ids=st.lists(st.integers(0, 2), min_size=1, max_size=9),
    said=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=9, max_size=9),
    windows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), TOOK), max_size=4),
)
@examples(deadline=None, max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
def test_it_is_the_part_that_the_sum_over_all_alerts_gives(
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[tuple[int, int, int, float]],
    batch_ids: list[int],
    said: list[tuple[bool, bool]],
    windows: list[tuple[int, int, tuple[int, int, int, float]]],
) -> None:
    place = Place.local(tmp_path_factory.mktemp("lake"))
    lake = Lake.open(place, SPEC, lake_schemas(load_contract("simulator")), retention=timedelta(days=30))
    lake.batches.append(pa.Table.from_pylist(batches_of(asked), schema=BATCHES), Stamp("q", 0))
    alerts = alerts_of(batch_ids, said)
    lake.alerts.append(alerts, Stamp("q", 0))
    lake.late.append(pa.Table.from_pylist(rounds_of(windows), schema=LATE), Stamp("q", 0))
    reader = LakeReader(place, SPEC.tables)
    expected = {each["alert_id"]: each for each in booked(AgentLake(place, SPEC), "alert", None)["rows"]}
    for alert in alerts.to_pylist():
        found, meant = cost_of_alert(reader, alert), expected[alert["alert_id"]]
        tokens = (0, 0) if found is None else (found.input_tokens, found.output_tokens)
        assert tokens == (meant["input_tokens"], meant["output_tokens"])
        assert (0.0 if found is None else found.usd) == pytest.approx(meant["llm_usd"], abs=1e-9)
        if found is not None:
            assert 0 < found.shared_by <= alerts["batch_id"].to_pylist().count(alert["batch_id"])


def test_no_more_is_read_than_the_windows_of_its_batch_where_the_answer_came_long_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.local(tmp_path)
    lake = Lake.open(place, SPEC, lake_schemas(load_contract("simulator")), retention=timedelta(days=30))
    lake.batches.append(pa.Table.from_pylist(batches_of([(0, 0, 0, 0.0)]), schema=BATCHES), Stamp("q", 0))
    alerts = alerts_of([0] * 40, [(False, True)] * 40)
    answered = {"alert_id": alerts["alert_id"][0].as_py(), "outbox_seq": 39, "revision": 2, "batch_id": 0}
    batch = pa.array([0] + [1] * 38 + [0], pa.int64())
    alerts = alerts.set_column(alerts.schema.get_field_index("batch_id"), ALERTS.field("batch_id"), batch)
    last = pa.Table.from_pylist([{**alerts.to_pylist()[39], **answered}], schema=alerts.schema)
    lake.alerts.append(pa.concat_tables([alerts.slice(0, 39), last]), Stamp("q", 0))
    windows = [(first, first + 1, (1, 10, 5, 0.25)) for first in range(39)]
    lake.late.append(pa.Table.from_pylist(rounds_of(windows), schema=LATE), Stamp("q", 0))
    read, asked = StoredTable.read, list[tuple[object, ...]]()

    def noted(table: StoredTable, *bounds: Any) -> pa.Table:
        asked.append(bounds[1:3])
        return read(table, *bounds)

    monkeypatch.setattr(StoredTable, "read", noted)
    found = cost_of_alert(LakeReader(place, SPEC.tables), last.to_pylist()[0])
    assert found is not None and (found.calls, found.input_tokens) == (1, 10)
    assert asked == [(0, 1)]
