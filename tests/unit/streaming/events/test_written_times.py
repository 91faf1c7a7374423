"""Times as people write them: short, in brackets, in several fields, without a year, without a stamp."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.instants import micros_of
from schemas.tables import UTC_MICROS
from streaming.events.decode import decode
from streaming.events.exact_decode import ExactDecoder
from streaming.testing.live_lake import agent, events, without_broker
from streaming.testing.live_lake import records as payments
from streaming.testing.trial import trial
from tests.unit.streaming.events.test_decode import (
    NOW,
    STAMP,
    check_against_exact,
    contract,
    event,
    one,
    reason,
    records,
    without,
)

DATES = ("2026-05-28", "20260528", "2026-5-28", "2026-W22-4", "2026-02-29", "0000-01-01", "2026-148")
CLOCKS = ("12:00", "1200", "12:00:05", "120005", "12", "12:00:05.5", "1200.5", "120005.123456", "24:00")
CLOCKS += ("12:00:", "12:0", "12:00:61", "120:00", "12:00,5", "12:00:05.1234567")
OFFSETS = ("", "Z", "+01:00", "-0530", "+01", "z", "+24:00", " Z")
BRACKETS = (
    "",
    "[Europe/Paris]",
    "[Nowhere]",
    "[]",
    "[a][b]",
    "[!UTC]",
    "[u-ca=hebrew]",
    "[[x]",
    "[x]]",
    "[x]y",
)
BRACKETS += ("[" + "x" * 90 + "]", "[../../etc]", "[\u00e9]")
LATE = datetime(2026, 5, 28, 12, tzinfo=UTC)


def of_time(**field: Any) -> EventContract:
    return contract(event_time={"field": "at", **field}, max_record_bytes=2_000)


def time_of(value: bytes, under: EventContract, stamp: int | None = STAMP) -> datetime:
    rows = decode(records([value], [stamp]), under, NOW).valid
    assert rows.num_rows == 1
    found = rows["event_time"][0].as_py()
    assert isinstance(found, datetime)
    return found


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_put_together_is_read_as_the_exact_decoder_reads_it(seed: int, zone: str) -> None:
    draw = random.Random(seed)
    parts = (DATES, ["T", "T", "T", "_"], CLOCKS, OFFSETS, BRACKETS)
    texts = ["".join(map(draw.choice, parts)).replace("_", " ") for _ in range(3_000)]
    taken = records([event(at=text) for text in texts])
    check_against_exact(taken, decode(taken, of_time(zone=zone), NOW), of_time(zone=zone))


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-28T12:00Z",
        "2026-05-28T14:00+02:00[Europe/Paris]",
        "2026-05-28T14:00+02:00[Nowhere/Known]",
        "20260528T120000Z",
        "20260528T1200Z",
        "2026-05-28 12:00",
        "2026-05-28T12:00:00.0Z[UTC]",
    ],
)
def test_short_and_basic_times_are_read_at_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert time_of(event(at=text), of_time()) == LATE
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    assert time_of(event(at=text), of_time()) == LATE


def test_without_an_offset_the_bracket_decides() -> None:
    under = of_time(zone="Asia/Tokyo")
    assert time_of(event(at="2026-05-28T14:00[Europe/Paris]"), under) == LATE
    assert time_of(event(at="2026-05-28T14:00[!Europe/Paris][u-ca=gregory]"), under) == LATE
    assert time_of(event(at="2026-05-28T21:00[u-ca=gregory]"), under) == LATE
    assert reason(event(at="2026-05-28T14:00[Europe/Lutetia]"), under) == "bad_time"


@pytest.mark.parametrize("bracket", ["[Europe/Berlin]", ""])
def test_of_an_hour_that_comes_twice_the_first_counts_and_a_missing_one_is_read_as_before(
    bracket: str,
) -> None:
    under = of_time(zone="Europe/Berlin")
    twice, missing = event(at=f"2025-10-26T02:30:00{bracket}"), event(at=f"2026-03-29T02:30:00{bracket}")
    assert time_of(twice, under) == datetime(2025, 10, 26, 0, 30, tzinfo=UTC)
    assert time_of(missing, under) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


PARTS = contract(event_time={"fields": ["year", "month", "day", "time"], "format": "%Y %m %d %H:%M"})
DAY_AND_TIME = contract(event_time={"fields": ["day", "time"], "zone": "Europe/Berlin"})


@given(st.datetimes(datetime(1990, 1, 2), datetime(2026, 8, 1)))
def test_a_time_in_several_fields_is_one(moment: datetime) -> None:
    moment = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    written = {"year": moment.year, "month": moment.month, "day": f"{moment:%d}", "time": f"{moment:%H:%M}"}
    assert time_of(event(**written), PARTS) == moment


@pytest.mark.parametrize("under", [PARTS, DAY_AND_TIME])
def test_several_fields_are_read_as_the_exact_decoder_reads_them(under: EventContract) -> None:
    draw = random.Random(3)
    choices: dict[str, tuple[Any, ...]] = {
        "year": (2002, "2002", "02", 99, None, 2002.0, "\n", "\ud83d"),
        "month": (9, "09", 12, 0, 13, "9", True, []),
        "day": (1, "31", "2002-09-01", "20020901", " 1", None, 29, "\u0032"),
        "time": ("06:21", "6:21", "06:21:30", "24:00", 621, "", "06:21Z"),
    }
    values = [event(**{name: draw.choice(each) for name, each in choices.items()}) for _ in range(2_000)]
    taken = records(values)
    check_against_exact(taken, decode(taken, under, NOW), under)


def test_several_fields_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    value = event(year=2002, month=9, day=1, time="06:21")
    assert time_of(value, PARTS) == datetime(2002, 9, 1, 6, 21, tzinfo=UTC)
    value = event(day="2026-05-28", time="14:00")
    assert time_of(value, DAY_AND_TIME) == LATE


def test_a_missing_part_is_named() -> None:
    row = one(event(year=2002, month=9, time="06:21"), PARTS)
    assert (row["reason"], row["detail"]) == ("missing_field", "day")


YEARLESS = of_time(format="%d.%m. %H:%M", year="broker", zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "stamp", "expected"),
    [
        ("28.05. 14:00", datetime(2026, 5, 28, 12, 1, tzinfo=UTC), LATE),
        ("28.05. 14:00", datetime(2026, 5, 28, 11, 56, tzinfo=UTC), LATE),
        ("28.05. 14:00", datetime(2026, 5, 28, 11, 54, tzinfo=UTC), datetime(2025, 5, 28, 12, tzinfo=UTC)),
        ("31.12. 23:59", datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, 22, 59, tzinfo=UTC)),
        (
            "01.01. 00:30",
            datetime(2025, 12, 31, 23, 28, tzinfo=UTC),
            datetime(2025, 12, 31, 23, 30, tzinfo=UTC),
        ),
        ("29.02. 12:00", datetime(2026, 3, 1, tzinfo=UTC), datetime(2024, 2, 29, 11, tzinfo=UTC)),
    ],
)
def test_a_year_that_is_left_out_is_the_latest_that_the_stamp_allows(
    text: str, stamp: datetime, expected: datetime
) -> None:
    assert time_of(event(at=text), YEARLESS, micros_of(stamp)) == expected


@given(st.datetimes(datetime(1990, 6, 1), datetime(2025, 6, 1)), st.integers(0, 364 * 86_400))
def test_within_a_year_a_year_that_is_left_out_is_found(moment: datetime, delay: int) -> None:
    moment = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    under = of_time(format="%m-%d %H:%M", year="broker")
    stamp = micros_of(moment + timedelta(seconds=delay))
    assert time_of(event(at=f"{moment:%m-%d %H:%M}"), under, stamp) == moment


@pytest.mark.parametrize(
    ("field", "key", "said"),
    [
        ({"field": "at", "format": "%d.%m."}, "event_time.format", "with 'year: broker'"),
        ({"field": "at", "format": "%Y-%m-%d", "year": "broker"}, "event_time.format", "says the year"),
        ({"field": "at", "year": "broker"}, "event_time", "says the year"),
        ({"field": "at", "format": "%j %H", "year": "broker"}, "event_time.format", "which day of the year"),
        ({"field": "at", "format": "%H:%M", "year": "broker"}, "event_time.format", "names no day"),
        ({"field": "at", "fields": ["a", "b"]}, "event_time", "exactly one of"),
        ({"fields": ["a"]}, "event_time.fields", "at least two"),
        ({"fields": ["a", "b"], "format": "epoch"}, "event_time", "in one field"),
        ({}, "event_time", "exactly one of"),
    ],
)
def test_what_names_no_moment_is_refused(field: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(Exception, match=said) as caught:
        contract(event_time=field)
    assert getattr(caught.value, "key", None) == key


def test_contracts_without_the_new_keys_keep_their_digest() -> None:
    assert not {"fields", "year"} & contract().model_dump()["event_time"].keys()


@pytest.mark.parametrize("stamp", [None, -1_000])
def test_a_record_without_a_stamp_counts_as_stamped_when_it_is_read(stamp: int | None) -> None:
    values = [event(), event(at="2027-06-01T00:00:00Z"), without("who"), None]
    taken = records(values, [stamp] * 4)
    under = contract(tombstones="filter")
    decoded = decode(taken, under, NOW)
    check_against_exact(taken, decoded, under)
    assert decoded.rejected["reason"].to_pylist() == ["time_ahead_of_broker", "missing_field"]
    for part in (decoded.valid, decoded.rejected, decoded.filtered):
        assert set(part["kafka_timestamp"].to_pylist()) == {NOW}


@pytest.mark.parametrize("stamp", [None, -1_000])
def test_an_agent_takes_records_without_stamps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamp: int | None
) -> None:
    without_broker(monkeypatch)
    stream = payments([*events(60), *events(5)])
    missing = pa.array([stamp] * stream.num_rows, UTC_MICROS)
    place = stream.schema.get_field_index("timestamp")
    stream = stream.set_column(place, "timestamp", missing)
    with trial(tmp_path, agent()) as tried:
        for number, first in enumerate((0, 30)):
            part = stream.slice(first, 35)
            offsets = {"events": {"0": first + 35}}
            tried._agent.pipeline.process(lambda part=part: part, "q", number, lambda end=offsets: end)
        assert tried.stored("transactions", "sequence").num_rows == 60
        assert tried.stored("duplicates", "offset").num_rows == 10
        assert tried.replay().differences == ()
