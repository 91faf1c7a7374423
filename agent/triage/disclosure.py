"""What a model learns about a group: what the policy allows, under pseudonyms, bounded, and nothing else.

It holds neither batch ids nor wall-clock: the same rows make the same words on a retry, and the ledger finds
their answer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from agent.triage.grouping import FlaggedRow, Group, Texts, top_reasons
from agent.triage.pseudonyms import Pseudonyms, is_identifying
from agent.triage.rule_classifier import clip, highest
from agent.triage.untrusted_text import TEXT_CHARACTERS, cleaned
from schemas.policy import ENTITIES, Policy

_WORD_CHARACTERS = 40
_AMOUNT_DIGITS = 5


@dataclass(frozen=True)
class Disclosed:
    """What a model learns about one group.

    Attributes:
        facts: as written into the request.
        citable: the values that an answer may cite as evidence, as `feature=value`; no text of outsiders.
        originals: pseudonym → what it stands for.
    """

    facts: Mapping[str, Any]
    citable: tuple[str, ...]
    originals: Mapping[str, str]


class Disclosure:
    """Decides what a model learns about groups.

    Args:
        policy: which fields may leave.
        pseudonyms: stand for what identifies somebody.
    """

    def __init__(self, policy: Policy, pseudonyms: Pseudonyms) -> None:
        self._policy, self._pseudonyms = policy, pseudonyms

    def texts_of(self, row: FlaggedRow) -> Texts:
        """Return the texts of outsiders that would be sent about a row, as they would be sent."""
        return tuple(self._texts(row, {}).items())

    def disclose(self, group: Group) -> Disclosed:
        """Return what may be disclosed about `group`.

        Reasons and explanations are those of the highest score; the label is the one the rules would give it.
        """
        originals: dict[str, str] = {}
        first, allows = group.exemplars[0], self._policy.allows
        shared = {
            "reasons": {_word(reason.name): round(reason.contribution, 1) for reason in top_reasons(first)},
            # They name the currency, which must be none that an outsider has made up.
            "explanations": [cleaned(each.text) for each in top_reasons(first) if group.pattern.currency],
            "rules": [_word(name) for name in group.pattern.rules],
            "currency": group.pattern.currency,
        }
        facts = {
            "alerts": len(group.members),
            "label": first.by_rules.category,
            "severity": highest(row.by_rules.severity for row in group.exemplars),
            **{name: value for name, value in shared.items() if value and allows(name)},
            "examples": [self._example(row, originals) for row in group.exemplars],
        }
        return Disclosed(facts, tuple(dict.fromkeys(citations(facts))), originals)

    def _example(self, row: FlaggedRow, originals: dict[str, str]) -> dict[str, Any]:
        values = {
            "amount": _rounded(row.amount),
            "score": round(row.score, 5),
            "event_time": row.event_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        allowed: dict[str, Any] = {name: value for name, value in values.items() if self._policy.allows(name)}
        named = {"entities": self._entities(row, originals), "texts": self._texts(row, originals)}
        return {**allowed, **{name: found for name, found in named.items() if found}}

    def _entities(self, row: FlaggedRow, originals: dict[str, str]) -> dict[str, str]:
        return {
            name: self._pseudonyms.token(name, value, originals)
            for name, value in row.entities.items()
            if self._policy.allows(ENTITIES + name) and self._policy.as_token(ENTITIES + name)
        }

    def _texts(self, row: FlaggedRow, originals: dict[str, str]) -> dict[str, str]:
        """Return what outsiders have written: free texts, and ids that leave as they are."""
        return self._raw_ids(row) | self._free_texts(row, originals)

    def _raw_ids(self, row: FlaggedRow) -> dict[str, str]:
        return {
            name: cleaned(value, _WORD_CHARACTERS)
            for name, value in row.entities.items()
            if self._policy.allows(ENTITIES + name) and not self._policy.as_token(ENTITIES + name)
        }

    def _free_texts(self, row: FlaggedRow, originals: dict[str, str]) -> dict[str, str]:
        allowed = {
            name: text for name, text in sorted(row.untrusted.items()) if self._policy.allows(f"texts.{name}")
        }
        if not allowed:
            return {}
        identifiers = _identifiers(row)
        texts = {
            name: clip(self._pseudonyms.text(name, text, identifiers, originals), TEXT_CHARACTERS)
            for name, text in allowed.items()
        }
        return {name: text for name, text in texts.items() if text}


def _identifiers(row: FlaggedRow) -> dict[str, str]:
    """Return what identifies somebody in a row, value → kind: names first, then ids of entities."""
    names = {text: name for name, text in row.untrusted.items() if is_identifying(name)}
    return names | {value: name for name, value in row.entities.items()}


def citations(facts: Mapping[str, Any]) -> Iterable[str]:
    """Yield what an answer may cite of what is disclosed about a group, as `feature=value`."""
    yield f"alerts={facts['alerts']}"
    yield from (f"{name}={value}" for name, value in facts.get("reasons", {}).items())
    yield from (f"rule={name}" for name in facts.get("rules", ()))
    if "currency" in facts:
        yield f"currency={facts['currency']}"
    for example in facts["examples"]:
        plain = {name: value for name, value in example.items() if name not in ("entities", "texts")}
        yield from (f"{name}={value}" for name, value in (plain | example.get("entities", {})).items())


def cited(citable: Sequence[str], citation: str) -> str | None:
    """Return what `citation`, a `feature=value`, cites as the request had it, None when it was not there.

    Numbers may be written otherwise, at any length: so the text of the request is kept, not the answer's.
    """
    feature, _, value = citation.partition("=")
    for known in citable:
        name, _, shown = known.partition("=")
        if name == feature.strip() and _same(shown, value.strip()):
            return known
    return None


def _same(shown: str, said: str) -> bool:
    if shown == said:
        return True
    try:
        return float(shown) == float(said)
    except ValueError:
        return False


def _rounded(amount: float) -> float:
    """Return a finite amount to a few digits; the largest ones cannot be rounded up."""
    rounded = float(f"{amount:.{_AMOUNT_DIGITS}g}")
    return rounded if math.isfinite(rounded) else amount


def _word(text: str) -> str:
    return cleaned(text, _WORD_CHARACTERS)


def canonical_json(facts: Mapping[str, Any]) -> str:
    """Write facts as JSON that no text in them can leave: angle brackets escaped, so no delimiter fits."""
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def content_key(prompt_id: str, prompt_version: int, model: str, canonical_input: str) -> str:
    """Return the SHA-256, hex, under which a group's answer is kept."""
    content = "\n".join((prompt_id, str(prompt_version), json.dumps(model), canonical_input))
    return hashlib.sha256(content.encode()).hexdigest()
