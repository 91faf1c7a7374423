"""The two arithmetics of scores: which one decides a lake, and what absurd amounts can do under each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.spec import NEWEST_ARITHMETIC, AgentSpec
from streaming.delta.whole_tables import read_stored
from streaming.detection.scoring import Scorer
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent, events, run_live, without_broker
from streaming.versions.arithmetic import with_arithmetic
from tests.registry_rows import activate, entry, put
from tests.unit.old_lake import OF_2026_11 as OLD
from tests.unit.scoring_samples import SECOND, START, agent_spec, load, save, table

ENTITIES = ("customer", "terminal")
ROWS, PLANTED = 1_200, 1_195


def spec_of(arithmetic: int, block_rows: int = 64) -> AgentSpec:
    return agent_spec(arithmetic=arithmetic, profiles={"block_rows": block_rows})


def poisoned(count: int, amount: float, seed: int = 1, strangers: bool = True) -> pa.Table:
    """A stream with a payment of forty times the usual amount near its end, and absurd ones before it."""
    random = np.random.default_rng(seed)
    amounts = np.round(np.exp(random.normal(3.0, 0.5, ROWS)), 2)
    customers, terminals = random.integers(0, 60, ROWS), random.integers(0, 40, ROWS)
    rows = random.choice(np.arange(20, ROWS - 200), count, replace=False)
    amounts[rows], amounts[PLANTED], customers[PLANTED] = amount, 900.0, 59
    customers[rows] = np.arange(count) + 1_000 * strangers
    if strangers:
        terminals[rows] = 1_000 + np.arange(count)
    ids = {
        name: [f"{name}{number}" for number in of]
        for name, of in zip(ENTITIES, (customers, terminals), strict=True)
    }
    return table(START + np.arange(ROWS) * 30 * SECOND, amounts, **ids)


def planted_score(spec: AgentSpec, rows: pa.Table) -> float:
    return float(Scorer(spec, ENTITIES).score(rows).score[PLANTED])


@pytest.mark.parametrize("seed", range(3))
def test_absurd_amounts_of_known_customers_cost_an_anomaly_next_to_nothing(seed: int) -> None:
    """By the default blocks; each of them learns from its first payments that anything is usual."""
    rows = poisoned(100, 1e308, seed, strangers=False)
    assert planted_score(spec_of(2, AgentSpec.model_fields["profiles"].default.block_rows), rows) > 0.995


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 40),
    st.floats(5e-324, 1.7976931348623157e308),
    st.integers(0, 1_000),
    st.sampled_from([64, 1_024]),
)
def test_absurd_amounts_cost_an_anomaly_no_more_than_places_in_the_order(
    count: int, amount: float, seed: int, block_rows: int
) -> None:
    """A score is the share of rows with less evidence: each absurd row may take a few places, no more."""
    spec = spec_of(NEWEST_ARITHMETIC, block_rows)
    clean, moved = (planted_score(spec, poisoned(each, amount, seed)) for each in (0, count))
    assert clean > 0.995
    assert clean - moved <= 4 * count / ROWS


@pytest.mark.parametrize("strangers", [True, False])
def test_ten_largest_amounts_leave_an_anomaly_striking(strangers: bool) -> None:
    rows = poisoned(10, 1e308, strangers=strangers)
    assert planted_score(spec_of(2, 1_024), rows) > 0.999
    assert planted_score(spec_of(2, 64), rows) > 0.95
    assert planted_score(spec_of(1, 1_024), poisoned(50, 1e308)) < 0.5, "what it was made for"


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, ROWS - 1), max_size=6, unique=True))
def test_scores_do_not_depend_on_the_cut_into_batches(cuts: list[int]) -> None:
    rows = poisoned(10, 1e300)
    whole = Scorer(spec_of(2), ENTITIES).score(rows)
    running = Scorer(spec_of(2), ENTITIES)
    found = []
    for first, end in zip([0, *sorted(cuts)], [*sorted(cuts), ROWS], strict=True):
        scored = running.score(rows.slice(first, end - first))
        running.commit(scored)
        found.append(scored.log_odds)
    assert np.concatenate(found).tolist() == whole.log_odds.tolist()


def test_a_checkpoint_within_a_block_goes_on_to_the_bit(tmp_path: Path) -> None:
    rows, first = poisoned(10, 1e300), 777
    running, resumed = (Scorer(spec_of(2), ENTITIES) for _ in range(2))
    running.fold(rows.slice(0, first))
    save(running, tmp_path)
    assert load(resumed, tmp_path) == ()
    expected, found = (each.score(rows.slice(first)) for each in (running, resumed))
    assert found.log_odds.tolist() == expected.log_odds.tolist()


def moments_of_a_free_first_payment(arithmetic: int, *, named: bool) -> list[float]:
    """What a customer's first payment, of 0, leaves; terminals of earlier ones are named or not."""
    rows, customers = 200, [f"c{number % 30}" if number % 2 or named else None for number in range(199)]
    amounts = np.append(np.exp(np.random.default_rng(2).normal(3.0, 1.0, rows - 1)), 0.0)
    times = START + np.arange(rows) * SECOND
    scorer = Scorer(spec_of(arithmetic), ("customer",))
    scorer.fold(table(times, amounts, customer=[*customers, "new"]))
    known: list[float] = scorer.snapshot().profiles["customer"].state.moments[-1, -1].tolist()
    return known


def test_what_stands_in_for_no_amount_follows_from_sequence_and_amount_alone() -> None:
    one, other = (moments_of_a_free_first_payment(2, named=named) for named in (True, False))
    assert one == other
    assert one[2] == pytest.approx(3.0, abs=0.3)
    earlier = [moments_of_a_free_first_payment(1, named=named)[2] for named in (True, False)]
    assert earlier[0] != earlier[1], "which rows name a customer mattered"


def test_the_first_arithmetic_is_what_had_no_number() -> None:
    unnamed, first, second = agent_spec(), agent_spec(arithmetic=1), agent_spec(arithmetic=2)
    hashes = [Scorer(each, ENTITIES).definition_hash for each in (unnamed, first, second)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert "arithmetic" not in unnamed.model_dump()
    assert len({each.digest for each in (unnamed, first, second)}) == 3


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    return Settings.load(tmp_path / "home", {})


def pinned(home: Settings, name: str) -> list[int | None]:
    batches = pl.DataFrame(read_stored(home.lake(name) / "batches")).sort("next_sequence")
    specs = batches["pins"].str.json_path_match("$.spec.arithmetic")
    return [None if each is None else int(each) for each in specs]


def test_a_new_lake_begins_with_the_newest_and_stays_with_it(home: Settings) -> None:
    spec = agent()
    run_live(PlacedAgent(home, spec), events(120))
    assert pinned(home, spec.name) == [NEWEST_ARITHMETIC] * 2
    assert with_arithmetic(agent(version="1.0.1"), PlacedAgent(home, spec)).arithmetic == NEWEST_ARITHMETIC
    assert with_arithmetic(agent(arithmetic=1), PlacedAgent(home, spec)).arithmetic == 1


def test_a_lake_of_before_keeps_the_first_until_another_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    home = OLD.unpacked("closed", tmp_path)
    spec = OLD.spec_of(home)
    assert with_arithmetic(spec, PlacedAgent(home, spec)) == spec
    new = spec.model_copy(update={"version": "1.2.0"})
    assert with_arithmetic(new, PlacedAgent(home, spec)).arithmetic == NEWEST_ARITHMETIC, (
        "a new version of its registry"
    )
    bare = home.lake(spec.name) / "specs"
    bare.path.rename(tmp_path / "specs")
    assert with_arithmetic(new, PlacedAgent(home, spec)) == new, "without a registry it goes on as it is"


def test_a_promoted_version_brings_the_newest_and_all_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    home = OLD.unpacked("closed", tmp_path)
    before = OLD.spec_of(home)
    after = with_arithmetic(before.model_copy(update={"version": "1.2.0"}), PlacedAgent(home, before))
    put(home, entry(after, "sandbox"))
    activate(home, after, before)
    records = OLD.next_records()
    OLD.run(home, records.slice(0, 60), records.slice(60))
    assert pinned(home, before.name)[-3:] == [None, NEWEST_ARITHMETIC, NEWEST_ARITHMETIC]
    assert OLD.replayed_exactly(home)[0] == 2_850
