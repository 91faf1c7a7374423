"""The notebooks of a bundle, which the user owns once they are written."""

from __future__ import annotations

from pprint import pformat

from schemas.spec import AgentSpec
from streaming.databricks.curated_sql import table_statements, view_statements

_WIDTH = 108
_SMOKE = """\
# Databricks notebook source
# The first job of a new workspace: checks what the agent needs, and writes nothing.
from pathlib import Path

from streaming.databricks.smoke import checks

for name in ("spec", "kept", "credentials"):
    dbutils.widgets.text(name, "")
spec, kept, credentials = (dbutils.widgets.get(name) for name in ("spec", "kept", "credentials"))

# COMMAND ----------

found = checks(Path(spec), Path(kept), spark, credentials)
for each in found:
    print("ok  " if each.passed else "FAIL", each.name, "-", each.said)
failed = [each.name for each in found if not each.passed]
if failed:
    raise RuntimeError(f"not ready: {', '.join(failed)}")
"""
_TABLES = """\
# Databricks notebook source
# Declares the lake's tables in Unity Catalog, and the curated views that readers may select from.
# A table that the agent has not made yet is left for the next run.
for name in ("catalog", "schema", "store", "readers"):
    dbutils.widgets.text(name, "")
given = {{name: dbutils.widgets.get(name) for name in ("catalog", "schema", "store", "readers")}}
put = {{**given, "schema": f"`{{given['catalog']}}`.`{{given['schema']}}`"}}

# COMMAND ----------

TABLES = {tables}

# COMMAND ----------

# stored table -> view, statements
VIEWS = {views}

# COMMAND ----------

known = set()
for table, location, statement in TABLES:
    try:
        # Asked first: to declare a table where none is would make an empty one there.
        spark.sql(f"DESCRIBE DETAIL delta.`{{location.format(**put)}}`").collect()
    except Exception as fault:
        print("not there yet, or not to be read:", table, "-", str(fault).splitlines()[0])
        continue
    spark.sql(statement.format(**put))
    known.add(table)
for table, view, statements in VIEWS:
    if table in known:
        for statement in statements:
            spark.sql(statement.format(**put))
        print("view:", view)
"""


def smoke_notebook() -> str:
    """Return the notebook that checks a workspace and writes nothing."""
    return _SMOKE


def tables_notebook(spec: AgentSpec) -> str:
    """Return the notebook that declares an agent's tables and views."""
    return _TABLES.format(
        tables=pformat(table_statements(spec), width=_WIDTH),
        views=pformat(view_statements(spec), width=_WIDTH),
    )
