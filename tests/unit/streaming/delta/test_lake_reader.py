"""The reading side: declared columns alone, one version of each table, and no other table under a name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, DataLossError
from schemas.lake_tables import TABLES, Table
from schemas.spec import TableNames
from schemas.tables import BATCHES
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.quarantine.requests import read_requests
from streaming.store.place import Place
from streaming.versions.registry_table import read_entries

KEEP = timedelta(days=30)
NAMES = TableNames(batches="closed")


def written(folder: Path, parts: Sequence[Sequence[int]], schema: pa.Schema = BATCHES) -> LakeTable:
    """Return the table `batches` under the name that the spec gives it, one file a part."""
    table = LakeTable(Place.local(folder / "closed"), schema, "agent/epoch", KEEP, TABLES["batches"].later)
    for part in parts:
        rows = pa.Table.from_pylist(
            [{"next_sequence": n, "read": n, "lane": f"l{n}"} for n in part], schema=schema
        )
        table.append(rows, Stamp("a", table.last_batch("a") + 1))
    return table


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_not_there_has_no_rows_of_the_declared_kinds(tmp_path: Path, name: Table) -> None:
    reader, schema = LakeReader(Place.local(tmp_path), NAMES), TABLES[name].schema
    assert reader.rows(name, schema.names).schema.equals(schema)
    assert (reader.count(name), reader.version(name)) == (0, -1)
    assert not reader.place(name).path.exists()


@pytest.mark.long
@properties(deadline=None, max_examples=20, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=4), st.integers(0, 99))
def test_what_fits_is_found_in_every_file(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], least: int
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    written(folder, parts)
    reader, fits = LakeReader(Place.local(folder), NAMES), pc.field("next_sequence") >= least
    expected = sorted(n for part in parts for n in part if n >= least)
    rows = reader.rows("batches", ["read"], fits)
    assert rows.column_names == ["read"]
    assert sorted(rows["read"].to_pylist()) == expected
    assert reader.count("batches") == sum(map(len, parts))
    assert reader.first("batches", ["read"], fits).num_rows == min(len(expected), 1)


def test_one_reader_sees_one_version_of_a_table(tmp_path: Path) -> None:
    table = written(tmp_path, [[1]])
    reader = LakeReader(Place.local(tmp_path), NAMES)
    assert reader.count("batches") == 1
    table.append(pa.Table.from_pylist([{"next_sequence": 2}], schema=BATCHES), Stamp("a", 1))
    assert reader.rows("batches", ["next_sequence"]).num_rows == reader.count("batches") == 1
    assert LakeReader(Place.local(tmp_path), NAMES).count("batches") == 2


def test_a_renewed_reader_opens_what_has_changed_alone(tmp_path: Path) -> None:
    table = written(tmp_path, [[1]])
    reader = LakeReader(Place.local(tmp_path), NAMES)
    seen = reader.table("batches")
    assert reader.table("late") is None
    again = reader.renewed()
    assert again.table("batches") is seen
    table.append(pa.Table.from_pylist([{"next_sequence": 2}], schema=BATCHES), Stamp("a", 1))
    later = again.renewed()
    assert later.table("late") is None
    assert (reader.count("batches"), again.count("batches"), later.count("batches")) == (1, 1, 2)
    LakeTable(later.place("late"), TABLES["late"].schema, "agent/epoch", KEEP)
    assert later.table("late") is None, "one reader sees one state"
    assert later.renewed().table("late") is not None
    shutil.rmtree(tmp_path / "closed")
    assert later.renewed().table("batches") is None


def test_a_version_is_read_beside_what_the_reader_sees(tmp_path: Path) -> None:
    table = written(tmp_path, [[1], [2, 3]])
    reader = LakeReader(Place.local(tmp_path), NAMES)
    one, now = reader.at("batches", table.version - 1), reader.at("batches")
    assert one is not None and now is not None
    assert (one.count(), now.count(), now.version) == (1, 3, table.version)
    assert reader.at("batches", table.version + 1) is None
    assert reader.at("shadow") is None


def test_columns_that_came_later_are_null_in_older_rows_and_can_be_asked_about(tmp_path: Path) -> None:
    old = pa.schema([field for field in BATCHES if field.name not in TABLES["batches"].later])
    written(tmp_path, [[1], [2]], old)
    reader = LakeReader(Place.local(tmp_path), NAMES)
    assert reader.rows("batches", ["lane"])["lane"].to_pylist() == [None, None]
    written(tmp_path, [[3]])
    found = LakeReader(Place.local(tmp_path), NAMES)
    assert found.rows("batches", ["read"], pc.field("lane").is_null())["read"].to_pylist() in ([1, 2], [2, 1])
    assert found.rows("batches", ["read"], pc.field("lane") == "l3")["read"].to_pylist() == [3]


def test_another_table_under_the_name_is_refused(tmp_path: Path) -> None:
    LakeTable(Place.local(tmp_path / "closed"), pa.schema([("n", pa.int64())]), "agent/epoch", KEEP)
    with pytest.raises(ConfigurationError, match="another table than 'batches': it has no column"):
        LakeReader(Place.local(tmp_path), NAMES).rows("batches", ["read"])


@pytest.mark.parametrize("name", ["specs", "requeues", "findings", "labels"])
def test_data_files_without_their_log_do_not_count_as_no_table(tmp_path: Path, name: Table) -> None:
    table = LakeTable(Place.local(tmp_path / name), TABLES[name].schema, "agent/epoch", KEEP)
    nulls = {field.name: 0 if pa.types.is_integer(field.type) else None for field in table.schema}
    row = pa.Table.from_pylist([nulls], schema=pa.schema([f.with_nullable(True) for f in table.schema]))
    pq.write_table(row, table.place.path / "part-0.parquet")
    shutil.rmtree(table.place.path / "_delta_log")
    with pytest.raises(DataLossError, match="the log that says which of them count is gone"):
        LakeReader(Place.local(tmp_path), TableNames()).rows(name, TABLES[name].schema.names)
    with pytest.raises(DataLossError, match="restore its"):
        LakeTable(Place.local(tmp_path / name), TABLES[name].schema, "agent/epoch", KEEP)


def test_a_registry_and_requests_that_are_another_table_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("specs", "requeues"):
        LakeTable(Place.local(tmp_path / name), pa.schema([("n", pa.int64())]), "agent/epoch", KEEP)
    with pytest.raises(ConfigurationError, match="another table than 'specs'"):
        read_entries(Place.local(tmp_path / "specs"))
    with pytest.raises(ConfigurationError, match="another table than 'requeues'"):
        read_requests(Place.local(tmp_path / "requeues"))
