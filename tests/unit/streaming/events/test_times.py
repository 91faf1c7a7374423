"""Times as contracts describe them: fast, and as the exact decoder reads them."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from schemas.instants import micros_of
from streaming.arrays import zones
from streaming.arrays.zones import local_offsets
from streaming.events.decode import decode
from streaming.events.exact_decode import ExactDecoder
from tests.unit.streaming.events.test_decode import NOW, check_against_exact, contract, event, records

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Kathmandu",
]
PATTERNS = [
    *("%Y-%m-%dT%H:%M:%S.%f%z", "%d.%m.%Y %H:%M:%S", "%Y%m%d%H%M%S", "%y/%m/%d %H:%M", "%d/%m/%Y", "iso8601"),
    *("%H:%M:%S,%f %d-%m-%Y", "%Y-%m-%d %% %H", "on %d at %Hh%M, %Y/%m"),
]
BRACKETS = [
    "",
    "",
    "",
    "[Europe/Paris]",
    "[UTC]",
    "[Nowhere]",
    "[!Asia/Kathmandu]",
    "[u-ca=hebrew]",
    "[]",
    "[a][b]",
]
SLOW = ["%d %b %Y %H:%M:%S", "%Y-%m-%d\t%H:%M:%S", "%j %Y %I %p", "%a %Y-%m-%d"]


@pytest.mark.parametrize("zone", ZONES)
def test_local_times_are_as_far_ahead_as_zoneinfo_says(zone: str) -> None:
    draw, tz = random.Random(zone), ZoneInfo(zone)
    moments = [datetime(1990, 1, 1) + timedelta(minutes=draw.randrange(57_000_000)) for _ in range(3_000)]
    changes = [
        (datetime(2026, month, day) + timedelta(minutes=minute))
        for month in range(1, 13)
        for day in range(1, 29)
        for minute in range(0, 300, 15)
    ]
    local = [*moments, *changes]
    micros = np.array([micros_of(each.replace(tzinfo=UTC)) for each in local])
    expected = [each.replace(tzinfo=tz).utcoffset() for each in local]
    assert local_offsets(zone, micros).tolist() == [
        each / timedelta(microseconds=1) for each in expected if each is not None
    ]


def texts(draw: random.Random, pattern: str) -> list[str]:
    """Times in the pattern, and some that are nearly so."""
    shape = "%Y-%m-%dT%H:%M:%S" if pattern == "iso8601" else pattern
    made = []
    for _ in range(150):
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randrange(15_000_000))
        if pattern == "iso8601" or draw.random() < 0.3:
            moment = moment.replace(microsecond=draw.randrange(1_000_000))
        text = moment.strftime(shape)
        if pattern == "iso8601":
            text += draw.choice(["", "Z", ".5", "+05:30", ".123456-00:30", "+0530"])
            text += draw.choice(BRACKETS)
        for _ in range(draw.choice([0, 0, 1, 2])):
            at = draw.randrange(len(text) + 1)
            text = (
                text[:at]
                + draw.choice(["", "0", "9", " ", "-", ":", "Z", "²", "é"])
                + text[at + draw.choice([0, 1]) :]
            )
        made.append(text)
    return made


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("pattern", [*PATTERNS, *SLOW])
def test_whatever_a_time_reads_like_is_what_the_exact_decoder_says(pattern: str, zone: str) -> None:
    under = contract(event_time={"field": "at", "format": pattern, "zone": zone})
    taken = records([event(at=text) for text in texts(random.Random(pattern), pattern)])
    check_against_exact(taken, decode(taken, under, NOW), under)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_times_of_usual_patterns_need_no_detour(
    pattern: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = contract(event_time={"field": "at", "format": pattern, "zone": zone})
    shape = "%Y-%m-%dT%H:%M:%S" if pattern == "iso8601" else pattern
    moment = datetime(2026, 3, 29, 2, 30, 5, tzinfo=UTC)
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    assert decode(records([event(at=moment.strftime(shape))]), under, NOW).valid.num_rows == 1


@pytest.mark.parametrize(
    "bounds", [{}, {"earliest": "0001-01-01T00:00:00Z", "latest": "9999-12-31T00:00:00Z"}]
)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("pattern", ["iso8601", "%Y-%m-%dT%H:%M:%S"])
def test_the_first_and_the_last_years_that_there_are_end_no_batch(
    pattern: str, zone: str, bounds: dict[str, str]
) -> None:
    under = contract(event_time={"field": "at", "format": pattern, "zone": zone, **bounds})
    days = ("0000-01-01", "0001-01-01", "0001-06-05", "0002-01-01", "1989-12-31", "1990-01-01")
    days += ("2099-12-31", "2100-01-01", "9998-12-31", "9999-06-05", "9999-12-31")
    taken = records(
        [event(at=f"{day}T{time}") for day in days for time in ("00:00:00", "12:00:00", "23:59:59")]
    )
    check_against_exact(taken, decode(taken, under, NOW), under)


def test_times_out_of_bounds_cost_no_look_at_their_years(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    changes = zones._changes
    monkeypatch.setattr(zones, "_changes", lambda name, year: looked.append(year) or changes(name, year))
    under = contract(event_time={"field": "at", "format": "iso8601", "zone": "Europe/Berlin"})
    taken = records([event(at=f"{year:04}-05-05T12:00:00") for year in range(1, 10_000, 7)])
    assert decode(taken, under, NOW).valid.num_rows < 30
    assert looked
    assert min(looked) >= 1989
    assert max(looked) <= 2100


@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_in_brackets_needs_no_detour(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    under = contract(event_time={"field": "at", "format": "iso8601", "zone": "America/New_York"})
    local = ["2026-03-29T02:30", "2026-03-29T01:59:59.5", "2025-10-26T02:30", "20260115T120000"]
    expected = [datetime.fromisoformat(each).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for each in local]
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    found = decode(records([event(at=f"{each}[{zone}]") for each in local]), under, NOW)
    assert found.valid["event_time"].to_pylist() == expected


def test_more_names_of_zones_than_anybody_has_are_left_to_the_exact_decoder() -> None:
    under = contract(event_time={"field": "at", "format": "iso8601"})
    taken = records([event(at=f"2026-05-01T12:00[Nowhere/{each}]") for each in range(200)])
    taken_too = records([event(at=f"2026-05-01T12:00[{each}]") for each in sorted(ZONES) * 2])
    check_against_exact(taken, decode(taken, under, NOW), under)
    check_against_exact(taken_too, decode(taken_too, under, NOW), under)


YEARLESS = ["%d.%m. %H:%M", "%m/%d %H:%M:%S", "%d.%m. %H:%M %z", "%d %b %H:%M"]
STAMPS = [
    *("2025-12-31T23:59:00", "2026-01-01T00:00:00", "2026-01-01T11:00:00", "2024-02-29T12:00:00"),
    *("2024-03-01T00:00:00", "2026-05-01T12:00:00", "1970-01-01T00:00:01", "2023-12-31T10:30:00"),
]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"])
@pytest.mark.parametrize("pattern", YEARLESS)
def test_the_year_that_a_time_leaves_out_is_the_exact_decoder_s(pattern: str, zone: str) -> None:
    draw = random.Random(pattern + zone)
    under = contract(
        event_time={"field": "at", "format": pattern, "zone": zone, "year": "broker", "max_ahead": "1h"}
    )
    moments = [
        datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=draw.randrange(527_040)) for _ in range(250)
    ]
    moments += [
        datetime(2024, *day, tzinfo=UTC) for day in ((12, 31, 23, 59), (1, 1, 0, 0), (2, 29, 12, 0))
    ] * 9
    stamps = [micros_of(datetime.fromisoformat(draw.choice(STAMPS)).replace(tzinfo=UTC)) for _ in moments]
    taken = records([event(at=each.strftime(pattern)) for each in moments], stamps)
    check_against_exact(taken, decode(taken, under, NOW), under)


def test_a_time_without_its_year_needs_no_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    under = contract(event_time={"field": "at", "format": "%d.%m. %H:%M", "year": "broker"})
    stamp = micros_of(datetime(2026, 1, 1, 0, 2, tzinfo=UTC))
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    found = decode(records([event(at="31.12. 23:59"), event(at="01.01. 00:01")], [stamp] * 2), under, NOW)
    assert found.valid["event_time"].to_pylist() == [
        datetime(2025, 12, 31, 23, 59, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 1, tzinfo=UTC),
    ]
