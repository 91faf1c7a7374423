"""Rows are sorted as if they were held at once, whatever fits into memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, MachineError
from streaming.files import sorting
from streaming.files.sorting import sorted_batches

SCHEMA = pa.schema(
    [
        ("key", pa.int64()),
        ("row", pa.int32()),
        ("nothing", pa.null()),
        ("At", pa.timestamp("us", "UTC")),
        (
            "nested",
            pa.list_(pa.struct([("a b", pa.decimal128(10, 2)), ("m", pa.map_(pa.string(), pa.binary()))])),
        ),
    ]
)


def table_of(keys: list[int | None]) -> pa.Table:
    rows = [
        {
            "key": key,
            "row": row,
            "At": row * 10**15,
            "nested": [{"a b": row, "m": [("k", b"\xff")]}] * (row % 3),
        }
        for row, key in enumerate(keys)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


@settings(max_examples=10)
@given(
    keys=st.lists(st.one_of(st.none(), st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1)), max_size=40),
    size=st.integers(1, 9),
)
def test_rows_come_by_their_keys_and_else_as_they_came(keys: list[int | None], size: int) -> None:
    table = table_of(keys)
    batches = table.to_batches(max_chunksize=3)
    found = [*sorted_batches(batches, SCHEMA, lambda batch: batch["key"], size)]
    assert pa.Table.from_batches(found, SCHEMA) == table.take(pc.sort_indices(table, [("key", "ascending")]))
    assert all(batch.num_rows == size for batch in found[:-1])


def large(batches: int, rows: int) -> Iterator[pa.RecordBatch]:
    for number in range(batches):
        keys = pa.array(np.arange(number * rows, (number + 1) * rows) * 7919 % 1_047_290)
        texts = pc.binary_join_element_wise(keys.cast(pa.string()), "x" * 200, "-")
        yield pa.record_batch([keys, texts], ["key", "text"])


def test_what_does_not_fit_goes_to_files_that_are_removed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(sorting, "_MEMORY", "48MB")
    schema = pa.schema([("key", pa.int64()), ("text", pa.string())])
    spilt, last, rows = 0, -1, 0
    for batch in sorted_batches(large(40, 10_000), schema, lambda batch: batch["key"], 10_000):
        spilt = max(spilt, sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()))
        keys = batch["key"].to_pylist()
        assert keys == sorted(keys)
        assert keys[0] >= last
        last, rows = keys[-1], rows + batch.num_rows
    assert rows == 400_000
    assert spilt > 1_000_000
    assert [*folder.iterdir()] == []


def test_what_is_wrong_with_the_rows_is_said_as_it_is() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from table_of([1]).to_batches()
        raise ConfigurationError("cannot be read", where="a.parquet")

    with pytest.raises(ConfigurationError, match=r"a\.parquet: cannot be read"):
        list(sorted_batches(broken(), SCHEMA, lambda batch: batch["key"], 10))


def test_rows_that_fit_nowhere_are_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_MEMORY", "1MB")
    schema = pa.schema([("key", pa.int64()), ("text", pa.string())])
    with pytest.raises(MachineError, match="rows cannot be sorted"):
        list(sorted_batches(large(1, 20_000), schema, lambda batch: batch["key"], 100))
