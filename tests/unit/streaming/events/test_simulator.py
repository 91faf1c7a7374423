from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from streaming.events.simulated_json import json_keys, json_lines
from streaming.events.simulator import FRAUD_TYPES, SimulatedBlock, Simulator, SimulatorSettings, rhythm_times

START = datetime(2025, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def days(settings: SimulatorSettings, count: int, number: int = 1) -> list[SimulatedBlock]:
    simulator = Simulator(settings)
    return [simulator.block(count, START + day * DAY, START + (day + 1) * DAY) for day in range(number)]


def joined(blocks: list[SimulatedBlock]) -> pl.DataFrame:
    frames = [pa.concat_tables([getattr(block, name) for block in blocks]) for name in ("events", "labels")]
    return pl.concat([pl.DataFrame(pl.from_arrow(frame)) for frame in frames], how="horizontal")


def test_same_seed_and_calls_give_the_same_bits() -> None:
    chosen = SimulatorSettings(seed=3, duplicate_share=0.05, malformed_share=0.05)
    first, again = days(chosen, 2_000, 3), days(chosen, 2_000, 3)
    assert [json_lines(block) for block in first] == [json_lines(block) for block in again]
    assert all(a.labels.equals(b.labels) for a, b in zip(first, again, strict=True))
    assert json_lines(first[0]) != json_lines(days(SimulatorSettings(seed=4), 2_000)[0])


def test_events_hold_the_fields_of_the_contract_and_no_label() -> None:
    (block,) = days(SimulatorSettings(), 500)
    assert set(block.events.column_names) == set(load_contract("simulator").raw_fields)
    for line, key in zip(json_lines(block), json_keys(block), strict=True):
        event = orjson.loads(line)
        assert set(event) == set(load_contract("simulator").raw_fields)
        assert event["customer_id"].encode() == key
        assert event["amount"] > 0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 400), st.integers(1, 200_000), st.integers(0, 50))
def test_blocks_hold_what_was_asked_for_in_time_order(count: int, seconds: int, seed: int) -> None:
    simulator = Simulator(SimulatorSettings(seed=seed, customers=20, terminals=5, fraud_share=0.3))
    identifiers: list[str] = []
    for part in range(3):
        start = START + part * timedelta(seconds=seconds)
        end = start + timedelta(seconds=seconds)
        events = simulator.block(count, start, end).events
        times = [datetime.fromisoformat(text) for text in events["event_time"].to_pylist()]
        assert len(times) == count
        assert times == sorted(times)
        assert all(start <= each < end for each in times)
        identifiers += events["tx_id"].to_pylist()
    assert len(set(identifiers)) == 3 * count


def test_fraud_has_its_share_in_small_blocks_as_in_large_ones() -> None:
    simulator = Simulator(SimulatorSettings(fraud_share=0.02))
    parts = [START + each * DAY / 1_000 for each in range(1_001)]
    small = [simulator.block(50, a, b) for a, b in pairwise(parts)]
    for blocks in (small, days(SimulatorSettings(fraud_share=0.02), 50_000)):
        labels = joined(blocks)
        assert labels["is_fraud"].mean() == pytest.approx(0.02, rel=0.2)
        assert set(labels["fraud_type"].drop_nulls()) == set(FRAUD_TYPES)
        assert (labels["is_fraud"] == labels["fraud_type"].is_not_null()).all()


def test_each_fraud_leaves_its_mark() -> None:
    rows = joined(days(SimulatorSettings(customers=500, fraud_share=0.01), 50_000, 2))
    usual = rows.filter(~pl.col("is_fraud")).group_by("customer_id").agg(usual=pl.col("amount").median())
    fraud = rows.filter("is_fraud").join(usual, on="customer_id", how="left")
    leaked, testing, terminal, new = (fraud.filter(pl.col("fraud_type") == kind) for kind in FRAUD_TYPES)
    times_usual = (leaked["amount"] / leaked["usual"]).to_numpy()
    assert np.mean((times_usual > 4) & (times_usual < 12)) > 0.98
    assert testing["amount"].to_numpy().max() <= 3
    assert testing.group_by("customer_id").len()["len"].to_numpy().min() >= 5
    payers = terminal.group_by("terminal_id").agg(pl.col("customer_id").n_unique())
    assert payers["customer_id"].to_numpy().min() >= 3
    assert new["usual"].null_count() == new.height > 0
    assert new["amount"].to_numpy().min() >= 900


def test_customers_keep_their_level_and_their_terminals() -> None:
    rows = joined(days(SimulatorSettings(customers=100, terminals=500, fraud_share=0), 50_000))
    rows = rows.filter(pl.len().over("customer_id") > 100)
    logs = rows.with_columns(level=pl.col("amount").log())
    within = logs.group_by("customer_id").agg(pl.col("level").std())["level"].to_numpy().mean()
    assert within < 0.8 * logs["level"].to_numpy().std()
    at_home = rows.group_by("customer_id").agg(pl.col("terminal_id").value_counts(sort=True).head(5))
    shares = at_home.explode("terminal_id").unnest("terminal_id")["count"].sum() / rows.height
    assert shares > 0.85


def test_nights_are_quiet() -> None:
    hours = joined(days(SimulatorSettings(), 50_000))["event_time"].str.slice(11, 2).cast(pl.Int32)
    assert 5 * hours.is_between(2, 4).sum() < hours.is_between(17, 19).sum()


def test_duplicates_follow_their_event_and_malformed_records_are_extra() -> None:
    (block,) = days(SimulatorSettings(duplicate_share=0.1, malformed_share=0.1), 5_000)
    sound = block.faults == 0
    first, places = np.unique(block.sends[sound], return_index=True)
    assert first.tolist() == list(range(5_000))
    assert (np.diff(places) > 0).all()
    assert sound.sum() == pytest.approx(5_500, rel=0.05)
    assert (~sound).sum() == pytest.approx(500, rel=0.2)
    lines = json_lines(block)
    assert len(lines) == len(json_keys(block)) == len(block.sends)
    assert all(not _well_formed(lines[place]) for place in np.flatnonzero(~sound))
    assert all(_well_formed(lines[place]) for place in np.flatnonzero(sound))


def _well_formed(line: bytes) -> bool:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return (
        isinstance(event["customer_id"], str) and isinstance(event["amount"], float) and event["amount"] >= 0
    )


def test_rhythm_inverts_cumulative_traffic() -> None:
    noon = 12 * 3600 * 1_000_000
    shares = np.linspace(0, 1, 1_000)
    times = rhythm_times(shares, 0, 2 * noon)
    assert times[0] == 0
    assert times[-1] == 2 * noon
    assert (np.diff(times) > 0).all()
    # The morning's twelve hours carry 664 of the day's 1,959 parts of traffic.
    assert rhythm_times(np.array([664 / 1959]), 0, 2 * noon)[0] == pytest.approx(noon, abs=2)


@pytest.mark.parametrize(
    "wrong", [{"customers": 0}, {"terminals": 0}, {"fraud_share": 1.5}, {"seed": -1}, {"burst_scale": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        SimulatorSettings(**wrong)  # type: ignore[arg-type]  # the values are numbers of either kind


def test_a_block_without_time_is_refused() -> None:
    with pytest.raises(ValueError, match="start before the end"):
        Simulator(SimulatorSettings()).block(1, START, START)
