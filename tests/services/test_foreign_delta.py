"""Delta tables that Spark wrote: read row for row as Spark reads them, or refused by name."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import yaml
from pyspark.sql import SparkSession

from schemas.contract import CONTRACTS, EventContract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.batch.references import References
from streaming.files.delta_table import DeltaTableRows
from streaming.files.event_files import open_events
from streaming.testing.live_lake import DAY

_NESTED = "struct<x: int, `y z`: array<string>>"
_CHECKPOINT_PART = "spark.databricks.delta.checkpoint.partSize"


@pytest.fixture(autouse=True)
def small_jobs(spark: SparkSession) -> Iterator[None]:
    """Delta reads even the smallest log in 50 tasks unless told otherwise."""
    spark.conf.set("spark.databricks.delta.snapshotPartitions", "1")
    yield
    spark.conf.unset(_CHECKPOINT_PART)


class Written:
    """A table that Spark writes, statement by statement; `@` stands for it."""

    def __init__(self, spark: SparkSession, path: Path, *statements: str) -> None:
        self.spark, self.path = spark, path
        self.run(*statements)

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.spark.sql(statement.replace("@", f"delta.`{self.path}`"))

    def rows(self, version: int | None = None) -> list[dict[str, Any]]:
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        found: list[dict[str, Any]] = reader.load(str(self.path)).toArrow().to_pylist()
        return found

    def check(self, version: int | None = None) -> None:
        ours = DeltaTableRows(self.path, version)
        read = ours.whole()
        assert sorted(map(str, read.to_pylist())) == sorted(map(str, self.rows(version)))
        assert ours.count() == read.num_rows
        names = ours.schema.names
        again = pa.Table.from_batches(ours.in_order((names[0],), 2, names), ours.schema)
        assert sorted(map(str, again.to_pylist())) == sorted(map(str, read.to_pylist()))


PARTS: dict[str, Sequence[str]] = {
    "string": ["'a/b:c%d=e f é'", "null", "'%20'", "'__HIVE_DEFAULT_PARTITION__'"],
    "date": ["date'0001-01-01'", "date'2026-05-01'", "null"],
    "timestamp": ["timestamp'2026-05-01 12:00:00.000001'", "null", "timestamp'1960-01-01 00:00:00'"],
    "int": ["-5", "0", "null"],
}


class Generated:
    """Writes a table by random steps: rows come, change and go, and columns are named anew."""

    def __init__(self, spark: SparkSession, path: Path, seed: int) -> None:
        self._random, self._columns, self._made = random.Random(seed), ["a", "b c"], 0
        mode, vectors = ("name", "id")[seed % 2], str(seed % 4 < 2).lower()
        self._part = list(PARTS)[seed % len(PARTS)]
        self.table = Written(
            spark,
            path,
            f"create table @ (id bigint, a string, `b c` {_NESTED}, p {self._part}) "
            f"using delta partitioned by (p) tblproperties ('delta.columnMapping.mode' = '{mode}', "
            f"'delta.enableDeletionVectors' = '{vectors}', 'delta.checkpointInterval' = '3')",
        )
        self._insert()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self._random.choice(
                [self._insert, self._delete, self._delete, self._update, self._rename, self._new, self._drop]
            )()

    def _insert(self) -> None:
        self._made += 6
        part = self._random.choice(PARTS[self._part])
        known = {"a": "concat('t', id)", "b c": "named_struct('x', cast(id as int), 'y z', array('k', null))"}
        values = [f"{known[name]} as `{name}`" for name in self._columns if name in known]
        listed = ", ".join(["id", *(f"`{name}`" for name in self._columns if name in known), "p"])
        source = f"select /*+ coalesce(1) */ id, {''.join(f'{value}, ' for value in values)}{part} as p"
        numbers = f"range({self._made - 6}, {self._made})"
        self.table.run(f"insert into @ ({listed}) {source} from {numbers}")

    def _delete(self) -> None:
        self.table.run(f"delete from @ where id % {self._random.randint(3, 5)} = 1")

    def _update(self) -> None:
        value = self._random.choice(PARTS[self._part])
        self.table.run(f"update @ set p = {value} where id % {self._random.randint(4, 6)} = 2")

    def _rename(self) -> None:
        place, name = self._random.randrange(len(self._columns)), f"n{self._random.randrange(10**6)} é"
        self.table.run(f"alter table @ rename column `{self._columns[place]}` to `{name}`")
        self._columns[place] = name

    def _new(self) -> None:
        name = next((each for each in ("a", "b c") if each not in self._columns), "other")
        if name not in self._columns:
            kind = _NESTED if name == "b c" else "string"
            self.table.run(f"alter table @ add column `{name}` {kind}")
            self._columns.append(name)

    def _drop(self) -> None:
        if len(self._columns) > 1:
            self.table.run(f"alter table @ drop column `{self._columns.pop()}`")


@pytest.mark.parametrize("seed", range(4))
def test_what_spark_writes_is_read_as_spark_reads_it(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    written = Generated(spark, tmp_path / "a table é", seed)
    written.steps(4)
    earlier = DeltaTableRows(written.table.path).version
    written.steps(4)
    written.table.check()
    written.table.check(earlier)


def test_partitions_of_every_type(spark: SparkSession, tmp_path: Path) -> None:
    kinds = {
        **PARTS,
        "timestamp_ntz": ["timestamp_ntz'2026-05-01 00:00:00.5'", "null"],
        "bigint": ["9007199254740993", "null"],
        "double": ["double('-infinity')", "1.5D"],
        "boolean": ["true", "null"],
        "decimal(10,2)": ["1.50", "null"],
    }
    columns = ", ".join(f"p{place} {kind}" for place, kind in enumerate(kinds))
    rows = [", ".join(values[row % len(values)] for values in kinds.values()) for row in range(4)]
    table = Written(
        spark,
        tmp_path / "table",
        f"create table @ (id int, {columns}) using delta partitioned by "
        f"({', '.join(f'p{place}' for place in range(len(kinds)))})",
        f"insert into @ values {', '.join(f'({row}, {values})' for row, values in enumerate(rows))}",
    )
    table.check()


def test_features_of_writers_and_checkpoints_in_parts(spark: SparkSession, tmp_path: Path) -> None:
    spark.conf.set(_CHECKPOINT_PART, "1")
    table = Written(
        spark,
        tmp_path / "table",
        "create table @ (id bigint generated always as identity, a int not null, "
        "g int generated always as (a + 1), d int default 7, t timestamp) using delta "
        "tblproperties ('delta.feature.allowColumnDefaults' = 'supported', "
        "'delta.enableChangeDataFeed' = 'true', 'delta.enableRowTracking' = 'true', "
        "'delta.enableInCommitTimestamps' = 'true', "
        "'delta.checkpointInterval' = '2')",
        "insert into @ (a, t) values (1, timestamp'0001-01-01 00:00:00'), "
        "(2, timestamp'9999-12-31 23:59:59.999999')",
        "alter table @ add constraint positive check (a > 0)",
        "insert into @ (a) values (3)",
        "delete from @ where a = 3",
    )
    assert len([*(table.path / "_delta_log").glob("*.checkpoint.*.parquet")]) > 1
    table.check()
    clustered = Written(
        spark,
        tmp_path / "clustered",
        "create table @ (id bigint, a string) using delta cluster by (a) tblproperties "
        "('delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '1')",
        "insert into @ values (1, 'a'), (2, 'b')",
        "insert into @ values (3, 'c')",
    )
    assert [*(clustered.path / "_delta_log" / "_sidecars").glob("*.parquet")]
    clustered.check()


def test_types_that_were_widened(spark: SparkSession, tmp_path: Path) -> None:
    changes = {
        "a": "int",
        "b": "bigint",
        "c": "double",
        "d": "timestamp_ntz",
        "e": "decimal(12,4)",
        "f": "double",
    }
    table = Written(
        spark,
        tmp_path / "table",
        "create table @ (a tinyint, b int, c float, d date, e decimal(5,2), f int, p int) using delta "
        "partitioned by (p) tblproperties ('delta.enableTypeWidening' = 'true', "
        "'delta.feature.timestampNtz' = 'supported')",
        "insert into @ values (1, 2, 1.1, date'2026-01-01', 1.25, 3, 5)",
        *(f"alter table @ alter column {name} type {kind}" for name, kind in changes.items()),
        "alter table @ alter column p type bigint",
        "insert into @ values (100000, 10000000000, 1.1D, timestamp_ntz'2026-01-02 03:04:05', 1.2345, 0.5, "
        "7000000000)",
    )
    table.check()
    table.run("alter table @ set tblproperties ('delta.enableDeletionVectors' = 'true')")
    with pytest.raises(ConfigurationError, match="'deletionVectors' and 'typeWidening'"):
        DeltaTableRows(table.path)


def test_a_variant_is_refused_by_the_name_of_its_feature(spark: SparkSession, tmp_path: Path) -> None:
    table = Written(spark, tmp_path / "table", "create table @ (id bigint, v variant) using delta")
    with pytest.raises(ConfigurationError, match="the feature 'variantType', which is not read"):
        DeltaTableRows(table.path)


def test_a_shallow_clone_reads_where_its_files_lie(spark: SparkSession, tmp_path: Path) -> None:
    source = Written(
        spark,
        tmp_path / "source é",
        "create table @ (id bigint, p string) using delta partitioned by (p) "
        "tblproperties ('delta.enableDeletionVectors' = 'true')",
        "insert into @ select /*+ coalesce(1) */ id, 'a b%' from range(6)",
        "delete from @ where id = 2",
    )
    clone = Written(
        spark,
        tmp_path / "clone",
        f"create table @ shallow clone delta.`{source.path}`",
        "insert into @ values (100, 'c')",
        "delete from @ where id = 4",
    )
    clone.check()
    source.check()


def test_events_and_references_come_from_such_tables(spark: SparkSession, tmp_path: Path) -> None:
    properties = "('delta.columnMapping.mode' = 'name', 'delta.enableDeletionVectors' = 'true')"
    moments = [(DAY + timedelta(hours=hour)).strftime("%Y-%m-%d %H:%M:%S") for hour in (3, 1, 2)]
    events = Written(
        spark,
        tmp_path / "events",
        "create table @ (tx_id string, happened timestamp, amount double, currency string, "
        f"customer_id string, shop string) using delta partitioned by (currency) tblproperties {properties}",
        "insert into @ select /*+ coalesce(1) */ * from values "
        + ", ".join(
            f"('t{row}', timestamp'{moment}', {row}.5, 'EUR', 'c{row}', 'm{row}')"
            for row, moment in enumerate(moments)
        ),
        "alter table @ rename column shop to terminal_id",
        "alter table @ rename column happened to event_time",
        "delete from @ where tx_id = 't1'",
    )
    merchants = Written(
        spark,
        tmp_path / "merchants",
        f"create table @ (merchant_id string, risk double) using delta tblproperties {properties}",
        "insert into @ select /*+ coalesce(1) */ * from values ('m0', 0.25), ('m2', 0.5)",
        "alter table @ rename column risk to danger",
        "delete from @ where merchant_id = 'm2'",
    )
    known = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"))
    reference = {
        "path": str(merchants.path),
        "on": {"terminal": "merchant_id"},
        "columns": {"danger": {"field": "danger", "type": "float"}},
    }
    optional = [name for name in ("extra", "untrusted_text", "label") if name in known]
    wanted = {
        **{key: value for key, value in known.items() if key not in optional},
        "references": {"m": reference},
    }
    contract = parse_document(wanted, EventContract, where="test")
    (chunk,) = open_events(events.path, contract).chunks()
    found = [orjson.loads(value) for value in chunk.values]
    assert [(each["tx_id"], each["terminal_id"], each["currency"]) for each in found] == [
        ("t2", "m2", "EUR"),
        ("t0", "m0", "EUR"),
    ]
    references = References(contract)
    asked = pa.table({"event_time": [DAY] * 2, "terminal": ["m0", "m2"]})
    assert references.join(asked)["danger"].to_pylist() == [0.25, None]
    assert references.pins() == {"references": {"m": f"version {DeltaTableRows(merchants.path).version}"}}
