"""The answer to a request about several groups: the JSON Schema it must have, and what of it is accepted.

An answer is one JSON object with a classification under each group's id. A classification cites what it
relies on as `feature=value`; one that cites anything the request did not contain is not accepted. Each
classification is accepted or refused by itself. Upper case and keys that nobody asked for do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from agent.triage.disclosure import cited
from agent.triage.untrusted_text import cleaned
from schemas.alert import CATEGORIES, Category, FallbackReason
from schemas.rules import SEVERITIES, Severity

RATIONALE_CHARACTERS = 80
MOST_CITATIONS = 3
_KEYS = ("evidence", "classification", "severity", "rationale")


@dataclass(frozen=True, slots=True)
class Answer:
    """An accepted classification on one group."""

    classification: Category
    severity: Severity
    rationale: str
    evidence: tuple[str, ...]


def answer_schema(citable: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the JSON Schema of the answer to one request, `citable` being request id → what it may cite.

    Every id must come back, once. What may be cited is spelled out, so that a small model that decodes under
    the schema cannot invent evidence. The rationale is bounded by a pattern: OpenAI's strict mode documents
    `pattern`, not `maxLength`, and llama.cpp decodes under it as well. Quotes and backslashes are left out of
    it, so no escape is cut in half.
    """
    return _object({request_id: _classification_schema(values) for request_id, values in citable.items()})


def fixed_schema(request_ids: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema of the answer to any request of these ids, so that servers can keep it compiled.

    What is cited is a text like any other to it: `answers_of` alone checks that.
    """
    return _object(dict.fromkeys(request_ids, _classification_schema(None)))


def _classification_schema(citable: Sequence[str] | None) -> dict[str, Any]:
    most = MOST_CITATIONS if citable is None else min(MOST_CITATIONS, len(citable))
    cited = {"type": "string"} if citable is None else {"type": "string", "enum": list(citable)}
    return _object(
        {
            "evidence": {"type": "array", "minItems": 1, "maxItems": most, "items": cited},
            "classification": {"type": "string", "enum": list(CATEGORIES)},
            "severity": {"type": "string", "enum": list(SEVERITIES)},
            "rationale": {"type": "string", "pattern": f"^[ !#-\\[\\]-~]{{1,{RATIONALE_CHARACTERS}}}$"},
        }
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def answers_of(text: str, citable: Mapping[str, Sequence[str]]) -> dict[str, Answer | FallbackReason]:
    """Read the answer to a request: for each id its classification, or why there is none.

    Args:
        text: as the model wrote it.
        citable: request id → what it may cite, as for answer_schema. What stands under other ids is ignored.
    """
    content = _parsed(text)
    if content is None:
        return dict.fromkeys(citable, "invalid_json")
    return {
        request_id: _accepted(content[request_id], values) if request_id in content else "wrong_id"
        for request_id, values in citable.items()
    }


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a repeated key: of two classifications under one id either may be meant."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is repeated")
    return content


def _accepted(content: object, citable: Sequence[str]) -> Answer | FallbackReason:
    if not isinstance(content, dict) or not content.keys() >= set(_KEYS):
        return "invalid_json"
    evidence, *words = (content[key] for key in _KEYS)
    if not (_are_texts(words) and cleaned(content["rationale"])):
        return "invalid_json"
    if not (isinstance(evidence, list) and _are_texts(evidence) and len(evidence) <= MOST_CITATIONS):
        return "invalid_json"
    classification, severity = (content[key].strip().casefold() for key in ("classification", "severity"))
    if classification not in CATEGORIES or severity not in SEVERITIES:
        return "wrong_enum"
    citations = [cited(citable, each) for each in evidence]
    if not citations or None in citations:
        return "evidence_mismatch"
    return Answer(
        classification=cast("Category", classification),
        severity=cast("Severity", severity),
        rationale=_in_words(cleaned(content["rationale"], RATIONALE_CHARACTERS)),
        evidence=tuple(dict.fromkeys(each for each in citations if each is not None)),
    )


def _in_words(rationale: str) -> str:
    """Return a rationale, nothing for one without a letter: a small model may give a number alone."""
    return rationale if any(character.isalpha() for character in rationale) else ""


def _are_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)
