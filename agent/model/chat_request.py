"""The body of a request, with what the endpoint takes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent.model.model_client import Question
from agent.model.negotiation import SAMPLING, SentWith, ServerFeatures

_BOUNDS = frozenset({"pattern", "minItems", "maxItems", "minLength", "maxLength"})


def body_of(model: str, question: Question, tried: SentWith) -> dict[str, Any]:
    """Return the body: what stays the same from one question to the next stands first, for caches."""
    features = tried.features
    body: dict[str, Any] = {"model": model, "messages": _messages(question, features)}
    if features.form == "json_schema":
        body["response_format"] = {"type": "json_schema", "json_schema": _form(question.schema, features)}
    elif features.form == "json_object":
        body["response_format"] = {"type": "json_object"}
    body |= {name: value for name, value in SAMPLING.items() if name in features.sampling}
    return body if features.limit is None else {**body, features.limit: tried.output_tokens}


def schema_in_words(schema: Mapping[str, Any]) -> str:
    """Return what the prompt says of the answer where no schema binds it."""
    written = json.dumps(schema, separators=(",", ":"))
    return f"Answer with JSON alone, without any other words, valid under this JSON Schema:\n{written}"


def _form(schema: Mapping[str, Any], features: ServerFeatures) -> dict[str, Any]:
    bound = dict(schema) if features.bounds else _unbounded(schema)
    return {"name": "verdict", "strict": True, "schema": bound}


def _unbounded(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {name: _unbounded(value) for name, value in schema.items() if name not in _BOUNDS}
    return [_unbounded(each) for each in schema] if isinstance(schema, list) else schema


def _messages(question: Question, features: ServerFeatures) -> list[dict[str, str]]:
    system, user = question.messages.system, question.messages.user
    if features.form != "json_schema":
        system = f"{system}\n{schema_in_words(question.schema)}"
    if features.system_role:
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return [{"role": "user", "content": f"{system}\n\n{user}"}]
