"""Decoded in pieces and packed, records give what they give at once; two moments may judge them alike."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import cast
from zoneinfo import TZPATH

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import DataFrame, Row
from pyspark.sql.pandas.types import from_arrow_schema

from schemas import contract
from schemas.contract import load_contract
from schemas.errors import ConfigurationError, DataLossError
from schemas.subscription import Subscription
from schemas.tables import HEADERS, UTC_MICROS
from streaming.arrays.kernel_cache import sources_digest
from streaming.events import decoder_version as decoder_version_module
from streaming.events.decode import Decoded, decode
from streaming.events.decoder_version import decoder_version
from streaming.events.stamps import judged_alike
from streaming.kafka import executor_decode, executor_intake, intake
from streaming.kafka.executor_decode import ANSWER, DecodedPiece, DecodeOrder, decode_task, decoded_piece
from streaming.kafka.executor_intake import ExecutorIntake
from streaming.kafka.intake import SIZE, Taken, with_topic

CONTRACT = load_contract("simulator")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
PLACES = ("topic", "partition", "offset", "timestamp", "timestampType")
SHARE = 400
GOOD = (
    b'{"tx_id": "t%d", "event_time": "2026-05-01T11:%02d:00Z", "customer_id": "c1", "terminal_id": "m1", '
    b'"amount": 12.5, "currency": "EUR", "memo": "%s"}'
)
STAMPS = st.one_of(
    st.none(),
    st.integers(-86_400 * 10**6, 10**6),
    st.integers(-600, 600).map(lambda seconds: int((NOW + timedelta(seconds=seconds)).timestamp()) * 10**6),
    st.sampled_from([-(2**62), 2**62]),
)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.none(),
    st.tuples(st.integers(0, 9), st.integers(0, 59), st.integers(0, 300)).map(
        lambda made: GOOD % (made[0], made[1], b"x" * made[2])
    ),
)
SCHEMA = pa.schema(
    [
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", HEADERS),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", UTC_MICROS),
        ("timestampType", pa.int32()),
        (SIZE, pa.int32()),
    ]
)


def records(told: list[tuple[bytes | None, int | None]]) -> pa.Table:
    """As Spark hands them to a task: without the contents of those that are above the share."""
    sizes = [len(value or b"") for value, _ in told]
    small = [size <= SHARE for size in sizes]
    count = len(told)
    return pa.Table.from_arrays(
        [
            pa.array([b"k"] * count, pa.binary()),
            pa.array(
                [value if held else None for (value, _), held in zip(told, small, strict=True)], pa.binary()
            ),
            pa.nulls(count, HEADERS),
            pa.array([place % 3 for place in range(count)], pa.int32()),
            pa.array(range(count), pa.int64()),
            pa.array([stamp for _, stamp in told], pa.int64()).cast(UTC_MICROS),
            pa.array([0] * count, pa.int32()),
            pa.array(sizes, pa.int32()),
        ],
        schema=SCHEMA,
    )


def order(now: datetime = NOW) -> DecodeOrder:
    """As a task gets it."""
    made = DecodeOrder(CONTRACT, now, "events", PLACES, SHARE)
    travelled: DecodeOrder = pickle.loads(pickle.dumps(made))
    return travelled


def by_place(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("partition", "ascending"), ("offset", "ascending")])


def same(one: Decoded, other: Decoded) -> bool:
    pairs = [(one.valid, other.valid), (one.rejected, other.rejected), (one.filtered, other.filtered)]
    return all(by_place(a).equals(by_place(b)) for a, b in pairs)


TOLD = st.lists(st.tuples(VALUES, STAMPS), max_size=30)


@given(TOLD, st.lists(st.integers(0, 30), max_size=4))
def test_pieces_on_executors_are_the_records_decoded_at_once(
    told: list[tuple[bytes | None, int | None]], cuts: list[int]
) -> None:
    whole = records(told)
    bounds = sorted({0, len(told), *(cut for cut in cuts if cut < len(told))})
    batches = [whole.slice(a, b - a).combine_chunks().to_batches()[0] for a, b in pairwise(bounds) if b > a]
    rows = [batch for each in decode_task(order(), iter(batches)) for batch in each.to_pylist()]
    answers = [DecodedPiece.unpacked(*row.values()) for row in rows] or [decoded_piece(order(), whole)]
    kept = Taken.of(with_topic(whole, "events").filter(pa.compute.less_equal(whole[SIZE], SHARE))).rows
    at_once = decode(kept.drop_columns([SIZE]), CONTRACT, NOW)
    assert same(Decoded.together([each.decoded for each in answers]), at_once)
    places = pa.concat_tables([each.places for each in answers])
    assert by_place(places).equals(by_place(with_topic(whole, "events").select(list(PLACES))))
    left = pa.concat_tables([each.left for each in answers])
    assert set(left["offset"].to_pylist()) == {
        place for place, (value, _) in enumerate(told) if len(value or b"") > SHARE
    }
    assert {each.made_by for each in answers} == {decoder_version()}


@given(TOLD, st.integers(-900, 900), st.integers(-900, 900))
def test_what_two_moments_judge_alike_is_decoded_alike(
    told: list[tuple[bytes | None, int | None]], one: int, other: int
) -> None:
    rows = Taken.of(
        with_topic(records([each for each in told if len(each[0] or b"") <= SHARE]), "events")
    ).rows
    moments = NOW + timedelta(seconds=one), NOW + timedelta(seconds=other)
    if judged_alike(rows, CONTRACT, *moments):
        first, second = (decode(rows.drop_columns([SIZE]), CONTRACT, each) for each in moments)
        assert same(first, second)


def test_records_with_plain_stamps_are_judged_alike_by_moments_close_together() -> None:
    """Else every batch would be decoded twice."""
    stamp = int(NOW.timestamp()) * 10**6
    rows = with_topic(records([(GOOD % (1, 1, b""), stamp)] * 5), "events")
    assert judged_alike(rows, CONTRACT, NOW, NOW + timedelta(seconds=30))
    assert not judged_alike(rows, CONTRACT, NOW, NOW - timedelta(hours=1))


class Frame:
    """A micro-batch that Spark reads anew for each job; its topic may have removed records in between."""

    def __init__(self, *readings: pa.Table) -> None:
        self._readings, self.schema = iter(readings), from_arrow_schema(readings[0].schema)
        self.sparkSession = self.conf = self  # what is set of a session changes nothing here

    def set(self, name: str, value: object) -> None: ...

    def mapInArrow(  # noqa: N802 -- as Spark names it
        self, work: Callable[..., Iterator[pa.RecordBatch]], _: str
    ) -> Frame:
        self._answers = [
            Row(**row) for answer in work(next(self._readings).to_batches()) for row in answer.to_pylist()
        ]
        return self

    def collect(self) -> list[Row]:
        return self._answers


INTAKE = ExecutorIntake(intake.Intake("nowhere", Subscription(("events",)), 4096 * SHARE), CONTRACT)


def test_a_batch_whose_offsets_hold_no_record_is_like_one_that_holds_some() -> None:
    empty, full = (
        Taken.of(INTAKE.take(cast("DataFrame", Frame(records(told), records(told))), len(told)))
        for told in ([], [(GOOD % (1, 5, b""), int(NOW.timestamp()) * 10**6)])
    )
    assert (empty.places.num_rows, empty.places.schema) == (0, full.places.schema)
    assert empty.away is not None
    assert full.away is not None
    nothing, something = empty.away(CONTRACT, NOW), full.away(CONTRACT, NOW)
    assert (nothing.valid.num_rows, something.valid.num_rows) == (0, 1)
    for name in ("valid", "rejected", "filtered"):
        assert getattr(nothing, name).schema.equals(getattr(something, name).schema), name


@pytest.mark.parametrize(("left", "is_whole"), [(4, True), (3, False), (0, False)])
def test_a_record_that_is_gone_when_it_is_decoded_again_is_missed(left: int, is_whole: bool) -> None:
    read = records([(GOOD % (place, 5, b""), None) for place in range(4)])
    taken = INTAKE.take(cast("DataFrame", Frame(read, read.slice(0, left))), 4)
    assert taken.away is not None, "executors have decoded"
    # Without stamps each record is judged by the moment, so another moment decodes them again.
    if is_whole:
        assert taken.away(CONTRACT, NOW).valid.num_rows == 4
    else:
        with pytest.raises(DataLossError, match=f"of 4 records {left} are left"):
            taken.away(CONTRACT, NOW)


def test_an_executor_with_another_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_intake, "decoder_version", lambda: "Python 9")
    with pytest.raises(ConfigurationError, match=r"cluster: executors decode with Python 3\..*and this"):
        executor_intake._check_version(decoder_version())


def test_the_files_of_time_zones_count_for_the_version(tmp_path: Path) -> None:
    """Records may name any zone, and its rules change from release to release."""
    ours = decoder_version_module.zones_digest()
    assert f"zone files {ours}" in decoder_version()
    place = tmp_path / "Europe" / "Paris"
    place.parent.mkdir()
    place.write_bytes(b"other rules")
    assert decoder_version_module.zones_digest([str(tmp_path), *TZPATH]) != ours
    place.unlink()
    assert decoder_version_module.zones_digest([str(tmp_path), *TZPATH]) == ours


@pytest.mark.parametrize("source", [intake, executor_decode, contract])
def test_every_source_of_a_task_counts_for_the_version(
    source: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read = decoder_version_module._sources(), Path.read_bytes
    path = Path(str(source.__file__))
    monkeypatch.setattr(Path, "read_bytes", lambda each: read(each) + b" " * (each == path))
    sources_digest.cache_clear()
    try:
        assert decoder_version_module._sources() != before
    finally:
        sources_digest.cache_clear()


def test_the_answer_is_named_for_spark_as_it_is_packed() -> None:
    packed = decoded_piece(order(), records([])).packed()
    kinds = {"string": pa.string(), "binary": pa.binary()}
    named = [each.split() for each in ANSWER.split(", ")]
    assert [(name, kinds[kind]) for name, kind in named] == [
        (field.name, field.type) for field in packed.schema
    ]
