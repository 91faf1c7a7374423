"""The rules of a spec, compiled: which hold for single events, and which conditions patterns of two go by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.errors import ConfigurationError, nearest
from schemas.rules import Rule
from schemas.spec import FIRST_ARITHMETIC
from streaming.arrays.compilation import Flags
from streaming.rules.conditions import compile_condition
from streaming.rules.judging import CANNOT_JUDGE, judged_apart, plain_frame
from streaming.rules.pattern import CompiledPattern


@dataclass(frozen=True)
class Held:
    """Where the conditions of all rules hold.

    Attributes:
        hits: bool[rows, rules]; of a rule with a pattern no row is a hit by itself.
        starts: bool[rows, patterns], `first` or `after`.
        ends: bool[rows, patterns], `then` or `expected`.
        unjudged: rules that could not be judged for some rows.
    """

    hits: Flags
    starts: Flags
    ends: Flags
    unjudged: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleSet:
    """Rules ready to run on tables of one schema.

    Attributes:
        rules: as they stand in the spec; columns of Held.hits are in this order.
        patterns: of those that have one, in the same order.
        version: first 12 hex digits of the SHA-256 of all rules.
    """

    rules: tuple[Rule, ...]
    patterns: tuple[CompiledPattern, ...]
    version: str
    _conditions: tuple[tuple[pl.Expr, ...], ...]
    _columns: tuple[str, ...]

    @classmethod
    def compile(
        cls,
        rules: Sequence[Rule],
        schema: pa.Schema,
        entities: Sequence[str] = (),
        arithmetic: int = FIRST_ARITHMETIC,
    ) -> RuleSet:
        """Check and compile rules against the columns of the transactions table.

        Args:
            rules: as they stand in a spec.
            schema: what conditions can use.
            entities: what patterns can be about.
            arithmetic: of the spec, which patterns go by.

        Raises:
            ConfigurationError: naming the rule's key; a condition that does not parse, names an unknown
                column or function, is not true or false, looks beyond its own row, or can fail on data;
                a pattern of an unknown entity.
        """
        conditions = tuple(
            tuple(
                compile_condition(rule.name, text, f"rules.{place}.{key}", schema)
                for key, text in rule.conditions.items()
            )
            for place, rule in enumerate(rules)
        )
        for place, rule in enumerate(rules):
            _check_entities(rule, f"rules.{place}", entities)
        columns = {name for each in conditions for condition in each for name in condition.meta.root_names()}
        content = json.dumps([rule.model_dump() for rule in rules], sort_keys=True)
        version = hashlib.sha256(content.encode()).hexdigest()[:12]
        found = enumerate(rule for rule in rules if rule.pattern is not None)
        patterns = tuple(CompiledPattern.of(number, rule, arithmetic) for number, rule in found)
        return cls(tuple(rules), patterns, version, conditions, tuple(sorted(columns)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rules use."""
        return self._columns

    def hits(self, table: pa.Table) -> Flags:
        """Return which rule holds for which row by itself; see Held."""
        return self.held(table).hits

    def held(self, table: pa.Table) -> Held:
        """Return where which condition holds; unknown (null) counts as false.

        So does a condition that fails on a row, whatever stands in others: what was accepted has been tried
        on samples, and a row may hold what none of them does.
        """
        rows = table.num_rows
        if not self.rules:
            return Held(*np.zeros((3, rows, 0), np.bool_))
        held, unjudged = self._evaluated(plain_frame(table.select(list(self._columns))))
        hits = [each[0] if len(each) == 1 else np.zeros(rows, np.bool_) for each in held]
        pairs = [each for each in held if len(each) > 1]
        starts, ends = ([each[side] for each in pairs] for side in (0, 1))
        hit, start, end = (_side_by_side(columns, rows) for columns in (hits, starts, ends))
        return Held(hit, start, end, unjudged)

    def _evaluated(self, frame: pl.DataFrame) -> tuple[list[list[Flags]], tuple[str, ...]]:
        """Return each rule's conditions, bool[rows], and which rules have failed on a row."""
        known = [[each.fill_null(value=False) for each in some] for some in self._conditions]
        flat = [each.alias(str(place)) for place, each in enumerate(chain(*known))]
        try:
            columns = iter(frame.select(flat).get_columns())
        except CANNOT_JUDGE:
            return self._evaluated_apart(frame, known)
        return [[next(columns).to_numpy() for _ in each] for each in known], ()

    def _evaluated_apart(
        self, frame: pl.DataFrame, known: Sequence[Sequence[pl.Expr]]
    ) -> tuple[list[list[Flags]], tuple[str, ...]]:
        judged = [[judged_apart(frame, each) for each in some] for some in known]
        failed = [not all(whole for _, whole in each) for each in judged]
        names = tuple(rule.name for rule, fails in zip(self.rules, failed, strict=True) if fails)
        return [[held for held, _ in each] for each in judged], names


def _side_by_side(columns: Sequence[Flags], rows: int) -> Flags:
    if not columns:
        return np.zeros((rows, 0), np.bool_)
    return np.column_stack(columns)


def _check_entities(rule: Rule, key: str, entities: Sequence[str]) -> None:
    if rule.pattern is None:
        return
    kind = "sequence" if rule.sequence is not None else "absence"
    named = rule.pattern.entities
    for name in named:
        if name not in entities:
            problem = f"rule {rule.name!r}: no entity {name!r} in the contract; {nearest(name, entities)}"
            raise ConfigurationError(problem, key=f"{key}.{kind}.entity")
    if len(named) > len(set(named)) or len(named) > len(("one", "other")):
        raise ConfigurationError(
            f"rule {rule.name!r}: expected an entity, or two different ones such as customer+terminal",
            key=f"{key}.{kind}.entity",
        )
