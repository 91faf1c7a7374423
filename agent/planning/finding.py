"""Findings: claims in writing, each citing values of results; what cites what is not there is no finding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from agent.planning.catalogue import Line, Word
from agent.planning.refusals import parsed_answer
from agent.triage.pseudonyms import TokenBook
from schemas.loading import Document

Evidence = Mapping[str, str | int | float | bool | None]

MOST_EVIDENCE = 150
FORMAT_RULE = "finding.format"
BY_RULES = "rules"
_MOST_CLAIMS = 8
_MOST_CITATIONS = 12
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


def told_plainly(title: str, evidence: Evidence) -> Finding:
    """Write a finding without a model: the results of each step, as they are."""
    steps: dict[str, list[str]] = {}
    for path in evidence:
        steps.setdefault(path.partition(".")[0], []).append(path)
    claims = tuple(_plain_claim(step, paths[:_MOST_CITATIONS], evidence) for step, paths in steps.items())
    return Finding(title, claims, {path: evidence[path] for claim in claims for path in claim.evidence})


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
    """Tell whether a number stands in a text, by itself or as a part of a date, a time or an id."""
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


def _plain_claim(step: str, paths: Sequence[str], evidence: Evidence) -> Claim:
    told = ", ".join(f"{path.partition('.')[2]} {evidence[path]}" for path in paths)
    return Claim(text=f"{step}: {told}"[:500], evidence=tuple(paths))
