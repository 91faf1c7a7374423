"""The language of rules: SQL conditions over the fields and features of one transaction.

Polars parses and runs them; what may stand in one is a fixed list of words, so that a condition cannot reach
beyond its own row. Whatever the words, each is also tried on awkward sample rows, together and one at a time,
before it is accepted. One that fails on a transaction all the same does not hold for it (`judged_apart`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.errors import ConfigurationError, nearest
from streaming.rules.judging import CANNOT_JUDGE, plain_frame

_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<text>'(?:[^']|'')*') | "(?P<quoted>[^"]+)" | (?P<comment>--|/\*)
    | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?) | (?P<word>[A-Za-z_]\w*)
    | (?P<regex>!?~\*?) | (?P<operator>\|\||<=|>=|<>|!=|[-+*/%=<>(),])""",
    re.VERBOSE,
)
_FUNCTIONS = frozenset(
    {
        "abs",
        "ceil",
        "floor",
        "round",
        "sign",
        "sqrt",
        "exp",
        "ln",
        "log10",
        "mod",
        "pow",
        "coalesce",
        "nullif",
        "ifnull",
        "greatest",
        "least",
        "if",
        "lower",
        "upper",
        "length",
        "char_length",
        "ltrim",
        "rtrim",
        "left",
        "right",
        "substr",
        "replace",
        "starts_with",
        "ends_with",
        "strpos",
        "regexp_like",
        "concat",
        "extract",
        "date_part",
        "try_cast",
    }
)
_KEYWORDS = frozenset(
    {
        "and",
        "or",
        "not",
        "in",
        "between",
        "is",
        "null",
        "like",
        "ilike",
        "true",
        "false",
        "case",
        "when",
        "then",
        "else",
        "end",
        "distinct",
        "from",
        "as",
    }
)
_PARTS_AND_TYPES = frozenset(
    {
        "year",
        "quarter",
        "month",
        "week",
        "day",
        "dow",
        "isodow",
        "doy",
        "hour",
        "minute",
        "second",
        "epoch",
        "date",
        "timestamp",
        "int",
        "integer",
        "bigint",
        "smallint",
        "double",
        "precision",
        "float",
        "real",
        "text",
        "varchar",
        "boolean",
    }
)
_SAMPLES: dict[str, tuple[Any, ...]] = {
    "text": ("", "a", "(", "[", "\\", "%", "0", "-1.5", "É𝛼\n", "EUR", None),
    "float": (float("nan"), 0.0, -0.0, 1.0, -1.0, 0.5, 1e308, -1e308, 5e-324, 12345.67, 3.0, None),
    "int": (0, 1, 2, 7, 42, 100, 127, None),
    "bool": (True, False, None),
    "time": (*(datetime(year, 2, 28, 23, 59, 59, tzinfo=UTC) for year in (1, 1969, 1970, 2024, 9999)), None),
}
_SAMPLE_ROWS = 24
_JOINS = frozenset({"and", "or", "not", "between", "like", "ilike", "is", "in", "case", "when"})
# Each joins two parts by one more level, which the engine walks by recursion: thousands end the process.
_MOST_JOINS = 250
_STEPS = (1, 5, 7, 3)


@lru_cache(maxsize=256)  # a file of rules is read again and again, with most of them unchanged
def compile_condition(rule: str, text: str, key: str, schema: pa.Schema) -> pl.Expr:
    """Check and compile one condition of a rule.

    Args:
        rule: the rule's name.
        text: the condition.
        key: where it stands in its document.
        schema: what it can use.

    Raises:
        ConfigurationError: naming rule and key; it does not parse, names an unknown column or function, is
            not true or false, looks beyond its own row, or can fail on data.
    """
    return _Check(rule, text, key, schema).compile()


class _Check:
    """Checks one condition of a rule; every refusal names the rule and its key."""

    def __init__(self, rule: str, text: str, key: str, schema: pa.Schema) -> None:
        self._rule, self._text, self._key, self._schema = rule, text, key, schema

    def compile(self) -> pl.Expr:
        self._check_words()
        try:
            condition = pl.sql_expr(self._text)
            self._check_columns(condition)
            self._check_kind(condition)
            self._check_rows(condition, plain_frame(_sample(self._schema)))
        except CANNOT_JUDGE as fault:
            self._refuse(f"not usable on every transaction: {' '.join(str(fault).split())[:200]}")
        return condition

    def _refuse(self, problem: str) -> NoReturn:
        raise ConfigurationError(f"rule {self._rule!r}: {problem}", key=self._key)

    def _tokens(self) -> list[re.Match[str]]:
        text, found, position = self._text, [], 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            if token is None or token.lastgroup == "comment":
                self._refuse(f"cannot read {text[position : position + 20]!r}")
            position = token.end()
            if token.lastgroup != "space":
                found.append(token)
        return found

    def _check_words(self) -> None:
        tokens = self._tokens()
        self._check_size(tokens)
        for place, token in enumerate(tokens):
            called = place + 1 < len(tokens) and tokens[place + 1][0] == "("
            if token["quoted"] is not None:
                self._check_column(token["quoted"])
            elif token["word"] is not None:
                self._check_word(token["word"], called)
            if token[0].lower() == "regexp_like" or token["regex"] is not None:
                self._check_pattern(tokens[place + 1 :], called)

    def _check_size(self, tokens: list[re.Match[str]]) -> None:
        joins = sum((each["operator"] or ",") not in "()," or each[0].lower() in _JOINS for each in tokens)
        if joins > _MOST_JOINS:
            self._refuse(f"joins {joins} parts; {_MOST_JOINS} at most, so make several rules of it")

    def _check_word(self, word: str, called: bool) -> None:
        plain = word.lower()
        if called and plain not in _FUNCTIONS | _KEYWORDS:
            self._refuse(f"function {word!r} may not be used; {nearest(plain, _FUNCTIONS)}")
        if not called and plain not in _KEYWORDS | _PARTS_AND_TYPES:
            self._check_column(word)

    def _check_column(self, name: str) -> None:
        if name not in self._schema.names:
            self._refuse(f"unknown column {name!r}; {nearest(name, self._schema.names)}")

    def _check_pattern(self, following: list[re.Match[str]], called: bool) -> None:
        # A pattern made from data can be invalid, and then the whole batch would fail.
        pattern = _second_argument(following) if called else following[:1]
        if len(pattern) != 1 or pattern[0]["text"] is None:
            self._refuse("a regular expression must be written out as 'text'")

    def _check_columns(self, condition: pl.Expr) -> None:
        names = condition.meta.root_names()
        if not names:
            self._refuse("names no column, so it would hold for all transactions or none")
        for name in names:
            self._check_column(name)

    def _check_kind(self, condition: pl.Expr) -> None:
        empty = plain_frame(self._schema.empty_table()).lazy()
        kind = empty.select(condition.alias("held")).collect_schema()["held"]
        if kind != pl.Boolean:
            self._refuse(f"expected a condition that is true or false, this one is {kind}")

    def _check_rows(self, condition: pl.Expr, sample: pl.DataFrame) -> None:
        held = condition.alias("held")
        together = sample.select(held)["held"].to_list()
        alone = [sample.slice(row, 1).select(held)["held"].to_list() for row in range(sample.height)]
        if alone != [[value] for value in together]:
            self._refuse("looks beyond its own row; use only fields of one transaction")


def _second_argument(call: list[re.Match[str]]) -> list[re.Match[str]]:
    depth, commas = 0, 0
    argument = []
    for token in call:
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0:
            break
        if depth == 1 and token[0] == ",":
            commas += 1
        elif commas == 1:
            argument.append(token)
    return argument


def _sample(schema: pa.Schema) -> pa.Table:
    columns = {}
    for place, field in enumerate(schema):
        values, step = _values(field.type), _STEPS[place % len(_STEPS)]
        chosen = [values[(row * step + place) % len(values)] for row in range(_SAMPLE_ROWS)]
        columns[field.name] = pa.array(chosen, field.type)
    return pa.table(columns)


def _values(kind: pa.DataType) -> tuple[Any, ...]:
    if pa.types.is_integer(kind):
        limits = np.iinfo(kind.to_pandas_dtype())
        return (int(limits.min), int(limits.max), *_SAMPLES["int"])
    if pa.types.is_boolean(kind):
        return _SAMPLES["bool"]
    if pa.types.is_floating(kind):
        return _SAMPLES["float"]
    return _SAMPLES["time"] if pa.types.is_temporal(kind) else _SAMPLES["text"]
