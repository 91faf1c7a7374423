"""Which queries may run: one SELECT over curated views, made of nothing but what is listed here.

A query is parsed, every node of it is looked up in a list of kinds that are allowed, its columns are resolved
against the views, and what runs is written anew from the parsed tree: what the guard has not understood never
reaches the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import OptimizeError, SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import traverse_scope

from agent.planning.curated import CuratedView, Views, shown_under
from agent.planning.lineage import Lineage, check_token_columns
from agent.planning.refusals import Refused, refused
from schemas.errors import nearest
from schemas.policy import Policy

# The parser tells the log what it does not understand, queries and all; the refusal says enough.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_DIALECT = "duckdb"
_MOST_CHARACTERS = 4_000
_MOST_NODES = 1_000
_MOST_TABLES = 6

_STRUCTURE = (
    exp.Select, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit,
    exp.Offset, exp.With, exp.CTE, exp.TableAlias, exp.Subquery, exp.Table, exp.Column, exp.Identifier,
    exp.Alias, exp.Star, exp.Distinct, exp.Filter, exp.Paren, exp.Placeholder, exp.Var,
)  # fmt: skip
_VALUES = (
    exp.Literal, exp.Boolean, exp.Null, exp.Interval, exp.Cast, exp.TryCast, exp.DataType, exp.DataTypeParam,
)  # fmt: skip
_OPERATORS = (
    exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between,
    exp.Exists, exp.Like, exp.ILike, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg,
    exp.Case, exp.If,
)  # fmt: skip
_FUNCTIONS = (
    exp.Count, exp.CountIf, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Median, exp.Quantile, exp.PercentileCont,
    exp.ApproxDistinct,
    exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.Variance, exp.Abs, exp.Round, exp.Floor, exp.Ceil, exp.Ln,
    exp.Sqrt, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Lower, exp.Upper, exp.Length,
    exp.DateTrunc, exp.TimestampTrunc, exp.Extract, exp.DateDiff,
)  # fmt: skip
_ALLOWED: frozenset[type[exp.Expr]] = frozenset(_STRUCTURE + _VALUES + _OPERATORS + _FUNCTIONS)
_TYPES = frozenset(
    exp.DataType.Type[name]
    for name in (
        "BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR", "TEXT",
        "DATE", "TIME", "TIMESTAMP", "INTERVAL",
    )
)  # fmt: skip


@dataclass(frozen=True)
class CheckedQuery:
    """A query that may run.

    Attributes:
        sql: written anew from what was understood; at most the allowed rows and one more come back.
        views: the views it reads, as the engine has to make them.
        placeholders: how many values it wants.
        reveals: column of the result → fields of the policy that its values reveal. Conditions do not count:
            how many rows fit a condition may leave wherever counts may.
        without: fields of the policy that the views do not hold, since they may not leave.
    """

    sql: str
    views: Views
    placeholders: int
    reveals: Mapping[str, frozenset[str]]
    without: frozenset[str] = frozenset()


def check_query(
    sql: str, views: Views, tables: Collection[str], rows: int, *, model_policy: Policy | None = None
) -> CheckedQuery:
    """Check a query.

    Args:
        sql: one SELECT, in DuckDB's dialect.
        views: the curated views.
        tables: those that the policy lets be read.
        rows: most rows of the result.
        model_policy: the policy under which a model has made the query: it reads views without the columns
            that may not leave, and may compare ids that leave as tokens for equality alone. None for a
            person's query.

    Raises:
        Refused: naming the rule.
    """
    held = views if model_policy is None else shown_under(views, model_policy)
    try:
        tree = _parsed(sql)
        _check_kinds(tree)
        used = _check_tables(tree, held, tables)
        qualified = _qualified(tree.copy(), held)
        _check_kinds(qualified)  # resolving names can bring new kinds, such as a table taken for a column
        scopes = traverse_scope(qualified)
        lineage = Lineage(scopes, held)
        if model_policy is not None:
            check_token_columns(scopes, lineage, model_policy)
        limited = _limited(qualified, rows)
        written = limited.sql(dialect=_DIALECT, comments=False)
    except OptimizeError as fault:
        _check_denied(tree, [(views[name], held[name]) for name in used])
        raise refused("query.columns", _first_line(fault)) from None
    except (SqlglotError, RecursionError, ValueError) as fault:
        raise refused("query.syntax", _first_line(fault)) from None
    return CheckedQuery(
        written,
        {name: held[name] for name in used},
        sum(isinstance(node, exp.Placeholder) for node in limited.walk()),
        lineage.of(scopes[-1]),
        _missing(views, held, used),
    )


def _missing(views: Views, held: Views, used: Collection[str]) -> frozenset[str]:
    fields = {name: frozenset().union(*views[name].reveals.values()) for name in used}
    left = {name: frozenset().union(*held[name].reveals.values()) for name in used}
    return frozenset().union(*(fields[name] - left[name] for name in used))


def _check_denied(tree: exp.Select, used: Collection[tuple[CuratedView, CuratedView]]) -> None:
    """Refuse by its rule a query that names a column which the views do not hold for whoever made it."""
    names = {column.name.lower() for column in tree.find_all(exp.Column)}
    for whole, held in used:
        for column in whole.columns:
            if column not in held.columns and column.name.lower() in names:
                raise refused(
                    "allowedFields", f"{column.name!r} may not leave: no plan of a model may name it"
                )


def _parsed(sql: str) -> exp.Select:
    if len(sql) > _MOST_CHARACTERS:
        raise refused("query.syntax", f"longer than {_MOST_CHARACTERS} characters")
    statements = [each for each in sqlglot.parse(sql, dialect=_DIALECT) if each is not None]
    if len(statements) != 1 or type(statements[0]) is not exp.Select:
        raise refused("query.statement", "only a single SELECT may run")
    return statements[0]


def _check_kinds(tree: exp.Select) -> None:
    for count, node in enumerate(tree.walk()):
        if count > _MOST_NODES:
            raise refused("query.syntax", f"more than {_MOST_NODES} parts")
        if type(node) not in _ALLOWED:
            raise _unknown(node)
        _check_details(node)


def _unknown(node: exp.Expr) -> Refused:
    if isinstance(node, exp.Anonymous):
        return refused("query.functions", f"{str(node.this).lower()!r} is not among the allowed functions")
    if isinstance(node, exp.Func):
        return refused("query.functions", f"{node.key!r} is not among the allowed functions")
    return refused("query.statement", f"{node.key!r} may not stand in a query")


def _check_details(node: exp.Expr) -> None:
    """Refuse what a kind that is allowed may carry besides its children."""
    if isinstance(node, exp.Table) and {name for name, value in node.args.items() if value} - {
        "this",
        "alias",
    }:
        raise refused("query.statement", "a table is named by one word, and nothing else")
    if isinstance(node, exp.Table) and not isinstance(node.this, exp.Identifier):
        raise refused("query.statement", "a table is named by one word, and nothing else")
    if isinstance(node, exp.Select) and not node.expressions:
        raise refused("query.syntax", "nothing is selected")
    if isinstance(node, exp.Select) and (node.args.get("kind") or node.args.get("operation_modifiers")):
        raise refused("query.statement", "only a plain SELECT may run")
    if isinstance(node, exp.With) and node.args.get("recursive"):
        raise refused("query.statement", "a query may not call itself")
    if isinstance(node, exp.DataType) and (node.this not in _TYPES or node.args.get("nested")):
        raise refused("query.statement", f"no values of type {node.sql(dialect=_DIALECT)!r}")
    if isinstance(node, exp.Placeholder) and node.args.get("this"):
        raise refused("query.statement", "values stand as a plain ?")
    if isinstance(node, exp.TableAlias) and node.columns:
        raise refused("query.statement", "columns are named in their own SELECT, not beside a table")
    if isinstance(node, exp.Join) and node.args.get("method"):
        raise refused("query.statement", "a join says by itself which columns it compares")
    if isinstance(node, exp.Column) and (node.args.get("db") or node.args.get("catalog")):
        raise refused("query.columns", "a column is named by itself, or with its table")


def _check_tables(tree: exp.Select, views: Views, tables: Collection[str]) -> tuple[str, ...]:
    own = [cte.alias.lower() for cte in tree.find_all(exp.CTE)]
    if len(set(own)) < len(own) or set(own) & set(views):
        raise refused("query.statement", "a named part must have a name of its own")
    named = [table.name.lower() for table in tree.find_all(exp.Table)]
    if len(named) > _MOST_TABLES:
        raise refused("query.statement", f"more than {_MOST_TABLES} tables")
    for name in sorted(set(named) - set(own)):
        if name not in tables or name not in views:
            raise refused("dataAccess.tables", f"{name!r} may not be read; {nearest(name, tables)}")
    return tuple(sorted(set(named) - set(own)))


def _qualified(tree: exp.Select, views: Views) -> exp.Select:
    schema: dict[str, object] = {
        name: {column.name: "unknown" for column in view.columns} for name, view in views.items()
    }
    found = qualify(tree, schema=schema, dialect=_DIALECT, validate_qualify_columns=True)
    assert isinstance(found, exp.Select)
    for select in found.find_all(exp.Select):
        names = select.named_selects
        if len({name.lower() for name in names}) < len(names):
            raise refused("query.columns", "two columns of a result have the same name")
    for column in found.find_all(exp.Column):  # in HAVING, qualify leaves columns unresolved
        if not column.table and column.name not in _outputs_around(column):
            raise OptimizeError(f"Column {column.name!r} could not be resolved")
    return found


def _outputs_around(column: exp.Column) -> list[str]:
    select = column.parent_select
    return [] if select is None else select.named_selects


def _limited(tree: exp.Select, rows: int) -> exp.Select:
    limit = tree.args.get("limit")
    if limit is not None:
        expression = limit.expression
        if not (isinstance(expression, exp.Literal) and expression.is_int):
            raise refused("query.statement", "a limit is a plain number")
        if int(expression.this) <= rows:
            return tree
    return tree.limit(rows + 1, copy=True)


def _first_line(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return "too deeply nested"
    return str(fault).splitlines()[0][:200]
