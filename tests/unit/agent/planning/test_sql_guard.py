"""The query guard: what reads files, writes, or reaches beyond the views never passes."""

from __future__ import annotations

from contextlib import suppress

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.planning.curated import curated_views
from agent.planning.refusals import Refused
from agent.planning.sql_guard import CheckedQuery, check_query
from tests.unit.plan_samples import CONTRACT

VIEWS = curated_views(CONTRACT)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=300)
HOSTILE = [
    # statements that are no SELECT
    "DROP TABLE alerts",
    "DELETE FROM alerts",
    "UPDATE alerts SET score = 0",
    "INSERT INTO alerts VALUES (1)",
    "CREATE TABLE x AS SELECT * FROM alerts",
    "CREATE VIEW x AS SELECT * FROM alerts",
    "ALTER TABLE alerts ADD COLUMN x INT",
    "COPY alerts TO '/tmp/out.csv'",
    "COPY (SELECT * FROM alerts) TO 's3://bucket/out.parquet'",
    "COPY alerts FROM '/etc/passwd'",
    "EXPORT DATABASE '/tmp/out'",
    "IMPORT DATABASE '/tmp/out'",
    "ATTACH '/tmp/other.db' AS other",
    "DETACH other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '/tmp/evil.duckdb_extension'",
    "PRAGMA database_list",
    "PRAGMA enable_external_access = true",
    "SET enable_external_access = true",
    "RESET memory_limit",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "USE main",
    "BEGIN TRANSACTION",
    "EXECUTE stmt",
    "PREPARE stmt AS SELECT 1",
    "EXPLAIN ANALYZE SELECT * FROM alerts",
    "DESCRIBE alerts",
    "SUMMARIZE alerts",
    "SHOW TABLES",
    "VALUES (1)",
    "MERGE INTO alerts USING labels ON true WHEN MATCHED THEN DELETE",
    "CREATE SECRET (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "CREATE MACRO f() AS 1",
    # more than one statement
    "SELECT 1 AS a FROM alerts; DROP TABLE alerts",
    "SELECT 1 AS a FROM alerts;; SELECT 2 AS b FROM labels",
    "SELECT 1 AS a FROM alerts; --\nCOPY alerts TO 'x'",
    "SELECT * FROM alerts UNION ALL SELECT * FROM alerts",
    "SELECT 1 AS a FROM alerts EXCEPT SELECT 1 AS a FROM labels",
    # files and the network
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'alerts.parquet'",
    'SELECT * FROM "data/*.parquet"',
    "SELECT * FROM 'https://example.org/x.csv'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv_auto('/etc/passwd')",
    "SELECT * FROM read_parquet('s3://bucket/*')",
    "SELECT * FROM parquet_scan('x')",
    "SELECT * FROM read_json('x')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM sqlite_scan('x.db', 't')",
    "SELECT * FROM postgres_scan('host=x', 'public', 't')",
    "SELECT * FROM delta_scan('/lake')",
    "SELECT * FROM iceberg_scan('x')",
    "SELECT content FROM read_text('/proc/self/environ')",
    "SELECT (SELECT content FROM read_text('/etc/passwd')) AS a FROM alerts",
    "SELECT count(*) FROM alerts WHERE reason IN (SELECT content FROM read_text('/etc/passwd'))",
    "WITH x AS (SELECT * FROM read_csv('/etc/passwd')) SELECT * FROM x",
    "SELECT * FROM alerts JOIN '/etc/passwd' p ON true",
    "SELECT * FROM alerts, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
    "FROM '/etc/passwd'",
    "FROM read_csv('/etc/passwd') SELECT *",
    "SELECT getenv('HOME') AS a FROM alerts",
    "SELECT current_setting('secret_directory') AS a FROM alerts",
    "SELECT query('SELECT 1') AS a FROM alerts",
    "SELECT * FROM query('SELECT * FROM ledger')",
    "SELECT * FROM query_table('ledger')",
    # the engine's own catalogue, other tables, other schemas
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM ledger",
    "SELECT * FROM stored_alerts",
    "SELECT * FROM main.alerts",
    "SELECT * FROM memory.main.alerts",
    "SELECT * FROM other.main.alerts",
    "WITH alerts AS (SELECT 1 AS score) SELECT score FROM alerts",
    # what never ends or grows without bound
    "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x) SELECT * FROM x",
    "WITH RECURSIVE x AS (SELECT score FROM alerts) SELECT * FROM x",
    "SELECT * FROM range(1000000000)",
    "SELECT * FROM generate_series(1, 1000000000)",
    "SELECT repeat('x', 1000000000) AS a FROM alerts",
    "SELECT unnest([1, 2]) AS a FROM alerts",
    "SELECT reason || reason AS a FROM alerts",
    "SELECT * FROM alerts a, alerts b, alerts c, alerts d, alerts e, alerts f, alerts g",
    # ways around the list of columns, and other side doors
    "SELECT memo FROM transactions",
    "SELECT rowid FROM alerts",
    "SELECT alerts FROM alerts",
    "SELECT COLUMNS('.*') FROM alerts",
    "SELECT score FROM alerts FOR UPDATE",
    "SELECT score FROM alerts TABLESAMPLE 10%",
    "SELECT * FROM alerts PIVOT (count(*) FOR reason IN ('a'))",
    "SELECT score INTO x FROM alerts",
    "SELECT score FROM alerts LIMIT (SELECT count(*) FROM alerts)",
    "SELECT score FROM alerts LIMIT ?",
    "SELECT score FROM alerts WHERE reason = $1",
    "SELECT score FROM alerts WHERE reason = $name",
    "SELECT CAST(score AS STRUCT(a INT)) AS a FROM alerts",
    "SELECT score::regclass AS a FROM alerts",
    "SELECT list_transform([1], x -> x) AS a FROM alerts",
    "SELECT {'a': score} AS a FROM alerts",
    "SELECT nextval('s') AS a FROM alerts",
    "SELECT now() AS a FROM alerts",
    "SELECT random() AS a FROM alerts",
    "SELECT score AS a, amount AS a FROM alerts",
    "",
    ";",
    "SELECT",
    "SELECT 'unterminated FROM alerts",
    "SELECT " + "(" * 3_000 + "1" + ")" * 3_000 + " AS a FROM alerts",
    "SELECT " + "- " * 1_900 + "1 AS a FROM alerts",
    "SELECT score FROM alerts -- " + "x" * 5_000,
]  # fmt: skip
HARMLESS = [
    "SELECT terminal, count(*) AS n FROM alerts WHERE terminal = ? GROUP BY terminal ORDER BY n DESC LIMIT 5",
    "WITH x AS (SELECT reason, avg(score) AS s FROM alerts GROUP BY reason) SELECT * FROM x WHERE s > 0.5",
    "SELECT a.reason, count(*) AS n FROM alerts a JOIN labels l USING (transaction_id) GROUP BY 1",
    "SELECT hour, count(*) FILTER (WHERE amount > 1) AS n FROM alerts GROUP BY hour HAVING count(*) > 1",
    "SELECT extract(hour FROM event_time) AS h, median(amount) AS m, quantile_cont(amount, 0.9) AS q "
    "FROM transactions GROUP BY h",
    "SELECT CASE WHEN score > 0.9 THEN 'high' ELSE 'low' END AS band, count(DISTINCT customer) AS n "
    "FROM alerts GROUP BY ALL",
    "SELECT count(*) AS n FROM alerts WHERE day > DATE '2026-05-02' + INTERVAL 1 DAY",
    "SELECT sum(stored) AS stored, max(closed_at) AS newest FROM batches",
    "SELECT reason, count(*) AS n FROM quarantine GROUP BY reason",
    "SELECT count(*) AS n FROM alerts a WHERE EXISTS (SELECT 1 FROM labels l "
    "WHERE l.transaction_id = a.transaction_id)",
    "SELECT date_trunc('day', event_time) AS d, round(avg(amount), 2) AS m FROM alerts GROUP BY d /* why */",
]  # fmt: skip
FUNCTIONS = sorted(
    {name for (name,) in duckdb.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()}
)
WORDS = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "LIMIT",
    "JOIN",
    "USING",
    "ON",
    "AS",
    "WITH",
    "UNION",
    "ALL",
    "DISTINCT",
    "COPY",
    "TO",
    "DROP",
    "TABLE",
    "INSERT",
    "INTO",
    "SET",
    "PRAGMA",
    "ATTACH",
    ";",
    ",",
    "(",
    ")",
    "*",
    "=",
    "?",
    "'",
    '"',
    "--",
    "/*",
    "*/",
    "::",
    "||",
    "[",
    "]",
    "{",
    "}",
    ".",
    "$1",
    "alerts",
    "transactions",
    "labels",
    "score",
    "amount",
    "reason",
    "ledger",
    "read_csv('x')",
    "'/etc/passwd'",
    "'x.parquet'",
    "count(*)",
    "1",
    "NULL",
]


def checked(sql: str, rows: int = 50) -> CheckedQuery:
    return check_query(sql, VIEWS, tuple(VIEWS), rows)


def only_selects(query: CheckedQuery) -> bool:
    """The engine's own parser agrees that this is one SELECT."""
    (statement,) = duckdb.extract_statements(query.sql)
    return statement.type is duckdb.StatementType.SELECT


def nothing_but_selects(query: CheckedQuery) -> bool:
    """The same, of a query that the engine may also be unable to read."""
    try:
        return only_selects(query)
    except duckdb.ParserException:
        return True


@pytest.mark.parametrize("sql", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_query_is_refused_with_a_rule(sql: str) -> None:
    with pytest.raises(Refused) as caught:
        checked(sql)
    assert caught.value.refusals[0].rule.partition(".")[0] in ("query", "dataAccess")


@pytest.mark.parametrize("depth", [10, 100, 250, 330, 450, 900])
@pytest.mark.parametrize(("before", "after"), [("- ", ""), ("NOT ", ""), ("(", ")"), ("coalesce(", ")")])
def test_however_deep_a_query_goes_it_passes_or_is_refused(depth: int, before: str, after: str) -> None:
    sql = f"SELECT {before * depth}amount{after * depth} AS x FROM transactions"
    with suppress(Refused):
        assert only_selects(checked(sql))


def test_what_is_refused_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Refused):
        checked("SET secret = 'x'")
    assert caplog.records == []


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    assert len(set(HOSTILE)) >= 40
    assert len(FUNCTIONS) > 500


@pytest.mark.parametrize("sql", HARMLESS, ids=range(len(HARMLESS)))
def test_a_harmless_query_passes_as_one_select_without_comments(sql: str) -> None:
    query = checked(sql)
    assert only_selects(query)
    assert "why" not in query.sql
    assert query.placeholders == sql.count("?")


@pytest.mark.parametrize(("end", "limit"), [("", 51), ("LIMIT 9", 9), ("LIMIT 99999", 51)])
def test_at_most_one_row_more_than_allowed_comes_back(end: str, limit: int) -> None:
    assert checked(f"SELECT score FROM alerts {end}").sql.endswith(f"LIMIT {limit}")


def test_a_view_that_the_policy_leaves_out_cannot_be_named() -> None:
    with pytest.raises(Refused, match=r"dataAccess.tables: 'labels' may not be read"):
        check_query("SELECT * FROM labels", VIEWS, ("alerts",), 50)


@pytest.mark.parametrize(
    ("sql", "column", "fields"),
    [
        ("SELECT customer FROM alerts", "customer", {"entities.customer"}),
        ("SELECT upper(customer) AS x FROM alerts", "x", {"entities.customer"}),
        ("SELECT x FROM (SELECT customer AS x FROM alerts)", "x", {"entities.customer"}),
        (
            "WITH c AS (SELECT customer AS x FROM alerts) SELECT max(x) AS y FROM c",
            "y",
            {"entities.customer"},
        ),
        ("SELECT count(DISTINCT customer) AS n FROM alerts", "n", set()),
        ("SELECT count(*) FILTER (WHERE customer = 'c') AS n FROM alerts", "n", set()),
        ("SELECT CASE WHEN customer < 'c' THEN 1 END AS x FROM alerts", "x", {"entities.customer"}),
        ("SELECT amount * score AS x FROM alerts", "x", {"amount", "score"}),
        ("SELECT hour, count(*) AS n FROM transactions GROUP BY hour", "hour", {"event_hour"}),
        ("SELECT severity FROM alerts", "severity", set()),
    ],
)
def test_what_a_column_reveals_is_followed_through_the_query(sql: str, column: str, fields: set[str]) -> None:
    assert checked(sql).reveals[column] == fields


def test_a_subquery_among_the_columns_counts_as_revealing_everything() -> None:
    reveals = checked("SELECT (SELECT max(customer) FROM alerts) AS x FROM labels").reveals["x"]
    assert {"entities.customer", "entities.terminal", "amount", "transaction_id"} <= reveals
    outer = "SELECT (SELECT max(x.t) FROM labels) AS d FROM (SELECT customer AS t FROM alerts) x"
    assert "entities.customer" in checked(outer).reveals["d"]


def test_parts_that_draw_on_each_other_again_and_again_are_looked_at_once() -> None:
    def summed(column: str) -> str:
        return " + ".join([column] * 40)

    parts = [f"p{number} AS (SELECT {summed('x')} AS x FROM p{number - 1})" for number in range(1, 5)]
    first = f"p0 AS (SELECT {summed('amount')} AS x FROM alerts)"
    assert checked(f"WITH {', '.join([first, *parts])} SELECT x FROM p4").reveals["x"] == {"amount"}


@PROPERTY
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join) | st.text(max_size=200))
def test_whatever_is_written_is_refused_or_one_select_over_the_views(sql: str) -> None:
    try:
        query = checked(sql)
    except Refused:
        return
    assert nothing_but_selects(query)
    assert set(query.views) <= set(VIEWS)


PLACES = (
    "SELECT {} AS x FROM alerts",
    "SELECT * FROM {}",
    "SELECT score FROM alerts WHERE reason = {}",
    "SELECT (SELECT x FROM {} AS t(x)) AS y FROM alerts",
    "WITH t AS (SELECT * FROM {}) SELECT * FROM t",
    "SELECT score FROM alerts ORDER BY {}",
    "SELECT count(*) AS n FROM alerts GROUP BY {}",
    "SELECT count(*) AS n FROM alerts JOIN {} AS f ON true",
)
REACHING_OUT = (
    "read_",
    "glob",
    "scan",
    "getenv",
    "copy",
    "sniff",
    "query",
    "pragma",
    "duckdb_",
    "range",
    "setting",
)


@PROPERTY
@given(
    st.sampled_from(FUNCTIONS),
    st.sampled_from(PLACES),
    st.sampled_from(("'/etc/passwd'", "score", "", "1, 2")),
)
def test_no_function_of_the_engine_that_reaches_out_passes_in_any_place(
    function: str, place: str, arguments: str
) -> None:
    try:
        query = checked(place.format(f"{function}({arguments})"))
    except Refused:
        return
    assert nothing_but_selects(query)
    assert not any(part in function for part in REACHING_OUT), query.sql
    assert place.partition("{}")[0].rstrip()[-4:] not in ("FROM", "JOIN")
