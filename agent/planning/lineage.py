"""Which fields of the policy the columns of a query reveal, and where ids that leave as tokens may stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlglot import exp
from sqlglot.optimizer.scope import Scope

from agent.planning.curated import Views
from agent.planning.refusals import refused
from schemas.policy import Policy

_COUNTS = (exp.Count, exp.CountIf, exp.ApproxDistinct)
_PICKED = (exp.Min, exp.Max)
_SHOWN_BY_ITSELF = (exp.Alias, exp.Select, exp.Group, exp.Ordered)
_GIVEN = (exp.Column, exp.Placeholder, exp.Literal, exp.Null)


class Lineage:
    """Follows fields through subqueries and named parts.

    Args:
        scopes: of a query whose columns are qualified, each after those it draws on.
        views: which fields their columns reveal.
    """

    def __init__(self, scopes: Sequence[Scope], views: Views) -> None:
        self._views = views
        self._known: dict[int, Mapping[str, frozenset[str]]] = {}
        for scope in scopes:  # a scope comes after those it draws on, so each is read once
            self._known[id(scope)] = self._columns(scope)

    def of(self, scope: Scope) -> Mapping[str, frozenset[str]]:
        """Return output column → fields."""
        return self._known[id(scope)]

    def of_column(self, column: exp.Column, scope: Scope) -> frozenset[str]:
        """Return the fields that one column reveals where it stands."""
        if not column.table:  # the name of an output column, as in ORDER BY
            return self._known.get(id(scope), {}).get(column.name, self._everything())
        source = scope.sources.get(column.table)
        if isinstance(source, Scope):
            return self._known.get(id(source), {}).get(column.name, self._everything())
        view = self._views.get(source.name.lower()) if isinstance(source, exp.Table) else None
        return self._everything() if view is None else view.reveals.get(column.name, self._everything())

    def _columns(self, scope: Scope) -> Mapping[str, frozenset[str]]:
        select = scope.expression
        assert isinstance(select, exp.Select)
        return {each.alias_or_name: self._fields(each, scope) for each in select.selects}

    def _fields(self, expression: exp.Expr, scope: Scope) -> frozenset[str]:
        if expression.find(exp.Select) is not None:
            return self._everything()
        return frozenset().union(*(self.of_column(column, scope) for column in _shown_columns(expression)))

    def _everything(self) -> frozenset[str]:
        """What a value may reveal of which nothing better is known."""
        known = (fields for view in self._views.values() for fields in view.reveals.values())
        return frozenset().union(*known)


def check_token_columns(scopes: Sequence[Scope], lineage: Lineage, policy: Policy) -> None:
    """Check that ids which leave as tokens are shown whole, grouped, counted, or compared for equality.

    Anything else, such as LIKE or a part of it, would tell of an id what its token hides.

    Raises:
        Refused: naming the column.
    """
    for scope in scopes:
        for column in scope.find_all(exp.Column):
            tokens = [name for name in lineage.of_column(column, scope) if policy.as_token(name)]
            if tokens and not _may_stand(column):
                raise refused(
                    "allowedFields",
                    f"{column.name!r} leaves as a token: select, group or count it, or compare it by = or IN",
                )


def _may_stand(column: exp.Expr) -> bool:
    above = _above(column)
    if isinstance(above, exp.Coalesce):  # what USING makes of the columns of both sides
        return all(isinstance(each, exp.Column) for each in above.iter_expressions()) and isinstance(
            _above(above), _SHOWN_BY_ITSELF
        )
    if isinstance(above, _PICKED):
        return isinstance(_above(above), (exp.Alias, exp.Select))
    if isinstance(above, exp.Distinct):
        return isinstance(above.parent, (exp.Count, exp.Select))
    if isinstance(above, (exp.EQ, exp.NEQ, exp.Is)):
        return all(isinstance(each.unnest(), _GIVEN) for each in above.iter_expressions())
    if isinstance(above, exp.In):
        return all(isinstance(each.unnest(), (*_GIVEN, exp.Query)) for each in above.iter_expressions())
    return isinstance(above, (*_SHOWN_BY_ITSELF, exp.Count, exp.ApproxDistinct))


def _above(node: exp.Expr) -> exp.Expr | None:
    above = node.parent
    while isinstance(above, exp.Paren):
        above = above.parent
    return above


def _shown_columns(expression: exp.Expr) -> Iterator[exp.Column]:
    """Yield the columns whose values an expression shows; a count shows none."""
    counted = expression.this if isinstance(expression, exp.Filter) else expression
    if isinstance(counted, _COUNTS):
        return
    if isinstance(expression, exp.Column):
        yield expression
    for child in expression.iter_expressions():
        yield from _shown_columns(child)
