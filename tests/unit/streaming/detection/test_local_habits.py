"""Habits by local clocks: daylight saving moves nobody, and without a zone nothing is different."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from schemas.instants import micros_of
from streaming.arrays.zones import offsets_at
from streaming.detection.habit import Habit, Hourly
from streaming.detection.local_times import LocalClocks
from streaming.detection.reasons import habit_sentence
from streaming.detection.scoring import Scorer
from streaming.testing.live_lake import CONTRACT, agent, events
from streaming.testing.trial import trial
from tests.unit.scoring_samples import agent_spec, frame_of, table
from tests.unit.streaming.batch.test_filters import under
from tests.unit.streaming.events.test_times import ZONES

YEAR = 365.0 * 86_400
BERLIN = ZoneInfo("Europe/Berlin")
FIRST = datetime(2026, 1, 5, 10, 30)  # a Monday


def visits(weeks: int, zones: list[str | None] | None = None) -> pa.Table:
    """One customer who comes every Monday at half past ten by a clock in Berlin, and once at four."""
    local = [FIRST + timedelta(weeks=week) for week in range(weeks)]
    local.append(FIRST + timedelta(weeks=weeks, hours=-6.5))
    times = [micros_of(each.replace(tzinfo=BERLIN)) for each in local]
    rows = table(times, [5.0] * len(times), customer=["a"] * len(times))
    return rows if zones is None else rows.append_column("zone", pa.array(zones, pa.string()))


def habit_of(rows: pa.Table, *clocks: Any) -> Hourly:
    return Habit("customer", YEAR, 16, 0.999, LocalClocks(*clocks)).advance(frame_of(rows))


@pytest.mark.parametrize("zone", ZONES)
def test_moments_are_as_far_behind_local_clocks_as_zoneinfo_says(zone: str) -> None:
    draw, tz = random.Random(zone), ZoneInfo(zone)
    moments = [
        datetime(1990, 1, 1, tzinfo=UTC) + timedelta(minutes=draw.randrange(57_000_000)) for _ in range(2_000)
    ]
    year = datetime(2026, 1, 1, tzinfo=UTC)
    moments += [year + timedelta(minutes=15 * quarter) for quarter in range(4 * 24 * 366)]
    expected = [each.astimezone(tz).utcoffset() for each in moments]
    found = offsets_at(zone, np.array([micros_of(each) for each in moments]))
    assert found.tolist() == [each / timedelta(microseconds=1) for each in expected if each is not None]


def test_daylight_saving_moves_nobody() -> None:
    rows = visits(30)
    by_utc, by_berlin = habit_of(rows), habit_of(rows, "Europe/Berlin")
    in_summer, at_night = slice(14, 30), 30
    assert by_utc.found[in_summer].max() > 0.5  # at half past eight UTC, in winter half past nine
    assert by_berlin.found[in_summer].max() < 1e-9
    assert by_berlin.found[at_night] > 0.5
    assert by_berlin.sentences(np.array([at_night]))["habit.customer"][0].startswith(
        "Monday 04:00 Europe/Berlin is an unusual time"
    )


@pytest.mark.parametrize(
    ("moment", "hours", "zone", "said"),
    [
        (datetime.max, 9, "Asia/Tokyo", "Saturday 08:59"),
        (datetime.max, 0, "UTC", "Friday 23:59"),
        (datetime.min, -5, "America/New_York", "Sunday 19:00"),
    ],
)
def test_the_first_and_the_last_day_there_are_have_local_hours(
    moment: datetime, hours: int, zone: str, said: str
) -> None:
    local = micros_of(moment.replace(tzinfo=UTC)) + hours * 3_600_000_000
    assert habit_sentence("customer", local, zone, 3.0).startswith(f"{said} {zone} is an unusual time")


def test_a_column_names_the_zone_of_each_payment() -> None:
    rows = visits(30, [*["Europe/Berlin"] * 30, "Europe/Berlin"])
    assert (
        habit_of(rows, "UTC", "zone").found.tobytes() == habit_of(visits(30), "Europe/Berlin").found.tobytes()
    )
    nowhere = visits(30, [None, "", "Nowhere", "../etc", "europe/berlin", *["\x1b[31m"] * 26])
    found = habit_of(nowhere, "Europe/Berlin", "zone")
    assert found.found.tobytes() == habit_of(visits(30), "Europe/Berlin").found.tobytes()
    assert found.local.zone_of(30) == "Europe/Berlin"


def test_without_a_zone_scores_and_their_definition_stay_what_they_were() -> None:
    names = ("customer", "terminal")
    plain, named = (
        agent_spec(detectors={"habit": each})
        for each in ({"enabled": True}, {"enabled": True, "zone": "UTC"})
    )
    assert not {"zone", "zone_column"} & plain.detectors.habit.model_dump().keys()
    assert Scorer(plain, names).definition_hash == Scorer(named, names).definition_hash
    moved = agent_spec(detectors={"habit": {"enabled": True, "zone": "Europe/Berlin"}})
    assert Scorer(moved, names).definition_hash != Scorer(plain, names).definition_hash


def test_a_zone_or_a_column_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone named 'Berlin'"):
        agent_spec(detectors={"habit": {"zone": "Berlin"}})
    spec = agent_spec(detectors={"habit": {"enabled": True, "zone_column": "contry"}})
    with pytest.raises(ConfigurationError, match="did you mean 'country'") as caught:
        Scorer.under(spec, load_contract("simulator"))
    assert caught.value.key == "detectors.habit.zone_column"


def test_an_agent_with_local_habits_recovers_and_replays(tmp_path: Path) -> None:
    contract = CONTRACT.model_dump(mode="json")
    contract["extra"] = {**contract["extra"], "zone": {"field": "zone"}}
    habit = {"enabled": True, "entities": ["customer"], "zone": "Asia/Tokyo", "zone_column": "zone"}
    spec = under(tmp_path, contract, detectors={"habit": habit})
    zones = ("Europe/Berlin", None, "America/New_York", "Nowhere")
    told = [{**each, "zone": zones[place % 4]} for place, each in enumerate(events(240))]
    for first in (0, 120):
        with trial(tmp_path, spec) as tried:
            tried.send(told[first : first + 60])
            tried.send(told[first + 60 : first + 120])
            assert tried.replay().differences == ()
    assert agent().detectors.habit.zone == "UTC"
