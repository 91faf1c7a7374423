"""The curated views: what queries may read, and which field of the policy each column reveals.

One definition, from which the SQL that makes the views, the query guard's list of columns and the prompt's
notes derive. Free texts stand in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from schemas.contract import EventContract
from schemas.event_columns import DIRECTION
from schemas.policy import CuratedTable, Policy

_EVENT_TIME = "timezone('UTC', event_time)"


@dataclass(frozen=True)
class ViewColumn:
    """One column: its SQL over the stored table, what it means, and the field it reveals, None for none."""

    name: str
    expression: str
    meaning: str
    reveals: str | None = None


@dataclass(frozen=True)
class CuratedView:
    """A view over one table. `condition` chooses rows, in SQL."""

    table: CuratedTable
    meaning: str
    columns: tuple[ViewColumn, ...]
    condition: str = "true"

    @property
    def reveals(self) -> dict[str, frozenset[str]]:
        """Column → the fields that its values reveal."""
        return {
            column.name: frozenset(() if column.reveals is None else (column.reveals,))
            for column in self.columns
        }

    def sql(self, source: str) -> str:
        """Return the query that makes the view from the relation `source`."""
        columns = ", ".join(f'{column.expression} AS "{column.name}"' for column in self.columns)
        return f'SELECT {columns} FROM "{source}" WHERE {self.condition}'

    def notes(self) -> str:
        """Return its lines of the prompt."""
        columns = ", ".join(f"{column.name} ({column.meaning})" for column in self.columns)
        return f"{self.table}: {self.meaning}. Columns: {columns}"

    def shown_under(self, policy: Policy) -> CuratedView:
        """Return the view without the columns that reveal what may not leave."""
        kept = tuple(each for each in self.columns if each.reveals is None or policy.allows(each.reveals))
        return replace(self, columns=kept)


Views = Mapping[str, CuratedView]


def shown_under(views: Views, policy: Policy) -> Views:
    """Return the views that a plan made by a model is about: they hold no column that may not leave."""
    return {name: view.shown_under(policy) for name, view in views.items()}


def curated_views(contract: EventContract) -> Views:
    """Return the views over the tables of an agent that reads events of `contract`."""
    views = (_transactions(contract), _alerts(contract), _LABELS, _BATCHES, _QUARANTINE)
    return {view.table: view for view in views}


def _plain(name: str, meaning: str, reveals: str | None = None) -> ViewColumn:
    return ViewColumn(name, f'"{name}"', meaning, reveals)


_MOMENTS = (
    ViewColumn("event_time", _EVENT_TIME, "timestamp in UTC", "event_time"),
    ViewColumn("hour", f"date_trunc('hour', {_EVENT_TIME})", "timestamp of its hour", "event_hour"),
    ViewColumn("day", f"CAST({_EVENT_TIME} AS DATE)", "date in UTC", "event_hour"),
)
_PAYMENT = (
    _plain("transaction_id", "id", "transaction_id"),
    *_MOMENTS,
    _plain("amount", "number", "amount"),
    _plain("currency", "code", "currency"),
)


def _transactions(contract: EventContract) -> CuratedView:
    entities = [_plain(name, f"id of the {name}", f"entities.{name}") for name in contract.entity_names]
    extra = [_plain(name, "further field", f"extra.{name}") for name in contract.extra]
    direction = [_plain(DIRECTION, "payment or refund")] if contract.has_direction else []
    columns = (*_PAYMENT, *direction, _plain("late", "arrived after newer ones"), *entities, *extra)
    return CuratedView("transactions", "one row per payment", _distinct(columns))


def _alerts(contract: EventContract) -> CuratedView:
    entities = [
        ViewColumn(name, f"map_extract(entities, '{name}')[1]", f"id of the {name}", f"entities.{name}")
        for name in contract.entity_names
    ]
    columns = (
        _plain("alert_id", "id"),
        *_PAYMENT,
        _plain("score", "0 to 1", "score"),
        _plain("severity", "low, medium, high or critical"),
        _plain("classification", "typology"),
        ViewColumn("classified_by", '"classification_source"', "llm or rules"),
        ViewColumn("reason", "reasons[1].name", "strongest reason, such as amount.customer", "reasons"),
        ViewColumn("rules", "array_to_string(rules, ' ')", "names of the rules hit", "rules"),
        *entities,
    )
    return CuratedView("alerts", "one row per alert", _distinct(columns), "revision = 1")


def _distinct(columns: tuple[ViewColumn, ...]) -> tuple[ViewColumn, ...]:
    """Of two columns with one name the contract's own, which stands last, is kept."""
    return tuple({column.name: column for column in columns}.values())


_LABELS = CuratedView(
    "labels",
    "one row per verdict on a payment, later ones overrule",
    (
        _plain("transaction_id", "id", "transaction_id"),
        _plain("is_fraud", "boolean"),
        ViewColumn("day", "CAST(timezone('UTC', decided_at) AS DATE)", "date of the verdict", "event_hour"),
    ),
)
_BATCHES = CuratedView(
    "batches",
    "one row per micro-batch",
    (
        ViewColumn("closed_at", "timezone('UTC', closed_at)", "timestamp in UTC"),
        *(
            _plain(name, "count")
            for name in ("read", "stored", "quarantined", "duplicates", "late", "alerts", "llm_calls")
        ),
    ),
)
_QUARANTINE = CuratedView(
    "quarantine",
    "one row per rejected record",
    (
        _plain("reason", "code of what is wrong"),
        ViewColumn("hour", "date_trunc('hour', timezone('UTC', kafka_timestamp))", "its hour", "event_hour"),
    ),
)
