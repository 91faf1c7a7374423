"""Reference tables: each event sees what held at its own time, and replays join nothing."""

from __future__ import annotations

import os
import random
import shutil
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.contract import CONTRACTS, EventContract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.spec import AgentSpec
from streaming.batch.references import References
from streaming.delta.lake_reader import LakeReader
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.health import Condition, Health
from streaming.service.last_read import LastRead
from streaming.testing.live_lake import DAY, agent, events, run_live, without_broker

KEYS = ["m1", "m2", "UNKNOWN", ""]
HOURS = st.integers(0, 48)


def contract(table: Path, /, *, since: str | None = "valid_from", **changes: Any) -> EventContract:
    known = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"))
    reference = {
        "path": str(table),
        "on": {"terminal": "merchant_id"},
        "columns": {"merchant_risk": {"field": "risk", "type": "float"}, "tier": {"field": "tier"}},
        "since": since,
        **changes,
    }
    return parse_document({**known, "references": {"merchants": reference}}, EventContract, where="test")


def at(hours: float) -> datetime:
    return DAY + timedelta(hours=hours)


def table_of(rows: list[tuple[str, int, float]]) -> pa.Table:
    return pa.table(
        {
            "merchant_id": pa.array([key for key, _, _ in rows], pa.string()),
            "valid_from": pa.array([at(hour) for _, hour, _ in rows], pa.timestamp("us", "UTC")),
            "risk": pa.array([risk for _, _, risk in rows], pa.float64()),
            "tier": pa.array([f"tier {risk}" for _, _, risk in rows], pa.string()),
        }
    )


def write(table: pa.Table, folder: Path, form: str) -> Path:
    path = folder / {"delta": "delta", "parquet": "t.parquet", "csv": "t.csv", "folder": "spark"}[form]
    frame = pl.DataFrame(table)
    if form == "delta":
        write_deltalake(path, table, mode="overwrite")
    elif form == "csv":
        frame.with_columns(pl.col("valid_from").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(path)
    elif form == "parquet":
        frame.write_parquet(path)
    else:
        path.mkdir(exist_ok=True)
        frame.head(1).write_parquet(path / "part-00000.parquet")
        frame.slice(1).write_parquet(path / "part-00001.parquet")
    return path


def decoded(rows: list[tuple[str | None, float]]) -> pa.Table:
    return pa.table(
        {
            "event_time": pa.array([at(hour) for _, hour in rows], pa.timestamp("us", "UTC")),
            "terminal": pa.array([key for key, _ in rows], pa.string()),
            "topic": pa.array(["t"] * len(rows)),
        }
    )


@properties(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.sampled_from(KEYS), HOURS, st.floats(0, 1)), unique_by=lambda row: row[:2]),
    asked=st.lists(st.tuples(st.one_of(st.none(), st.sampled_from([*KEYS, "absent"])), HOURS)),
    since=st.booleans(),
)
def test_an_event_sees_the_newest_row_that_held_at_its_time(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int, float]],
    asked: list[tuple[str | None, float]],
    since: bool,
) -> None:
    path = write(table_of(rows), tmp_path_factory.mktemp("reference"), "parquet")
    found = References(contract(path, since="valid_from" if since else None)).join(decoded(asked))
    expected = []
    for key, hour in asked:
        held = [row for row in rows if row[0] == key and (not since or row[1] <= hour)]
        newest = max(held, key=lambda row: row[1]) if since and held else (held or [None])[-1]
        expected.append(None if newest is None else newest[2])
    assert found["merchant_risk"].to_pylist() == expected
    assert found["terminal"].to_pylist() == [key for key, _ in asked]
    assert found.column_names == ["event_time", "terminal", "merchant_risk", "tier", "topic"]


@pytest.mark.parametrize("form", ["delta", "parquet", "csv", "folder"])
def test_a_table_has_any_form_and_its_version_is_pinned(tmp_path: Path, form: str) -> None:
    clock = iter(range(0, 100, 10))
    path = write(table_of([("m1", 0, 0.25), ("m1", 10, 0.5)]), tmp_path, form)
    references = References(contract(path), clock=lambda: next(clock))
    asked = decoded([("m1", 3.0), ("m1", 30.0), ("m9", 30.0), (None, 30.0)])
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.25, 0.5, None, None]
    first = references.pins()
    write(table_of([("m1", 0, 0.75), ("m9", 10, 1.0)]), tmp_path, form)
    references.renew()
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.75, 0.75, 1.0, None]
    assert references.pins() != first


@pytest.mark.parametrize("form", ["delta", "hive"])
def test_a_column_that_only_the_folders_names_hold_is_joined(tmp_path: Path, form: str) -> None:
    table = table_of([("m1", 0, 0.25), ("m 2/ü", 0, 0.5)])
    path = tmp_path / "parts"
    if form == "delta":
        write_deltalake(path, table, partition_by=["merchant_id"])
    else:
        for key, risk in (("m1", 0.25), ("m 2%2Fü", 0.5)):
            (path / f"merchant_id={key}").mkdir(parents=True)
            part = pl.DataFrame(table).filter(pl.col("risk") == risk).drop("merchant_id")
            part.write_parquet(path / f"merchant_id={key}" / "part-0.parquet")
        (path / "_SUCCESS").touch()
        (path / "_temporary").mkdir()
        (path / "_temporary" / "part-9.parquet").write_bytes(b"half-written")
    found = References(contract(path)).join(decoded([("m1", 1.0), ("m 2/ü", 1.0), ("m3", 1.0)]))
    assert found["merchant_risk"].to_pylist() == [0.25, 0.5, None]


def test_a_table_that_is_gone_stays_in_force_and_is_told(tmp_path: Path) -> None:
    clock, health = iter(range(0, 100, 10)), Health()
    path = write(table_of([("m1", 0, 0.25)]), tmp_path, "delta")
    references = References(contract(path), health, clock=lambda: next(clock))
    shutil.rmtree(path)
    references.renew()
    assert [each.condition for each in health.active] == [Condition.REFERENCE_UNREADABLE]
    assert str(path) in health.active[0].cause
    assert references.join(decoded([("m1", 1.0)]))["merchant_risk"].to_pylist() == [0.25]
    write(table_of([("m1", 0, 0.5)]), tmp_path, "delta")
    references.renew()
    assert health.active == ()
    assert references.join(decoded([("m1", 1.0)]))["merchant_risk"].to_pylist() == [0.5]


def test_what_no_column_can_hold_is_null_and_text_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("merchant_id,risk,tier\nm1,not a number,x\nm2,inf,yyyy\nm3,7,\n", encoding="utf-8")
    columns = {
        "merchant_risk": {"field": "risk", "type": "float"},
        "tier": {"field": "tier", "max_length": 2},
        "whole": {"field": "risk", "type": "integer"},
        "flag": {"field": "tier", "type": "boolean"},
    }
    found = References(contract(path, since=None, columns=columns)).join(
        decoded([("m1", 1.0), ("m2", 1.0), ("m3", 1.0)])
    )
    assert found["merchant_risk"].to_pylist() == [None, None, 7.0]
    assert found["tier"].to_pylist() == ["x", "yy", None]
    assert found["whole"].to_pylist() == [None, None, 7]
    assert found["flag"].to_pylist() == [None, None, None]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"on": {"terminal": "merchant"}}, "no column 'merchant'; did you mean 'merchant_id'"),
        ({"on": {"shop": "merchant_id"}}, "references join on columns of the event"),
        ({"columns": {"amount": {"field": "risk"}}}, "'amount' cannot name a column"),
        ({"since": "valid_form"}, "no column 'valid_form'"),
        ({"path": "/nowhere/at/all"}, "no such reference table"),
    ],
)
def test_a_reference_that_cannot_be_joined_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = write(table_of([("m1", 0, 0.25)]), tmp_path, "parquet")
    with pytest.raises(ConfigurationError, match=said):
        References(contract(path, **changes))


TIMES = ["2026-05-01 03:00:00", "2026-05-01T05:00:00+02:00", "2026-05-01T03:00Z", "2026-05-01T03:00:00.0"]
NO_TIMES = ["01/05/2026", "1714521600", "20260501", "soon"]
UNFIT = [[[1]], [{"a": 1}], [b"m"], [timedelta(1)]]


def one_row(path: Path, **columns: Any) -> Path:
    whole = {"merchant_id": ["m1"], "valid_from": [at(0)], "risk": [0.5], "tier": ["a"], **columns}
    pl.DataFrame(whole).write_parquet(path)
    return path


@pytest.mark.parametrize("text", TIMES)
def test_every_text_of_a_time_is_read_by_itself(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"merchant_id,valid_from,risk,tier\nm1,2026-05-01,1,\nm1,{text},2,\nm2,,3,\n", "utf-8")
    asked = decoded([("m1", 2.9), ("m1", 3.1), ("m2", 0.0)])
    assert References(contract(path)).join(asked)["merchant_risk"].to_pylist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_text_that_is_no_time_is_refused_rather_than_held_for_ever(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="'valid_from' is no time of ISO 8601 in row 1"):
        References(contract(one_row(tmp_path / "t.parquet", valid_from=[text])))


@pytest.mark.parametrize("values", UNFIT)
@pytest.mark.parametrize("name", ["merchant_id", "valid_from", "risk"])
def test_columns_of_no_usable_type_are_told_and_end_no_batch(
    tmp_path: Path, name: str, values: list[Any]
) -> None:
    clock, health = iter(range(0, 100, 10)), Health()
    path = one_row(tmp_path / "t.parquet")
    references = References(contract(path), health, clock=lambda: next(clock))
    one_row(path, **{name: values})
    references.renew()
    assert name in health.active[0].cause
    assert references.join(decoded([("m1", 1.0)]))["merchant_risk"].to_pylist() == [0.5]


def test_a_run_that_goes_on_joins_what_it_read_before_of_a_table_that_is_gone(tmp_path: Path) -> None:
    clock, health, last_read = iter(range(0, 100, 10)), Health(), LastRead()
    path = one_row(tmp_path / "t.parquet")

    def attempt() -> References:
        return References(contract(path), health, clock=lambda: next(clock), last_read=last_read)

    first = attempt()
    one_row(path, risk=[0.75])
    first.renew()
    path.unlink()
    again = attempt()
    assert again.join(decoded([("m1", 1.0)]))["merchant_risk"].to_pylist() == [0.75]
    assert [each.condition for each in health.active] == [Condition.REFERENCE_UNREADABLE]
    one_row(path, risk=[0.25])
    again.renew()
    assert health.active == ()
    assert again.join(decoded([("m1", 1.0)]))["merchant_risk"].to_pylist() == [0.25]
    path.unlink()
    with pytest.raises(ConfigurationError, match="no such"):
        References(contract(path))


@pytest.mark.parametrize("moments", [[1_714_521_600], [1.5], [True]])
def test_numbers_are_no_times(tmp_path: Path, moments: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected times or text in ISO 8601"):
        References(contract(one_row(tmp_path / "t.parquet", valid_from=moments)))


def test_a_number_that_is_whole_is_a_key_whatever_holds_it(tmp_path: Path) -> None:
    path = one_row(tmp_path / "t.parquet", merchant_id=[17.0])
    assert References(contract(path)).join(decoded([("17", 1.0)]))["merchant_risk"].to_pylist() == [0.5]


@pytest.mark.parametrize(
    ("value", "whole", "flag"),
    [(2.7, None, None), (1.0, 1, True), (2, 2, None), (0, 0, False), (True, 1, True)],
)
def test_what_is_no_whole_number_or_truth_is_null(
    tmp_path: Path, value: Any, whole: int | None, flag: bool | None
) -> None:
    columns = {"whole": {"field": "v", "type": "integer"}, "flag": {"field": "v", "type": "boolean"}}
    path = one_row(tmp_path / "t.parquet", v=[value])
    found = References(contract(path, columns=columns)).join(decoded([("m1", 1.0)]))
    assert (found["whole"].to_pylist(), found["flag"].to_pylist()) == ([whole], [flag])


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(ConfigurationError, match="cannot be read as a table"):
        References(contract(path))
    with pytest.raises(ConfigurationError, match="without files of data; expected files of one kind"):
        References(contract(tmp_path / "empty", path=str(_empty(tmp_path))))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    return Settings.load(tmp_path / "home", {})


def _agent(tmp_path: Path, table: Path) -> AgentSpec:
    written = tmp_path / "contract.yaml"
    written.write_text(yaml.safe_dump(contract(table).model_dump(mode="json", exclude_none=True)), "utf-8")
    risky = {"name": "risky", "when": "merchant_risk > 0.9", "severity": "high", "reason": "risky merchant"}
    return agent(data_sources={"transactions": {"contract": str(written), "topic": "events"}}, rules=[risky])


def test_rules_read_what_is_joined_and_a_replay_needs_no_table(settings: Settings, tmp_path: Path) -> None:
    table = write(table_of([("m3", 0, 0.2), ("m3", 4, 0.95), ("m4", 0, 0.5)]), tmp_path, "delta")
    spec = _agent(tmp_path, table)
    run_live(PlacedAgent(settings, spec), events(400))
    reader = LakeReader(settings.lake(spec.name), spec.tables)
    stored = reader.frame("transactions", ["terminal", "event_time", "merchant_risk"])
    risky = stored.filter(pl.col("merchant_risk") > 0.9)
    assert (
        risky.height
        == stored.filter((pl.col("terminal") == "m3") & (pl.col("event_time") >= at(4))).height
        > 0
    )
    pins = reader.frame("batches", ["pins"])["pins"][0]
    assert '"references": {"merchants": "version 0"}' in pins
    shutil.rmtree(table)
    assert run_replay(PlacedAgent(settings, spec), ReplaySpan()).differences == ()


def test_a_reference_that_came_later_leaves_older_rows_null(settings: Settings, tmp_path: Path) -> None:
    table = write(table_of([("m3", 0, 0.95)]), tmp_path, "delta")
    spec = _agent(tmp_path, table)
    before = agent(rules=[])
    made = events(400)
    run_live(PlacedAgent(settings, before), made[:200])
    run_live(PlacedAgent(settings, spec.model_copy(update={"version": "1.1.0"})), made[200:], first_batch=3)
    stored = LakeReader(settings.lake(spec.name), spec.tables).frame(
        "transactions", ["sequence", "terminal", "merchant_risk"]
    )
    assert stored.filter(pl.col("sequence") < 200)["merchant_risk"].null_count() == 200
    later = stored.filter((pl.col("sequence") >= 200) & (pl.col("terminal") == "m3"))
    assert later.height > 0
    assert later["merchant_risk"].to_list() == [0.95] * later.height
    assert run_replay(PlacedAgent(settings, spec), ReplaySpan()).differences == ()


def test_a_file_that_is_gone_after_it_was_listed_is_a_condition(tmp_path: Path) -> None:
    folder = tmp_path / "merchants"
    folder.mkdir()
    pq.write_table(table_of([("m1", 0, 0.5)]), folder / "a.parquet")
    health, now = Health(), [0.0]
    references = References(contract(folder), health, lambda: now[0])
    before = references.pins()
    (folder / "b.parquet").symlink_to(folder / "gone.parquet")  # as if it went between listing and looking
    now[0] = 2.0
    references.renew()
    assert [each.condition for each in health.active] == [Condition.REFERENCE_UNREADABLE]
    assert references.pins() == before


def test_a_heading_that_stands_there_twice_goes_by_number_and_is_refused_by_its_bare_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("merchant_id,risk,tier,risk\nm1,0.5,low,0.9\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"no column 'risk'; did you mean 'risk#[12]'"):
        References(contract(path, since=None))
    columns = {"merchant_risk": {"field": "risk#2", "type": "float"}, "tier": {"field": "tier"}}
    joined = References(contract(path, since=None, columns=columns)).join(decoded([("m1", 0)]))
    assert joined.select(["merchant_risk", "tier"]).to_pylist() == [{"merchant_risk": 0.9, "tier": "low"}]


def test_damaged_parquet_is_a_condition_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "merchants.parquet"
    pl.DataFrame({"merchant_id": ["m1", "m2"], "risk": [0.5, 0.7], "tier": ["low", "high"]}).write_parquet(
        path
    )
    good, chance, refused = path.read_bytes(), random.Random(1), 0
    for number in range(400):
        path.write_bytes(good)
        os.utime(path, ns=(number, number))
        health, now = Health(), iter([0.0, 2.0, 2.0])
        references = References(contract(path, since=None), health, partial(next, now))
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(bytes(damaged))
        references.renew()
        refused += any(each.condition is Condition.REFERENCE_UNREADABLE for each in health.active)
    assert refused > 100
