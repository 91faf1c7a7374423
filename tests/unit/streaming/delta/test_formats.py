"""A lake of a later format is refused by name; one that says nothing is of the first and opens."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from schemas.errors import ConfigurationError
from streaming.delta.formats import FORMAT, FORMAT_KEY
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.maintenance import maintain
from streaming.delta.stored import open_version
from streaming.delta.table_versions import open_for_reading
from streaming.delta.whole_tables import read_stored
from streaming.store.place import Place

SCHEMA = pa.schema([("n", pa.int64())])
KEEP = timedelta(days=30)


def opened(place: Place) -> LakeTable:
    return LakeTable(place, SCHEMA, "agent/epoch", KEEP)


def written(folder: Path) -> Path:
    table = opened(Place.local(folder / "rows"))
    table.append(pa.table({"n": [1, 2]}, SCHEMA), Stamp("a", 0))
    return table.place.path


def in_format(path: Path, number: str) -> None:
    DeltaTable(path).alter.set_table_properties({FORMAT_KEY: number}, raise_if_not_exists=False)


@pytest.mark.parametrize("reading", [opened, open_for_reading, open_version, read_stored, maintain])
@pytest.mark.parametrize("number", [str(FORMAT + 1), "soon", "9" * 5_000])
def test_every_way_in_refuses_a_later_format_by_name(tmp_path: Path, reading: object, number: str) -> None:
    path = written(tmp_path)
    in_format(path, number)
    with pytest.raises(
        ConfigurationError, match=f"format {number[:20]}…?, this flagstream reads up to {FORMAT}"
    ):
        reading(Place.local(path))  # type: ignore[operator]  # functions of a place, with other results


def test_one_version_of_a_later_format_is_refused_too(tmp_path: Path) -> None:
    path = written(tmp_path)
    in_format(path, str(FORMAT + 1))
    assert open_version(Place.local(path), 1) is not None, "a version from before it went over"
    with pytest.raises(ConfigurationError, match="install"):
        open_version(Place.local(path), 2)


def test_a_handle_that_is_open_refuses_what_goes_over_to_a_later_format(tmp_path: Path) -> None:
    path = written(tmp_path)
    writer, reader = opened(Place.local(path)), open_version(Place.local(path))
    assert reader is not None
    in_format(path, str(FORMAT + 1))
    with pytest.raises(ConfigurationError, match="install"):
        reader.refresh()
    with pytest.raises(ConfigurationError, match="install"):
        writer.append(pa.table({"n": [3]}, SCHEMA), Stamp("a", 1))
    assert DeltaTable(path).to_pyarrow_table()["n"].to_pylist() == [1, 2]


def test_a_new_table_says_its_format_in_the_commit_that_creates_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert DeltaTable(path, version=0).metadata().configuration[FORMAT_KEY] == str(FORMAT)
    assert DeltaTable(path).version() == 1, "no commit of its own"


def test_a_table_without_a_number_opens_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "old"
    DeltaTable.create(path, SCHEMA)
    assert opened(Place.local(path)).version == 0
    assert FORMAT_KEY not in DeltaTable(path).metadata().configuration
