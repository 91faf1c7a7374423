"""The lake's tables and the curated views as statements for Unity Catalog.

The views are those that an agent's own queries read, written anew for Spark: one definition serves both.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlglot
from sqlglot import exp

from agent.planning.curated import CuratedView, curated_views
from schemas.lake_tables import TABLES
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition

_LOCATION = "{store}/"
_WITHHELD = "tokens"  # who may call the HTTP API is no business of those who read alerts
_DECLARED = "CREATE TABLE IF NOT EXISTS {{schema}}.`{name}` USING DELTA LOCATION '{location}'"
# Neither may pass through the reader's time zone: half hours move what is truncated there, and an hour of
# spring that the zone lacks moves what is converted there.
_UTC = "TIMESTAMPADD(MICROSECOND, UNIX_MICROS({}), CAST('1970-01-01 00:00:00' AS TIMESTAMP_NTZ))"
_HOUR = "TIMESTAMPADD(HOUR, HOUR({0}), CAST(CAST({0} AS DATE) AS TIMESTAMP_NTZ))"


def table_statements(spec: AgentSpec) -> list[tuple[str, str, str]]:
    """Return table → where it lies and what declares it; `{schema}` and `{store}` are to be put in."""
    names = [getattr(spec.tables, table) for table in TABLES if table != _WITHHELD]
    places = {name: f"{_LOCATION}lake/{spec.name}/{name}" for name in names}
    return [(name, place, _DECLARED.format(name=name, location=place)) for name, place in places.items()]


def view_statements(spec: AgentSpec) -> list[tuple[str, str, Sequence[str]]]:
    """Return stored table → the statements that make its view and let `{readers}` read that alone."""
    found: list[tuple[str, str, Sequence[str]]] = []
    for view in curated_views(AgentDefinition.of(spec).contract).values():
        stored, name = getattr(spec.tables, view.table), f"{{schema}}.`curated_{view.table}`"
        statements = (
            f"CREATE OR REPLACE VIEW {name} AS {spark_query(view, f'{{schema}}.`{stored}`')}",
            f"GRANT SELECT ON VIEW {name} TO `{{readers}}`",
        )
        found.append((stored, view.table, statements))
    return found


def spark_query(view: CuratedView, source: str) -> str:
    """Return a view's query in Spark's words, over the relation `source`."""
    tree = sqlglot.parse_one(view.sql(view.table), read="duckdb").transform(_in_spark)
    return tree.sql(dialect="databricks").replace(f"FROM `{view.table}`", f"FROM {source}")


def _in_spark(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Bracket) and _is_call(node.this, "map_extract"):
        column, key = node.this.expressions
        return sqlglot.parse_one(f"{column.sql('spark')}[{key.sql('spark')}]", read="spark")
    if isinstance(node, exp.TimestampTrunc) and node.text("unit") == "HOUR":
        return exp.Var(this=_HOUR.format(_spark_sql(node.this)))
    if _is_call(node, "timezone"):
        return exp.Var(this=_UTC.format(_spark_sql(node.expressions[1])))
    return node


def _spark_sql(part: exp.Expr) -> str:
    return part.copy().transform(_in_spark).sql(dialect="databricks")


def _is_call(node: object, name: str) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() == name
