"""Detectors of places and hours, and what stands in for an entity with little history."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import load_contract
from schemas.detection import ProfileSettings, TravelDetector
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.detection.habit import Habit
from streaming.detection.scoring import Scorer
from streaming.detection.travel import Travel
from tests.unit.scoring_samples import SECOND, START, agent_spec, frame_of, load, save, stream, table

HOUR, DAY = 3600, 86_400
YEAR = 365.0 * DAY
PARIS, TOKYO, VERSAILLES = (48.8566, 2.3522), (35.6762, 139.6503), (48.8014, 2.1301)
MONDAY = 1_600_041_600  # 2020-09-14 00:00 UTC


def journeys(visits: list[tuple[str | None, float, tuple[float, float]]]) -> pa.Table:
    """Visits of customers: name, seconds since the start, place."""
    rows = table(
        [START + int(second * SECOND) for _, second, _ in visits],
        [5.0] * len(visits),
        customer=[name for name, *_ in visits],
    )
    for place, name in enumerate(("latitude", "longitude")):
        rows = rows.append_column(name, pa.array([where[place] for *_, where in visits], pa.float64()))
    return rows


def travel(**changes: Any) -> Travel:
    return Travel("customer", TravelDetector(enabled=True, **changes), 16, 0.5)


def test_distance_and_speed_are_those_of_the_great_circle() -> None:
    found = travel().advance(frame_of(journeys([("a", 0, PARIS), ("a", 10 * HOUR, TOKYO)])))
    kilometres, speeds = found.features()
    assert math.isnan(kilometres[0])
    assert kilometres[1] == pytest.approx(9712, rel=2e-3)  # as published for Paris - Tokyo
    assert speeds[1] == pytest.approx(kilometres[1] / 10)


@pytest.mark.parametrize(
    ("hours", "place", "impossible"),
    [
        (10.0, TOKYO, False),
        (9.0, TOKYO, True),
        (0.0, TOKYO, True),
        (0.0, VERSAILLES, False),
        (-1.0, TOKYO, True),
    ],
)
def test_what_is_too_far_for_the_time_is_impossible(
    hours: float, place: tuple[float, float], impossible: bool
) -> None:
    visits = [("a", 20.0 * HOUR, PARIS), ("a", (20.0 + hours) * HOUR, place)]
    nats = travel().advance(frame_of(journeys(visits))).nats["travel.customer"]
    assert nats[0] == 0.0
    assert (nats[1] > 0.0) == impossible


def test_impossible_trips_surprise_by_how_rare_they_are() -> None:
    detector = travel()
    usual = [(f"c{row % 10}", row * 60.0, PARIS) for row in range(16 * 40)]
    detector.commit(detector.advance(frame_of(journeys(usual))))
    after = journeys([("c1", 16 * 40 * 60.0, TOKYO)])
    after = after.set_column(0, "sequence", pa.array([16 * 40]))
    found = detector.advance(frame_of(after))
    # The census halves at each block: 16 / (1 - 1/2) moves, none impossible, add-one smoothed.
    assert found.nats["travel.customer"][0] == pytest.approx(math.log(32 + 2), rel=1e-3)
    assert found.sentences(np.array([0]))["travel.customer"] == [
        "9,712 km from this customer's last place 9 minutes before, 64,745 km/h; "
        "1 in 34 trips is as impossible"
    ]


def test_places_that_are_none_say_nothing_and_are_not_remembered() -> None:
    nowhere = (float("nan"), 1.0)
    beyond = (91.0, 0.0)
    visits = [
        ("a", 0.0, PARIS),
        ("a", 1.0, nowhere),
        ("a", 2.0, beyond),
        (None, 3.0, TOKYO),
        ("a", 4.0, PARIS),
    ]
    found = travel().advance(frame_of(journeys(visits)))
    assert np.isnan(found.features()[0]).tolist() == [True, True, True, True, False]
    assert found.features()[0][4] == 0.0
    assert not found.nats["travel.customer"].any()


def weekly(name: str, weekday: int, hour: int, weeks: int) -> list[tuple[str, int]]:
    return [(name, MONDAY + (7 * week + weekday) * DAY + hour * HOUR) for week in range(weeks)]


def hours_of(visits: list[tuple[str, int]], at: int = 0) -> pa.Table:
    return table(
        [second * SECOND for _, second in visits], [5.0] * len(visits), at, customer=[n for n, _ in visits]
    )


def test_an_unusual_hour_surprises_by_the_entity_s_own_habit() -> None:
    habits = (("early", 0, 7), ("early", 2, 7), ("late", 0, 22), ("late", 2, 22))
    visits = sorted((each for one in habits for each in weekly(*one, 12)), key=lambda each: each[1])
    habit = Habit("customer", YEAR, 16, 0.999)
    habit.commit(habit.advance(frame_of(hours_of(visits))))
    later = MONDAY + 12 * 7 * DAY
    hours = [("early", later + 7 * HOUR), ("early", later + 22 * HOUR), ("new", later + 3 * HOUR)]
    found = habit.advance(frame_of(hours_of(hours, 48)))
    usual, unusual, unknown = found.nats["habit.customer"].tolist()
    assert usual == pytest.approx(0.0, abs=0.7)
    assert unusual > 1.0 > usual
    assert unknown == 0.0
    assert found.sentences(np.array([1]))["habit.customer"][0].startswith(
        "Monday 22:00 UTC is an unusual time for this customer: 1 in "
    )


def with_places(rows: pa.Table, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    for name, reach in (("latitude", 95.0), ("longitude", 180.0)):
        rows = rows.append_column(name, pa.array(random.uniform(-reach, reach, rows.num_rows)))
    return rows


def scorer() -> Scorer:
    detectors = {"travel": {"enabled": True, "entities": ["customer"]}, "habit": {"enabled": True}}
    spec = agent_spec(detectors=detectors, profiles={"block_rows": 16, "pairs": [["customer", "terminal"]]})
    return Scorer(spec, ("customer", "terminal"))


@given(st.lists(st.integers(1, 149), max_size=10), st.integers(0, 1000))
@settings(deadline=None, derandomize=True, max_examples=6)
def test_cutting_and_checkpoints_change_no_bit(tmp_path_factory: Any, cuts: list[int], seed: int) -> None:
    rows, folder = with_places(stream(150, seed), seed), tmp_path_factory.mktemp("checkpoints")
    whole, parts, found = scorer(), scorer(), []
    once = whole.score(rows)
    for start, end in pairwise([0, *sorted(set(cuts)), 150]):
        resumed = scorer()
        if start:
            save(parts, folder)
            assert load(resumed, folder) == ()
        found.append(resumed.score(rows.slice(start, end - start)).log_odds)
        parts.fold(rows.slice(start, end - start))
    assert np.concatenate(found).tobytes() == once.log_odds.tobytes()
    shares = once.base + once.contributions.sum(axis=1)
    assert np.abs(shares - once.log_odds).max() < 1e-9


def test_each_reason_has_its_sentence() -> None:
    rows, scoring = with_places(stream(600, 3), 3), scorer()
    scored = scoring.score(rows)
    striking = scored.reason_names.index("travel.customer")
    row = int(np.argmax(scored.contributions[:, striking]))
    texts = {reason.name: reason.text for reason in scored.reasons(row)}
    assert " km from this customer's last place " in texts["travel.customer"]


def test_a_pair_is_not_new_twice_when_one_of_the_two_is() -> None:
    rows = stream(3000, 1, customers=5, terminals=5)
    extra = table(
        [START + 10**13 + each for each in range(3)],
        [5.0] * 3,
        3000,
        customer=["c1", "fresh", "lonely"],
        terminal=["t-other", "t1", "t-lonely"],
    )
    scoring = scorer()
    scoring.fold(with_places(rows, 1))
    scored = scoring.score(with_places(extra, 2))
    assert not scored.evidence[:, scoring.reason_names.index("novelty.customer+terminal")].any()
    assert scored.evidence[1:, scoring.reason_names.index("novelty.customer")].all()


def test_an_entity_with_little_history_is_judged_by_its_peers() -> None:
    random = np.random.default_rng(5)
    rich = random.random(2000) < 0.5
    rows = table(
        START + np.arange(2000) * 60 * SECOND,
        np.where(rich, 1000.0, 10.0) * np.exp(random.normal(0, 0.3, 2000)),
        customer=[f"{kind}{number}" for kind, number in zip(rich, random.integers(0, 50, 2000), strict=True)],
        segment=["rich" if each else "plain" for each in rich],
    )
    peers = agent_spec(profiles={"block_rows": 16, "peers": {"customer": "segment"}})
    alike, alone = Scorer(peers, ("customer", "segment")), Scorer(agent_spec(), ("customer", "segment"))
    new = table(
        [START + 3000 * 60 * SECOND] * 2, [1000.0] * 2, 2000, customer=["x", "y"], segment=["rich", "plain"]
    )
    ratios = []
    for scoring in (alike, alone):
        scoring.fold(rows)
        scored = scoring.score(new)
        ratios.append(scored.features()[:, scoring.feature_names.index("log_ratio.customer")].tolist())
    assert abs(ratios[0][0]) < 0.2
    assert ratios[0][1] == pytest.approx(math.log(100), abs=0.4)
    assert ratios[1][0] == ratios[1][1]
    assert alike.definition_hash != alone.definition_hash


def test_peers_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'b', the peers of 'a', cannot have peers in turn"):
        parse_document({"peers": {"a": "b", "b": "c"}}, ProfileSettings, where="spec.yaml")
    with pytest.raises(ConfigurationError, match="no entity 'segments' has a profile"):
        Scorer(agent_spec(profiles={"peers": {"customer": "segments"}}), ("customer", "segment"))


def test_coordinates_that_the_contract_lacks_are_refused() -> None:
    contract = load_contract("simulator")
    spec = agent_spec(detectors={"travel": {"enabled": True, "latitude": "lat"}})
    with pytest.raises(ConfigurationError, match="no column 'lat' of numbers in the contract"):
        Scorer.under(spec, contract)
