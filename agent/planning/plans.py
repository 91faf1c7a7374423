"""Plans: steps in order, whose parameters may refer to the results of earlier steps.

A parameter `$s1.rows.0.terminal` stands for that value of the result of step `s1`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import Field, ValidationError, field_validator

from agent.planning.catalogue import CATALOGUE, ActionKind, Parameters, notes, parameters_schema
from agent.planning.refusals import parsed_answer, refused
from schemas.documents import named_file, parse_json, read_text
from schemas.errors import nearest
from schemas.loading import Document, parse_document
from schemas.policy import ActionLimits, JobLimits, NotifyLimits, Policy, RowLimits

_REFERENCE = re.compile(r"\$([a-z][a-z0-9_]*)((?:\.[A-Za-z0-9_]+)+)")
_MOST_STEPS_WRITTEN = 100
_DEEPEST_PARAMETERS = 4
_STEP_ID = r"^[a-z][a-z0-9_]{0,19}$"


class Step(Document):
    """One action of a plan, as planned: parameters may hold references."""

    id: str = Field(pattern=_STEP_ID)
    action: str = Field(max_length=40)
    parameters: Mapping[str, Any] = {}

    @field_validator("parameters")
    @classmethod
    def _readable(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if not _within(_DEEPEST_PARAMETERS, value):
            raise ValueError("nested too deeply")
        return value


class Plan(Document):
    """What is to be done, in order."""

    steps: tuple[Step, ...] = Field(min_length=1, max_length=_MOST_STEPS_WRITTEN)

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the whole plan."""
        content = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Reference:
    """A value of an earlier result: `path` leads to it, outermost key first."""

    step: str
    path: tuple[str, ...]


def _within(levels: int, value: Any) -> bool:
    """Return whether lists and objects stand in one another at most `levels` deep."""
    inner = list(value.values()) if isinstance(value, Mapping) else value
    return not isinstance(inner, list | tuple) or (
        levels > 0 and all(_within(levels - 1, each) for each in inner)
    )


def load_plan(path: Path) -> Plan:
    """Read a plan that a person wrote.

    Raises:
        ConfigurationError: no such file, not JSON, or not a plan.
    """
    text = read_text(named_file(path, "plan"))
    return parse_document(parse_json(text, where=str(path)), Plan, where=str(path))


def parsed_plan(text: str) -> Plan:
    """Read a plan that a model wrote.

    Raises:
        Refused: it is no plan.
    """
    return parsed_answer(text, Plan, "plan.format")


def allowed_kinds(policy: Policy) -> list[ActionKind]:
    """Return the actions that a policy allows."""
    return [kind for kind in CATALOGUE.values() if policy.actions.limits(kind.name) is not None]


def plan_schema(policy: Policy, entities: Sequence[str], most_steps: int) -> dict[str, Any]:
    """Return the JSON Schema of a plan of the actions that a policy allows, about the contract's entities."""
    steps = {"type": "array", "minItems": 1, "maxItems": max(most_steps, 1)}
    kinds = [_step_schema(kind, policy, entities) for kind in allowed_kinds(policy)]
    return _object({"steps": {**steps, "items": {"anyOf": kinds}}})


def catalogue_notes(policy: Policy) -> str:
    """Return the prompt's lines on the actions that a policy allows."""
    return "\n".join(f"- {notes(kind)}" for kind in allowed_kinds(policy))


def _step_schema(kind: ActionKind, policy: Policy, entities: Sequence[str]) -> dict[str, Any]:
    parameters = parameters_schema(kind)
    known = _known_values(policy.actions.limits(kind.name), entities)
    properties = {name: known.get(name, each) for name, each in parameters["properties"].items()}
    return _object(
        {
            "id": {"type": "string", "pattern": "^s[1-9]$"},
            "action": {"type": "string", "enum": [kind.name]},
            "parameters": {**parameters, "properties": properties},
        }
    )


def _known_values(limits: ActionLimits | None, entities: Sequence[str]) -> dict[str, Any]:
    """Return the schemas of parameters whose values the contract or the policy lists."""
    known: dict[str, Any] = {"entity": {"type": "string", "enum": list(entities)}}
    if isinstance(limits, RowLimits):
        known["limit"] = {"type": "integer", "minimum": 1, "maximum": limits.rows}
    if isinstance(limits, JobLimits) and limits.notebooks:
        known["notebook"] = {"type": "string", "enum": list(limits.notebooks)}
    if isinstance(limits, NotifyLimits) and limits.targets:
        known["target"] = {"type": "string", "enum": list(limits.targets)}
    return known


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def reference_in(value: object) -> Reference | None:
    """Return the reference that a parameter is, None for a plain value."""
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else Reference(found[1], tuple(found[2][1:].split(".")))


def references(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Reference]]:
    """Yield every reference in a step's parameters with the name of the parameter that holds it."""
    for name, value in parameters.items():
        yield from ((name, found) for found in _references_in(value))


def _references_in(value: Any) -> Iterator[Reference]:
    found = reference_in(value)
    if found is not None:
        yield found
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _references_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _references_in(each)


def resolved(value: Any, look_up: Callable[[Reference], str]) -> Any:
    """Return parameters with every reference replaced by what `look_up` says."""
    found = reference_in(value)
    if found is not None:
        return look_up(found)
    if isinstance(value, Mapping):
        return {name: resolved(each, look_up) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(each, look_up) for each in value]
    return value


def parsed_parameters(step: Step) -> Parameters:
    """Read a step's parameters.

    Raises:
        Refused: no such action, or parameters that it does not take.
    """
    kind = CATALOGUE.get(step.action)
    if kind is None:
        raise refused(f"actions.{step.action}", f"no such action; {nearest(step.action, CATALOGUE)}", step.id)
    given = {name: value for name, value in step.parameters.items() if value is not None}
    try:
        return kind.parameters.model_validate(given)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise refused(f"plan.parameters.{where}", first["msg"], step.id) from None
