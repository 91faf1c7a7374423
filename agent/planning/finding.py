"""Findings: claims in writing, each citing values of results; what cites what is not there is no finding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from agent.planning.catalogue import Line, Word
from agent.planning.plain_sentences import sentence
from agent.planning.plans import Step
from agent.planning.refusals import parsed_answer
from agent.triage.pseudonyms import TokenBook
from agent.triage.rule_classifier import clip
from schemas.loading import Document

Evidence = Mapping[str, str | int | float | bool | None]

MOST_EVIDENCE = 150
FORMAT_RULE = "finding.format"
BY_RULES = "rules"
_MOST_CLAIMS = 8
_MOST_CITATIONS = 12
_TEXT_CHARACTERS = 500
_ROW = re.compile(r"rows\.\d+\.")
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)*(?![\w])")


class Claim(Document):
    """One sentence and the paths of the values it rests on, such as `s1.rows.0.n`."""

    text: Line
    evidence: tuple[str, ...] = Field(min_length=1, max_length=_MOST_CITATIONS)


class Draft(Document):
    """A finding as it was written, before its citations are checked."""

    title: Word
    claims: tuple[Claim, ...] = Field(min_length=1, max_length=100)


@dataclass(frozen=True)
class Finding:
    """A finding and what it cites.

    Attributes:
        cited: path → value as the result has it.
        written_by: name of the model, or `rules`.
        problems: what it cites or states that is not there; none in a valid finding.
    """

    title: str
    claims: tuple[Claim, ...]
    cited: Evidence
    written_by: str = BY_RULES
    problems: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether everything it cites is there."""
        return not self.problems

    def plain(self) -> dict[str, Any]:
        """Return it JSON-serialisable."""
        return {
            "title": self.title,
            "valid": self.valid,
            "written_by": self.written_by,
            "problems": list(self.problems),
            "claims": [
                {"text": claim.text, "evidence": {path: self.cited.get(path) for path in claim.evidence}}
                for claim in self.claims
            ],
        }


def parsed_draft(text: str) -> Draft:
    """Read what a model wrote.

    Raises:
        Refused: it is no finding.
    """
    return parsed_answer(text, Draft, FORMAT_RULE)


def checked(draft: Draft, evidence: Evidence, goal: str, written_by: str) -> Finding:
    """Check a draft against the results.

    Every path that is cited must be there, and every number in a claim must be among the values it cites,
    rounded at most, or in the goal.
    """
    problems = tuple(problem for claim in draft.claims for problem in _problems(claim, evidence, goal))
    cited = {path: evidence[path] for claim in draft.claims for path in claim.evidence if path in evidence}
    return Finding(draft.title, draft.claims, cited, written_by, problems)


def plain_finding(title: str, evidence: Evidence, steps: Sequence[Step] = ()) -> Finding:
    """Write a finding without a model: a sentence about the facts of each result, and one about each row.

    Args:
        title: what it is about.
        evidence: what may be cited; of many rows the first ones are.
        steps: what the results were found by.
    """
    by_id = {step.id: step for step in steps}
    claims: Counter[str] = Counter()
    plain = list[Claim]()
    for step, paths in _results(evidence):
        claims[step] += 1
        if claims[step] <= _MOST_CLAIMS:
            plain.append(_plain_claim(by_id.get(step), paths, evidence))
    return Finding(title, tuple(plain), {path: evidence[path] for claim in plain for path in claim.evidence})


def restored(finding: Finding, tokens: TokenBook) -> Finding:
    """Return a finding for people: what tokens stand for instead of the tokens."""
    claims = tuple(claim.model_copy(update={"text": tokens.readable(claim.text)}) for claim in finding.claims)
    return replace(
        finding, title=tokens.readable(finding.title), claims=claims, cited=tokens.exact(finding.cited)
    )


def finding_schema(evidence: Evidence) -> dict[str, Any]:
    """Return the JSON Schema of a draft that can cite nothing but what is there."""
    claim = {
        "text": {"type": "string", "pattern": "^[ !#-\\[\\]-~]{1,160}$"},
        "evidence": {
            "type": "array",
            "minItems": 1,
            "maxItems": _MOST_CITATIONS,
            "items": {"type": "string", "enum": list(evidence)},
        },
    }
    claims = {"type": "array", "minItems": 1, "maxItems": _MOST_CLAIMS, "items": _object(claim)}
    return _object({"title": {"type": "string", "pattern": "^[ !#-\\[\\]-~]{1,80}$"}, "claims": claims})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _problems(claim: Claim, evidence: Evidence, goal: str) -> Iterator[str]:
    missing = [path for path in claim.evidence if path not in evidence]
    for path in missing:
        yield f"cites {path}, which no result holds"
    values = [evidence[path] for path in claim.evidence if path in evidence]
    if not missing:
        for number in _NUMBER.findall(claim.text):
            if not _supported(number, values, goal):
                yield f"states {number}, which is not among the values it cites"


def _supported(number: str, values: Sequence[Any], goal: str) -> bool:
    texts = [goal, *(value for value in values if isinstance(value, str))]
    return any(_holds(text, number) for text in texts) or any(_rounds_to(value, number) for value in values)


def _holds(text: str, number: str) -> bool:
    """Return whether a number stands in a text, by itself or as a part of a date, a time or an id."""
    return number in _NUMBER.findall(text) or number in _DIGITS.findall(text)


def _rounds_to(value: Any, number: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    plain = number.replace(",", "")
    decimals = len(plain.partition(".")[2])
    try:
        return f"{value:.{decimals}f}" == f"{float(plain):.{decimals}f}"
    except ValueError:
        return False


def _results(evidence: Evidence) -> Iterator[tuple[str, list[str]]]:
    """Yield the step and the paths of each result's facts, and of each of its rows."""
    parts: dict[tuple[str, str], list[str]] = {}
    for path in evidence:
        step, _, rest = path.partition(".")
        row = _ROW.match(rest)
        parts.setdefault((step, row[0] if row else ""), []).append(path)
    for (step, _), paths in parts.items():
        for first in range(0, len(paths), _MOST_CITATIONS):
            yield step, paths[first : first + _MOST_CITATIONS]


def _plain_claim(step: Step | None, paths: Sequence[str], evidence: Evidence) -> Claim:
    values = {_ROW.sub("", path.partition(".")[2]): evidence[path] for path in paths}
    action, entity = ("", "") if step is None else (step.action, str(step.parameters.get("entity", "")))
    return Claim(text=clip(sentence(action, values, entity), _TEXT_CHARACTERS), evidence=tuple(paths))
