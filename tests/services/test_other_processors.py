"""Lakes that move to another class of processors say so, and are replayed within the tolerance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from streaming.arrays.fingerprint import machine_fingerprint
from streaming.delta.whole_tables import read_stored
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.tolerance import SCORES_WITHIN
from streaming.run.status import read_status
from streaming.testing.live_lake import events, run_live, without_broker
from tests.other_machine import ROWS, VARIANTS, WITHOUT_FMA, has_fma, on, placed

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not has_fma(), reason="no other class of processors can be emulated on this one"),
]


@pytest.fixture(scope="module")
def scored() -> dict[str, dict[str, Any]]:
    return {name: on(variant, "score") for name, variant in VARIANTS.items()}


def test_machines_of_one_fingerprint_give_the_same_scores(scored: dict[str, dict[str, Any]]) -> None:
    by_fingerprint: dict[str, set[str]] = {}
    for said in scored.values():
        by_fingerprint.setdefault(said["fingerprint"], set()).add(said["bits"])
    assert {len(bits) for bits in by_fingerprint.values()} == {1}
    assert scored["as it is"]["fingerprint"] == machine_fingerprint()


def test_without_fma_the_c_library_gives_other_scores_and_another_fingerprint(
    scored: dict[str, dict[str, Any]],
) -> None:
    here, there = scored["as it is"], scored["C library without FMA"]
    assert here["fingerprint"] != there["fingerprint"]
    assert here["bits"] != there["bits"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake that was written here."""
    without_broker(monkeypatch)
    run_live(placed(tmp_path / "home"), events(ROWS))
    assert run_replay(placed(tmp_path / "home"), ReplaySpan()).tolerated is None
    return tmp_path / "home"


def fingerprints(home: Path) -> list[list[str]]:
    batches = read_stored(placed(home).lake / "batches")
    assert batches is not None
    return pl.DataFrame(batches).sort("next_sequence")["fingerprints"].to_list()


def test_another_machine_replays_within_the_tolerance_and_says_how_far_it_was_needed(home: Path) -> None:
    found = on(WITHOUT_FMA, "replay", str(home))
    assert (found["transactions"], found["differing"]) == (ROWS, [])
    tolerated = found["tolerated"]
    assert tolerated["batches"] == len(fingerprints(home))
    assert tolerated["alerts"] > 0
    assert 0.0 < max(tolerated["largest"].values()) < SCORES_WITHIN


def test_a_lake_that_has_moved_says_since_when_and_is_replayed_on_both_machines(home: Path) -> None:
    before = len(fingerprints(home))
    there = on(WITHOUT_FMA, "go-on", str(home))
    assert f"on a machine of fingerprint {machine_fingerprint()}" in there["log"]
    here, elsewhere = machine_fingerprint(), there["fingerprint"]
    assert [set(each) for each in fingerprints(home)][:before] == [{here}] * before
    assert {each for found in fingerprints(home)[before:] for each in found} == {elsewhere}
    status = read_status(placed(home), None)
    assert status.computed_on is not None
    assert (status.computed_on.before, status.computed_on.fingerprint) == (here, elsewhere)
    found = run_replay(placed(home), ReplaySpan())
    assert found.differences == ()
    assert found.tolerated is not None
    assert found.tolerated.batches == len(fingerprints(home)) - before
    again = on(WITHOUT_FMA, "replay", str(home))
    assert again["differing"] == []
    assert again["tolerated"]["batches"] == len(fingerprints(home)), (
        "their state comes from the first machine"
    )
