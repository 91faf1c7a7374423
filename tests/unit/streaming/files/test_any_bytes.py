"""No bytes of a file end in anything but events or a refusal that names it."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.drafting.checking import check_sample
from streaming.drafting.draft import draft_of
from streaming.drafting.sample import FileSample
from streaming.files.dialect import TextOptions
from streaming.files.event_files import open_events

CONTRACT = parse_document(
    {
        "name": "own",
        "transaction_id": {"field": "id"},
        "event_time": {"field": "ts"},
        "amount": {"field": "a.b"},
        "currency": {"constant": "EUR"},
        "entities": {"card": {"field": "c[0].d"}},
        "extra": {"flag": {"field": "f", "type": "boolean"}},
    },
    EventContract,
    where="test",
)
HEAD = b"id,ts,a.b,c[0].d,f\n"
FEW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
cells = st.binary(max_size=6) | st.sampled_from(
    [
        b"",
        b'"',
        b"'",
        b'""',
        b"1",
        b"1,5",
        b"true",
        b"\xff",
        "ü".encode(),
        b"\0",
        b"\\",
        b'"a\nb"',
        b"2026-11-28T12:00:00Z",
    ]
)
lines = st.lists(cells, max_size=7).map(b",".join)
tables = st.lists(lines | st.just(HEAD.strip()), max_size=6).map(lambda rows: HEAD + b"\n".join(rows))
objects = st.dictionaries(
    st.sampled_from(["id", "ts", "a", "a.b", "c", "f", "x"]),
    st.sampled_from([None, 1, "x", {"b": 2}, [{"d": "e"}], [], True, {"b": {"b": 1}}, [[]]]),
)
written = (
    st.binary(max_size=60)
    | tables
    | st.lists(objects, max_size=4).map(orjson.dumps)
    | st.lists(objects.map(orjson.dumps) | st.binary(max_size=9), max_size=4).map(b"\n".join)
)


@FEW
@given(
    content=written,
    ending=st.sampled_from([".csv", ".json", ".parquet", ".tsv", ".csv.gz", ".jsonl.zst"]),
    packed=st.booleans(),
    strict=st.booleans(),
)
@example(b"\xff\xfe", ".csv", False, True)
@example(b"\x1f\x8b\x08", ".csv", False, True)
@example(b"[" * 100_000, ".json", False, True)
@example(b'{"a":' * 100_000, ".jsonl", False, False)
def test_any_bytes_are_events_or_refused_by_name(
    tmp_path: Path, content: bytes, ending: str, packed: bool, strict: bool
) -> None:
    path = tmp_path / f"any{ending}"
    path.write_bytes(gzip.compress(content) if packed else content)
    try:
        chunks = list(
            open_events(path, CONTRACT, strict=strict, beside=("x",) * (ending == ".json")).chunks()
        )
    except ConfigurationError as fault:
        assert "any" in str(fault)
        return
    for chunk in chunks:
        assert len(chunk.keys) == len(chunk.values)
        assert all(len(values) == len(chunk.keys) for values in chunk.beside.values())
        if strict:
            assert all(isinstance(orjson.loads(value), dict) for value in chunk.values)


@FEW
@given(content=written, ending=st.sampled_from([".csv", ".jsonl"]))
@example(b"\0\0", ".csv")
def test_any_bytes_can_be_drafted_from_and_checked_or_are_refused(
    tmp_path: Path, content: bytes, ending: str
) -> None:
    path = tmp_path / f"any{ending}"
    path.write_bytes(content)
    for tried in (
        lambda: draft_of(FileSample(path, 10)),
        lambda: check_sample(FileSample(path, 10), CONTRACT),
    ):
        try:
            tried()
        except ConfigurationError as fault:
            assert "any" in str(fault)


@pytest.mark.parametrize("encoding", ["ascii", "utf-16", "cp932", "utf-32", "cp1252"])
def test_bytes_that_a_named_encoding_cannot_hold_are_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(HEAD + b"1,2026-11-28T12:00:00Z,5,\x81\xff\x8d,true\n")
    with pytest.raises(ConfigurationError, match="any"):
        list(open_events(path, CONTRACT, options=TextOptions(encoding)).chunks())


def test_types_of_parquet_that_no_event_holds_are_refused_by_column(tmp_path: Path) -> None:
    for values in (pa.array([b"x"]), pa.array([[1]]), pa.array([{"z": 1}]), pa.array([1], pa.duration("s"))):
        sink = io.BytesIO()
        pq.write_table(pa.table({"id": values, "ts": ["x"], "a.b": [1], "c[0].d": ["e"], "f": [True]}), sink)
        path = tmp_path / "any.parquet"
        path.write_bytes(sink.getvalue())
        with pytest.raises(ConfigurationError, match="'id' holds"):
            list(open_events(path, CONTRACT).chunks())
