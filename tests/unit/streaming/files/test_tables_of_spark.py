"""Tables that Spark wrote, kept as it wrote them: what is read is what its statements said."""

from __future__ import annotations

import tarfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigurationError
from streaming.files.delta_table import DeltaTableRows
from tests.unit.old_lake import FIXTURES


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark")
    with tarfile.open(FIXTURES / "tables_of_spark" / "tables.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return folder


def rows(table: Path, version: int | None = None) -> list[dict[str, Any]]:
    opened = DeltaTableRows(table, version)
    found: list[dict[str, Any]] = opened.whole().to_pylist()
    assert opened.count() == len(found)
    return sorted(found, key=lambda row: str(next(iter(row.values()))).zfill(20))


def row_of_dv(number: int, *, updated: bool = True) -> dict[str, Any]:
    text = "new" if updated and number % 10 == 1 else f"v{number}"
    return {"id": number, "day": date(2026, 1, 1) + timedelta(days=number % 2), "v": text}


def test_deleted_rows_stay_deleted_at_every_version(tables: Path) -> None:
    left = [number for number in range(100) if number % 7 != 3]
    assert rows(tables / "dv", 1) == [row_of_dv(number, updated=False) for number in range(100)]
    assert rows(tables / "dv", 2) == [row_of_dv(number, updated=False) for number in left]
    assert rows(tables / "dv", 3) == [row_of_dv(number) for number in left]
    assert rows(tables / "dv") == [row_of_dv(number) for number in left if number != 50]


@pytest.mark.parametrize("mode", ["name", "id"])
def test_renamed_dropped_and_new_columns(tables: Path, mode: str) -> None:
    def row(number: int) -> dict[str, Any]:
        return {
            "id": number,
            "part": f"p/{number % 2}",
            "new name": f"o{number}",
            "nest": {"aa": number, "b": {"c": "C"}},
            "arr": [{"xx": 1, "y": "Y"}],
            "m": [("k", {"zz": 3})],
            "gone": None,
        }

    appended = {
        "id": 10,
        "part": "pp",
        "new name": "n1",
        "nest": {"aa": 7, "b": {"c": "D"}},
        "arr": [],
        "m": [],
        "gone": "fresh",
    }
    assert rows(tables / f"cm_{mode}") == [*(row(number) for number in (0, 1, 2, 4)), appended]
    first = rows(tables / f"cm_{mode}", 1)
    assert [(each["part col"], each["old"], each["gone"]) for each in first[:2]] == [
        ("p/0", "o0", 1),
        ("p/1", "o1", 1),
    ]


def test_files_from_before_columns_were_mapped(tables: Path) -> None:
    assert rows(tables / "upgraded") == [{"id": 1, "b": "x"}, {"id": 2, "b": "y"}]


def test_widened_types(tables: Path) -> None:
    narrow, wide = rows(tables / "widening")
    assert narrow == {
        "a": 1,
        "b": 2,
        "c": pytest.approx(1.1, rel=1e-6),
        "d": date(2026, 1, 1),
        "e": Decimal("1.2500"),
        "f": 3.0,
        "g": Decimal("4.00"),
        "p": 5,
    }
    assert (wide["a"], wide["b"], wide["c"], wide["p"]) == (100_000, 10_000_000_000, 1.1, 7_000_000_000)


def test_the_least_and_the_largest_times(tables: Path) -> None:
    moments = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC),
    ]
    found = rows(tables / "times")
    assert [each["t"] for each in found] == moments
    assert [each["n"].replace(tzinfo=UTC) for each in found] == moments
    assert [each["d"] for each in found] == [date(1, 1, 1), date(9999, 12, 31), date(1500, 2, 28)]


def test_checkpoints_of_every_kind(tables: Path) -> None:
    log = tables / "v2cp" / "_delta_log"
    assert [*(log / "_sidecars").iterdir()]
    assert [*(tables / "multi" / "_delta_log").glob("*.checkpoint.*.*.parquet")]
    for entry in (each for name in ("v2cp", "multi") for each in (tables / name / "_delta_log").iterdir()):
        if entry.name[20:] == ".json" and int(entry.name[:20]) < 4:
            entry.unlink()
    assert rows(tables / "v2cp") == [{"id": number} for number in range(5)]
    assert rows(tables / "multi") == [{"id": number, "p": number} for number in range(5)]


def test_partitions_that_paths_must_encode(tables: Path) -> None:
    texts = ["a/b:c%d=e f é", None, None, "plain", None, "a%2Fb", "+", "#?&", '"q"', "'s"]
    assert [each["p"] for each in rows(tables / "part_string")] == texts
    assert [each["p"] for each in rows(tables / "part_timestamp")] == [
        datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC),
        datetime(2026, 1, 1, 5, tzinfo=UTC),
        None,
        datetime(1960, 1, 1, tzinfo=UTC),
    ]


def test_features_of_writers_alone_stop_nobody(tables: Path) -> None:
    assert rows(tables / "writer") == [{"id": 2, "a": 2, "g": 3, "dflt": 7}]


def test_a_variant_is_refused_by_the_name_of_its_feature(tables: Path) -> None:
    with pytest.raises(ConfigurationError, match="the feature 'variantType', which is not read"):
        DeltaTableRows(tables / "variant")
