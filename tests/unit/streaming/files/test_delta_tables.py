"""Delta tables that others wrote: read as their log says, or refused by the name of what is not read."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.files.delta_features import READ
from streaming.files.delta_table import DeltaTableRows
from streaming.files.opening import data_files
from tests.hand_made_delta import PLAIN, HandMadeTable, column, deletion_vector, features, removed

IDS = column("id", "long")


def numbered(*numbers: int) -> pa.Table:
    return pa.table({"id": pa.array(numbers, pa.int64())})


def ids(path: Path, version: int | None = None) -> list[int]:
    table = DeltaTableRows(path, version)
    found: list[int] = table.whole()["id"].to_pylist()
    assert table.count() == len(found)
    return found


def small(path: Path, protocol: dict[str, Any], *actions: dict[str, Any]) -> HandMadeTable:
    table = HandMadeTable(path, protocol)
    table.commit(table.declare([IDS]), table.add("a.parquet", numbered(1, 2)), *actions)
    return table


@pytest.mark.parametrize(
    "name", ["variantType", "variantShredding", "catalogManaged", "geospatial", "timestampNanos", "notYet"]
)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_feature_that_is_not_read_is_refused_by_its_name(
    tmp_path: Path, name: str, checkpointed: bool
) -> None:
    table = small(tmp_path, features("v2Checkpoint", name))
    if checkpointed:
        entry = tmp_path / "_delta_log" / f"{0:020}.json"
        protocol = [json.loads(line).get("protocol") for line in entry.read_text().splitlines()]
        pq.write_table(pa.table({"protocol": protocol}), entry.with_suffix(".checkpoint.parquet"))
        entry.unlink()
        table.commit({"commitInfo": {}})
    with pytest.raises(ConfigurationError, match=f"the feature '{name}', which is not read: copy .*{name}"):
        DeltaTableRows(tmp_path)


@pytest.mark.parametrize("name", sorted(READ - {"columnMapping"}))
def test_features_that_are_read_stop_nobody(tmp_path: Path, name: str) -> None:
    small(tmp_path, features(name))
    assert ids(tmp_path) == [1, 2]


def test_rows_are_counted_where_the_log_does_not_say_how_many(tmp_path: Path) -> None:
    table = HandMadeTable(tmp_path)
    table.commit(table.declare([IDS]), table.add("a.parquet", numbered(1, 2), stats=None))
    assert ids(tmp_path) == [1, 2]


def test_features_of_writers_alone_stop_no_reader(tmp_path: Path) -> None:
    small(
        tmp_path, {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking", "later"]}
    )
    assert ids(tmp_path) == [1, 2]


def test_a_later_version_of_the_protocol_is_refused(tmp_path: Path) -> None:
    small(tmp_path, {"minReaderVersion": 4, "minWriterVersion": 8})
    with pytest.raises(ConfigurationError, match=r"needs a reader of version 4 .* version 3 is the newest"):
        DeltaTableRows(tmp_path)


@pytest.mark.parametrize("beside", ["typeWidening", "typeWidening-preview", "vacuumProtocolCheck"])
def test_deletion_vectors_beside_what_they_are_not_read_with_are_refused(tmp_path: Path, beside: str) -> None:
    table = HandMadeTable(tmp_path, features("deletionVectors", beside))
    deleted = table.add("a.parquet", numbered(1, 2), deletionVector=deletion_vector([0]))
    table.commit(table.declare([IDS]), deleted)
    with pytest.raises(ConfigurationError, match=f"'deletionVectors' and '{beside}'.*APPLY .PURGE"):
        DeltaTableRows(tmp_path)


NAMES = ["a", "b", "c", "d e/é"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 4), st.sampled_from([None, "x", "a/b:%=é ", "%20"])),
        st.tuples(st.just("delete"), st.integers(0, 3), st.integers(0, 7)),
        st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("drop"), st.sampled_from(NAMES), st.none()),
        st.tuples(st.just("new"), st.sampled_from(NAMES), st.none()),
    ),
    max_size=12,
)


class Modelled:
    """A table with mapped columns, changed step by step, beside the rows that it must hold."""

    def __init__(self, path: Path, mode: str) -> None:
        self.mode, self.columns, self.made = mode, dict[str, int](), 0
        self.files = list[tuple[dict[str, Any], list[dict[int, int | None] | None], str | None]]()
        self.versions = list[list[dict[str, Any]]]()
        configuration = {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "99"}
        protocol = features("columnMapping", "deletionVectors")
        self.table = HandMadeTable(path, protocol, configuration, ["part"])
        for name in ("a", "b"):
            self._new(name)
        self._commit(self._declared())

    def step(self, kind: str, first: Any, second: Any) -> None:
        getattr(self, f"_{kind}_step")(first, second)

    def _append_step(self, rows: int, part: str | None) -> None:
        held = [dict.fromkeys(self.columns.values(), self.made * 10 + row) for row in range(rows)]
        columns = {self._physical(number): [row[number] for row in held] for number in self.columns.values()}
        fields = [
            pa.field(name, pa.int64(), metadata={b"PARQUET:field_id": name.removeprefix("col-").encode()})
            for name in columns
        ]
        self.made += 1
        added = self.table.add(
            f"d-{len(self.files)}.parquet", pa.table(columns, pa.schema(fields)), {"col-99": part}
        )
        self.files.append((added, [*held], part))
        self._commit(added)

    def _delete_step(self, place: int, row: int) -> None:
        added, held, part = self.files[place] if place < len(self.files) else ({}, [], None)
        if row >= len(held) or held[row] is None:
            return
        held[row] = None
        gone = [number for number, each in enumerate(held) if each is None]
        kept = {"add": {**added["add"], "deletionVector": deletion_vector(gone)}}
        self.files[place] = (kept, held, part)
        self._commit(removed(added), kept)

    def _rename_step(self, old: str, new: str) -> None:
        if old in self.columns and new not in self.columns:
            self.columns = {new if name == old else name: number for name, number in self.columns.items()}
            self._commit(self._declared())

    def _drop_step(self, name: str, _: None) -> None:
        if name in self.columns and len(self.columns) > 1:
            del self.columns[name]
            self._commit(self._declared())

    def _new_step(self, name: str, _: None) -> None:
        if name not in self.columns:
            self._new(name)
            self._commit(self._declared())

    def _new(self, name: str) -> None:
        self.made += 1
        self.columns[name] = self.made

    def _declared(self) -> dict[str, Any]:
        known = [self._declare(name, "long", number) for name, number in self.columns.items()]
        return self.table.declare([*known, self._declare("part", "string", 99)])

    def _declare(self, name: str, kind: str, number: int) -> dict[str, Any]:
        noted = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"col-{number}"}
        return column(name, kind, **noted)

    def _physical(self, number: int) -> str:
        return f"col-{number}"

    def _commit(self, *actions: dict[str, Any]) -> None:
        self.table.commit(*actions)
        rows = [(row, part) for _, held, part in self.files for row in held if row is not None]
        known = self.columns.items()
        self.versions.append(
            [{**{name: row.get(n) for name, n in known}, "part": part} for row, part in rows]
        )


@settings(max_examples=15)
@given(mode=st.sampled_from(["name", "id"]), steps=STEPS)
def test_what_is_deleted_renamed_dropped_or_new_is_read_as_it_stands_at_each_version(
    tmp_path_factory: pytest.TempPathFactory, mode: str, steps: list[tuple[str, Any, Any]]
) -> None:
    modelled = Modelled(tmp_path_factory.mktemp("delta"), mode)
    for step in steps:
        modelled.step(*step)
    for version in {0, len(modelled.versions) // 2, len(modelled.versions) - 1}:
        table = DeltaTableRows(modelled.table.path, version)
        assert table.whole().to_pylist() == modelled.versions[version]
        assert table.count() == len(modelled.versions[version])
    shutil.rmtree(modelled.table.path)


@pytest.mark.parametrize("given", ["a table", "./a table", "link", "a table/../a table", "linked/a table"])
def test_what_is_deleted_stays_so_by_whatever_path_a_table_is_read(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = HandMadeTable(tmp_path / "a table", features("deletionVectors"))
    deleted = table.add("a b.parquet", numbered(1, 2, 3), deletionVector=deletion_vector([0]))
    table.commit(table.declare([IDS]), deleted)
    (tmp_path / "link").symlink_to("a table")
    (tmp_path / "linked").symlink_to(".")
    assert ids(Path(given)) == [2, 3]


def test_a_table_whose_path_means_another_one_is_refused(tmp_path: Path) -> None:
    for name, number in (("day=%41", 1), ("day=A", 2), ("100% b", 3)):
        table = HandMadeTable(tmp_path / name)
        table.commit(table.declare([IDS]), table.add("a.parquet", numbered(number)))
    with pytest.raises(ConfigurationError, match="day=%41: a percent sign"):
        ids(tmp_path / "day=%41")
    assert (ids(tmp_path / "day=A"), ids(tmp_path / "100% b")) == ([2], [3])


def test_nested_columns_are_mapped_and_filled_up(tmp_path: Path) -> None:
    def mapped(name: str, kind: Any, number: int) -> dict[str, Any]:
        noted = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"p{number}"}
        return column(name, kind, **noted)

    def inner(number: int) -> dict[str, Any]:
        return {
            "type": "struct",
            "fields": [mapped("new", "string", number + 1), mapped("x", "long", number)],
        }

    listed = {"type": "array", "elementType": inner(3), "containsNull": True}
    keyed = {"type": "map", "keyType": "string", "valueType": inner(5), "valueContainsNull": True}
    table = HandMadeTable(
        tmp_path,
        {"minReaderVersion": 2, "minWriterVersion": 5},
        {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "9"},
    )
    rows = pa.table(
        {
            "p1": [[{"p3": 7, "x": 8}], None, []],
            "p2": pa.array(
                [[("k", {"p5": 9})], [], None], pa.map_(pa.string(), pa.struct([("p5", pa.int32())]))
            ),
        }
    )
    declared = table.declare([mapped("list", listed, 1), mapped("map", keyed, 2)])
    table.commit(declared, table.add("a.parquet", rows))
    assert DeltaTableRows(tmp_path).whole().to_pylist() == [
        {"list": [{"new": None, "x": 7}], "map": [("k", {"new": None, "x": 9})]},
        {"list": None, "map": []},
        {"list": [], "map": None},
    ]


PARTITIONS: list[tuple[str, str, Any]] = [
    ("string", "a/b:c%d=e f é", "a/b:c%d=e f é"),
    ("integer", "-5", -5),
    ("long", "9007199254740993", 9007199254740993),
    ("double", "NaN", None),
    ("boolean", "true", True),
    ("date", "0001-01-01", date(1, 1, 1)),
    ("timestamp", "2026-01-01 00:00:00.123456", datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
    ("timestamp", "2026-01-01T05:00:00.000000Z", datetime(2026, 1, 1, 5, tzinfo=UTC)),
    ("decimal(10,2)", "1.50", Decimal("1.50")),
]


@pytest.mark.parametrize(("kind", "written", "value"), PARTITIONS)
def test_values_of_partitions_come_from_the_log(tmp_path: Path, kind: str, written: str, value: Any) -> None:
    table = HandMadeTable(tmp_path, partitions=["p"])
    misleading = numbered(1).append_column("p", pa.array(["what a file says"]))
    table.commit(
        table.declare([IDS, column("p", kind)]),
        table.add("p=1/a.parquet", misleading, {"p": written}),
        table.add("p=2/a.parquet", numbered(2), {"p": None}),
    )
    first, second = DeltaTableRows(tmp_path).whole()["p"].to_pylist()
    assert math.isnan(first) if value is None else first == value
    assert second is None
    assert ids(tmp_path) == [1, 2]


def test_paths_are_decoded_once_and_may_lie_elsewhere(tmp_path: Path) -> None:
    source = HandMadeTable(tmp_path / "a b é")
    added = source.add("p=50%25/x.parquet", numbered(1))
    added["add"]["path"] = "p=50%2525/x.parquet"
    source.commit(source.declare([IDS]), added)
    assert ids(source.path) == [1]
    clone = HandMadeTable(tmp_path / "clone")
    far = {"add": {**added["add"], "path": f"file:{tmp_path}/a%20b%20é/p=50%2525/x.parquet"}}
    clone.commit(clone.declare([IDS]), far, clone.add("own.parquet", numbered(2)))
    assert sorted(ids(clone.path)) == [1, 2]
    far["add"]["path"] = "s3://bucket/x.parquet"
    clone.commit(far)
    with pytest.raises(ConfigurationError, match=r"s3://bucket/x\.parquet, and only files of this machine"):
        DeltaTableRows(clone.path)


def test_types_that_were_widened_are_read_as_the_table_has_them(tmp_path: Path) -> None:
    kinds = [
        ("a", "long", pa.array([1], pa.int8()), 1),
        ("b", "double", pa.array([0.5], pa.float32()), 0.5),
        ("c", "double", pa.array([3], pa.int32()), 3.0),
        ("d", "timestamp_ntz", pa.array([date(2026, 1, 1)]), datetime.fromisoformat("2026-01-01")),
        ("e", "decimal(12,4)", pa.array([Decimal("1.25")]), Decimal("1.2500")),
        ("f", "decimal(20,2)", pa.array([4], pa.int32()), Decimal("4.00")),
    ]
    table = HandMadeTable(tmp_path, features("typeWidening", "timestampNtz"))
    declared = table.declare([column(name, kind) for name, kind, _, _ in kinds])
    table.commit(declared, table.add("a.parquet", pa.table({name: held for name, _, held, _ in kinds})))
    assert DeltaTableRows(tmp_path).whole().to_pylist() == [{name: value for name, _, _, value in kinds}]


def test_a_file_that_holds_another_type_is_named(tmp_path: Path) -> None:
    table = HandMadeTable(tmp_path)
    table.commit(table.declare([IDS]), table.add("a.parquet", pa.table({"id": ["no number"]})))
    with pytest.raises(ConfigurationError, match=r"a\.parquet: column 'id' holds string"):
        DeltaTableRows(tmp_path).whole()


def test_times_beyond_what_nanoseconds_hold_stay_what_they_are(tmp_path: Path) -> None:
    moments = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
    rows = pa.table({"t": pa.array(moments, pa.timestamp("us", "UTC"))})
    table = HandMadeTable(tmp_path)
    added = table.add("a.parquet", rows)
    pq.write_table(rows, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    added["add"]["size"] = (tmp_path / "a.parquet").stat().st_size
    table.commit(table.declare([column("t", "timestamp")]), added)
    assert DeltaTableRows(tmp_path).whole()["t"].to_pylist() == moments


def appended(path: Path, count: int = 3) -> Path:
    for number in range(count):
        write_deltalake(path, numbered(number), mode="append")
    return path


def entry(path: Path, version: int) -> Path:
    return path / "_delta_log" / f"{version:020}.json"


TORN: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: entry(path, 1).write_bytes(b""), r"0001\.json: this entry of a table's log is not whole"),
    (lambda path: entry(path, 2).write_bytes(b"\0" * 99), r"0002\.json: this entry .* is not whole"),
    (lambda path: entry(path, 2).write_bytes(b'{"add":{'), r"0002\.json: this entry .* is not whole"),
    (lambda path: entry(path, 1).unlink(), "entry 1 is missing, restore the folder _delta_log"),
    (lambda path: entry(path, 0).unlink(), "entry 0 is missing"),
    (lambda path: next(path.glob("*.parquet")).unlink(), "is missing. It was vacuumed, or was not copied"),
    (lambda path: next(path.glob("*.parquet")).write_bytes(b"PAR1"), "4 bytes, and the log of"),
    (lambda path: [each.unlink() for each in (path / "_delta_log").iterdir()], "no Delta table"),
]


@pytest.mark.parametrize(("damage", "said"), TORN)
def test_damage_is_named_with_its_place(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(appended(tmp_path))
    with pytest.raises(ConfigurationError, match=said):
        DeltaTableRows(tmp_path)


def test_a_version_before_the_damage_is_read_and_one_that_never_was_is_refused(tmp_path: Path) -> None:
    entry(appended(tmp_path), 2).write_bytes(b"")
    assert sorted(ids(tmp_path, 1)) == [0, 1]
    with pytest.raises(ConfigurationError, match="version 9 of it cannot be read: the newest is 2"):
        DeltaTableRows(appended(tmp_path / "whole"), 9)


def test_rows_of_a_checkpoint_are_read_without_the_entries_before_it(tmp_path: Path) -> None:
    DeltaTable(appended(tmp_path)).create_checkpoint()
    for version in range(3):
        entry(tmp_path, version).unlink()
    assert sorted(ids(tmp_path)) == [0, 1, 2]


def test_files_of_a_table_are_not_taken_for_plain_ones(tmp_path: Path) -> None:
    table = tmp_path / "lake" / "table"
    write_deltalake(table, numbered(1).append_column("p", pa.array(["x"])), partition_by=["p"])
    file = next(table.glob("*/*.parquet"))
    for inside in (table / "p=x", file):
        with pytest.raises(ConfigurationError, match=r"lies in the Delta table .*table, whose log says what"):
            data_files(inside)
    with pytest.raises(ConfigurationError, match="table: a Delta table within a folder of files"):
        data_files(tmp_path / "lake")
    shutil.rmtree(table / "_delta_log")
    assert data_files(tmp_path / "lake")[0].path == file, "without a log it is a folder of files"
    (table / "deletion_vector_5ba7.bin").write_bytes(b"\1")
    with pytest.raises(ConfigurationError, match="deletion vectors of a Delta table without its folder"):
        data_files(table)


@pytest.mark.parametrize(
    ("mark", "maker"), [(".hoodie/x", "Hudi"), ("metadata/version-hint.text", "Iceberg")]
)
def test_tables_of_other_makers_are_refused(tmp_path: Path, mark: str, maker: str) -> None:
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("1")
    pq.write_table(numbered(1), tmp_path / "a.parquet")
    with pytest.raises(ConfigurationError, match=f"a table of {maker}, which is not read"):
        data_files(tmp_path)


def test_columns_of_no_type_hold_nothing(tmp_path: Path) -> None:
    table = HandMadeTable(tmp_path, dict(PLAIN))
    table.commit(table.declare([IDS, column("v", "void")]), table.add("a.parquet", numbered(2, 1)))
    read = DeltaTableRows(tmp_path)
    found = pa.Table.from_batches(read.in_order(("id",), 10, ["id", "v"]), read.schema)
    assert found.to_pylist() == [{"id": 1, "v": None}, {"id": 2, "v": None}]


def places(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where anything stands in JSON, by its keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, held in inner for each in [(*so_far, key), *places(held, (*so_far, key))]]


ODD = [None, "", -1, 1e30, [], {}, True, "\x00\x1b[31m", 2**63, "../a", [7], "{", {"type": "struct"}]


@settings(max_examples=60)
@given(where=st.integers(0, 10**6), what=st.sampled_from(ODD), mode=st.sampled_from(["none", "name", "id"]))
def test_whatever_a_log_says_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, where: int, what: Any, mode: str
) -> None:
    path = tmp_path_factory.mktemp("odd")
    table = HandMadeTable(
        path, features("columnMapping", "deletionVectors"), {"delta.columnMapping.mode": mode}, ["p"]
    )
    mapped = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "id"}
    part = {"delta.columnMapping.id": 2, "delta.columnMapping.physicalName": "p"}
    declared = table.declare([column("id", "long", **mapped), column("p", "integer", **part)])
    added = table.add("a.parquet", numbered(1, 2), {"p": "5"}, deletionVector=deletion_vector([1]))
    written = table.commit(declared, added)
    actions = [json.loads(line) for line in written.read_text("utf-8").splitlines()]
    actions[1]["metaData"]["schemaString"] = json.loads(actions[1]["metaData"]["schemaString"])
    known = places(actions)
    *outer, last = known[where % len(known)]
    place: Any = actions
    for key in outer:
        place = place[key]
    place[last] = what
    if isinstance(actions[1], dict) and isinstance(actions[1].get("metaData"), dict):
        actions[1]["metaData"]["schemaString"] = json.dumps(actions[1]["metaData"].get("schemaString"))
    written.write_text("".join(json.dumps(action) + "\n" for action in actions), "utf-8")
    with suppress(ConfigurationError):
        DeltaTableRows(path).whole()


def test_what_a_writer_moves_away_meanwhile_stops_no_reader(tmp_path: Path) -> None:
    table = HandMadeTable(tmp_path / "table")
    added = table.add("a.parquet", numbered(1, 2))
    entry = table.commit(table.declare([column("id", "long")]), added)
    # Listed, and gone before it is read.
    (entry.parent / ".00000000000000000001.json.tmp").symlink_to(tmp_path / "gone")
    assert DeltaTableRows(table.path).count() == 2
