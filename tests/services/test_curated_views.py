"""The notebook of a bundle declares the lake's tables, and its views show what an agent's own queries see."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from agent.planning.curated import CuratedView, ViewColumn, curated_views
from schemas.spec import AgentSpec
from streaming.databricks.curated_sql import spark_query
from streaming.databricks.notebooks import tables_notebook
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import build_lake, spec_of

pytestmark = pytest.mark.timeout(900)
SCHEMA = "curated_views"
ZONE = "spark.sql.session.timeZone"
READERS = ("UTC", "Asia/Kolkata", "Europe/Berlin")  # whole hours, half ones, and summer time
HOUR = "date_trunc('hour', timezone('UTC', moment))"
DAY = "CAST(timezone('UTC', moment) AS DATE)"


class Session:
    """Spark, but for what Unity Catalog alone has: grants are kept."""

    def __init__(self, spark: SparkSession) -> None:
        self.spark, self.granted = spark, list[str]()

    def sql(self, statement: str) -> DataFrame | None:
        if statement.startswith("GRANT"):
            self.granted.append(statement)
            return None
        return self.spark.sql(statement)


@pytest.fixture
def session(spark: SparkSession) -> Iterator[Session]:
    spark.sql(f"create schema if not exists {SCHEMA}")
    yield Session(spark)
    spark.conf.set(ZONE, "UTC")
    spark.sql(f"drop schema {SCHEMA} cascade")


def run(session: Session, spec: AgentSpec, store: Path) -> None:
    given = {"catalog": "spark_catalog", "schema": SCHEMA, "store": str(store), "readers": "analysts"}
    widgets = SimpleNamespace(text=lambda *_: None, get=given.__getitem__)
    names: dict[str, Any] = {"spark": session, "dbutils": SimpleNamespace(widgets=widgets)}
    exec(compile(tables_notebook(spec), "tables.py", "exec"), names)


def seen_by_queries(view: CuratedView, folder: Path) -> list[str]:
    """The rows of a view in an agent's own engine."""
    with duckdb.connect() as engine:
        engine.register("stored", DeltaTable(str(folder)).to_pyarrow_table())
        return sorted(map(repr, engine.sql(view.sql("stored")).fetchall()))


def test_views_show_the_rows_that_queries_of_the_agent_see(session: Session, tmp_path: Path) -> None:
    settings, spec = Settings.load(tmp_path, {}), spec_of()
    run(session, spec, tmp_path)  # before there is a lake
    assert session.granted == []
    build_lake(PlacedAgent(settings, spec))
    lake = Path(str(settings.lake(spec.name)))
    views = curated_views(AgentDefinition.of(spec).contract)
    kept = {name: lake / getattr(spec.tables, name) for name in views}
    theirs = {name: seen_by_queries(views[name], folder) for name, folder in kept.items() if folder.is_dir()}
    assert {"transactions", "alerts", "labels", "batches"} <= set(theirs)
    for zone in READERS:
        run(session, spec, tmp_path)
        session.spark.conf.set(ZONE, zone)
        for name, rows in theirs.items():
            shown = session.spark.sql(f"select * from {SCHEMA}.curated_{name}").collect()
            assert sorted(map(repr, map(tuple, shown))) == rows, (zone, name)
    assert sum(map(len, theirs.values())) > 100
    granted = f"GRANT SELECT ON VIEW `spark_catalog`.`{SCHEMA}`.`curated_alerts` TO `analysts`"
    assert session.granted.count(granted) == len(READERS)


@pytest.mark.parametrize("zone", READERS)
def test_hours_are_those_of_utc_wherever_somebody_reads(session: Session, zone: str) -> None:
    moments = [
        datetime(2026, 3, 29, 2, 31, 1, 123456, UTC),  # an hour that Berlin lacks that day
        datetime(2026, 10, 25, 0, 31, tzinfo=UTC),  # two that it has under one name
        datetime(2026, 10, 25, 1, 31, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    ]
    session.spark.conf.set(ZONE, zone)
    columns = [ViewColumn("event_time", "timezone('UTC', moment)", ""), ViewColumn("hour", HOUR, "")]
    view = CuratedView("moments", "", (*columns, ViewColumn("day", DAY, "")))
    rows = session.spark.createDataFrame([(moment,) for moment in moments], "moment timestamp")
    rows.createOrReplaceTempView("moments_given")
    shown = session.spark.sql(spark_query(view, "moments_given"))
    assert [kind for _, kind in shown.dtypes] == ["timestamp_ntz", "timestamp_ntz", "date"]
    plain = [moment.replace(tzinfo=None) for moment in moments]
    hours = [moment.replace(minute=0, second=0, microsecond=0) for moment in plain]
    expected = zip(plain, hours, [moment.date() for moment in plain], strict=True)
    assert list(map(tuple, shown.collect())) == list(expected)
