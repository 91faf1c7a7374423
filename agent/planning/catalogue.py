"""The declared actions: names, parameters and meanings.

The JSON Schema that a model's plan is decoded under, the notes in its prompt and the checks of a plan all
derive from the parameter models here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from schemas.loading import Document
from schemas.policy import CuratedTable

_IN_A_PLAN_OF_A_MODEL = 300


def _bounded(characters: int) -> WithJsonSchema:
    """Bound a text by a pattern, which constrained decoders honour; see agent.triage.answers."""
    most = min(characters, _IN_A_PLAN_OF_A_MODEL)
    return WithJsonSchema({"type": "string", "pattern": f"^[ !#-\\[\\]-~]{{1,{most}}}$"})


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Sql = Annotated[str, Field(min_length=1, max_length=4_000), _bounded(4_000)]
Word = Annotated[str, Field(min_length=1, max_length=200), _bounded(40)]
Line = Annotated[str, Field(min_length=1, max_length=500), _bounded(100)]
Moment = Annotated[
    datetime,
    AfterValidator(_in_utc),
    WithJsonSchema({"type": "string", "pattern": "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:00:00Z$"}),
]


class Parameters(Document):
    """What an action is given; a model reads the docstrings and descriptions."""


class QueryAggregates(Parameters):
    """Ask a question of the views in SQL."""

    sql: Sql = Field(description="one SELECT in DuckDB's dialect; ? for each of `values`")
    values: tuple[Word, ...] = Field(default=(), max_length=4, description="what the ? in `sql` stand for")


class EntityProfile(Parameters):
    """Say what is usual for an entity."""

    entity: Word = Field(description="kind of entity")
    id: Word = Field(description="its id")


class EntityHistory(Parameters):
    """List an entity's newest payments."""

    entity: Word = Field(description="kind of entity")
    id: Word = Field(description="its id")
    limit: int = Field(default=10, ge=1, le=10_000, description="most payments")


class SimilarAlerts(Parameters):
    """List the alerts most like one alert."""

    alert: Word = Field(description="alert id, its first six characters or more, or a transaction id")
    limit: int = Field(default=5, ge=1, le=10_000, description="most alerts")


class ReplayPreview(Parameters):
    """Say what another threshold, or another spec, would have alerted in a span; publishes nothing."""

    from_time: Moment = Field(description="event time in UTC, inclusive")
    to_time: Moment = Field(description="exclusive")
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="instead of the spec's"
    )
    candidate: Word | None = Field(default=None, description="path of another spec; or a threshold, not both")


class PostFinding(Parameters):
    """Write the finding from the results so far and keep it."""

    title: Word = Field(description="what it is about")


class JobParameter(Document):
    """One parameter of a notebook."""

    name: Word
    value: Word


class RunJob(Parameters):
    """Run a notebook on the workspace."""

    notebook: Word = Field(description="path of the notebook")
    parameters: tuple[JobParameter, ...] = Field(default=(), max_length=8)


class Notify(Parameters):
    """Tell somebody one line."""

    target: Word = Field(description="name of a target")
    message: Line = Field(description="what to tell")


@dataclass(frozen=True)
class ActionKind:
    """One declared action.

    Attributes:
        reads: tables of the lake that must be allowed, besides those that its parameters name.
        target: the one place it may change; None for an action that only reads.
        outgoing: whether its parameters leave the machine.
        referable: parameters that may be taken from earlier results.
    """

    name: str
    parameters: type[Parameters]
    reads: tuple[CuratedTable, ...] = ()
    target: str | None = None
    outgoing: bool = False
    referable: frozenset[str] = field(default_factory=frozenset)


CATALOGUE: Mapping[str, ActionKind] = {
    kind.name: kind
    for kind in (
        ActionKind("query_aggregates", QueryAggregates, referable=frozenset({"values"})),
        ActionKind("entity_profile", EntityProfile, ("transactions",), referable=frozenset({"id"})),
        ActionKind("entity_history", EntityHistory, ("transactions",), referable=frozenset({"id"})),
        ActionKind("similar_alerts", SimilarAlerts, ("alerts",), referable=frozenset({"alert"})),
        ActionKind(
            "replay_preview",
            ReplayPreview,
            ("transactions", "alerts", "labels", "batches"),
            "a folder of its own in the sandbox",
        ),
        ActionKind("post_finding", PostFinding, target="the tables of findings"),
        ActionKind("run_job", RunJob, (), "the workspace", True, frozenset({"parameters"})),
        ActionKind("notify", Notify, (), "the target named", True, frozenset({"message"})),
    )
}


def notes(kind: ActionKind) -> str:
    """Return the prompt's line on an action."""
    fields = kind.parameters.model_fields.items()
    described = [f"{name} ({each.description})" if each.description else name for name, each in fields]
    return f"{kind.name}: {kind.parameters.__doc__} Parameters: {', '.join(described)}"


def parameters_schema(kind: ActionKind) -> dict[str, Any]:
    """Return the JSON Schema of an action's parameters as strict decoders want it.

    Every key is required, nullable where it may be left out, and no other key is admitted.
    """
    schema = kind.parameters.model_json_schema()
    return _strict(schema, schema.get("$defs", {}))


_KEPT = frozenset({"type", "pattern", "minimum", "maximum", "minItems", "maxItems", "enum", "const"})


def _strict(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _strict(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    found = {name: value for name, value in schema.items() if name in _KEPT}
    for name in ("exclusiveMinimum", "exclusiveMaximum"):
        if name in schema:
            found[name.replace("exclusiveM", "m")] = schema[name]
    if "anyOf" in schema:
        found["anyOf"] = [_strict(each, definitions) for each in schema["anyOf"]]
    if "items" in schema:
        found["items"] = _strict(schema["items"], definitions)
    if "properties" in schema:
        properties = {name: _strict(each, definitions) for name, each in schema["properties"].items()}
        found |= {"properties": properties, "required": list(properties), "additionalProperties": False}
    return found
