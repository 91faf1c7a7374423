"""A file of a case, checked against itself and against the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from schemas.errors import ConfigurationError
from streaming.cases.actions import NoSuchCaseError
from streaming.cases.case_file import FORMAT, NUMBERS, PARTS, CaseReader, CaseRows, digest_of, written

State = Literal["same", "changed in the file", "differs from the lake"]


@dataclass(frozen=True)
class PartCheck:
    """What a check of one part has found.

    Attributes:
        items: how many the file has.
        gone: how many of them the lake does not have as they stand in the file.
        further: how many the lake has up to there that the file does not.
        later: how many it has that lie beyond what the file says it was read up to.
    """

    part: str
    state: State
    items: int
    gone: int = 0
    further: int = 0
    later: int = 0


def check_case_file(document: Mapping[str, Any], reader: CaseReader) -> list[PartCheck]:
    """Check a file against itself and against the lake.

    Args:
        document: as it was read; see CaseReader.document.

    Raises:
        ConfigurationError: it is no file of a case of this agent.
    """
    upto = _checked(document, reader.agent)
    head = {name: document[name] for name in ("format", "agent", "case_id", "upto", "digests")}
    if digest_of(head) != document["digest"]:
        return [PartCheck(name, "changed in the file", len(document[name])) for name in PARTS]
    rows = reader.read(document["case_id"])
    lake, now = (_parts(rows, numbers) for numbers in (upto, reader.ends()))
    return [
        replace(_compared(name, document, lake[name]), later=len(_texts(now[name]) - _texts(lake[name])))
        for name in PARTS
    ]


def _parts(rows: CaseRows, upto: Mapping[str, int]) -> dict[str, list[Any]]:
    try:
        return rows.parts(upto)
    except NoSuchCaseError:
        return {name: [] for name in PARTS}


def _texts(items: Sequence[Any]) -> set[str]:
    return {written(each) for each in items}


def _checked(document: Mapping[str, Any], agent: str) -> dict[str, int]:
    lists = all(isinstance(document.get(name), list) for name in PARTS)
    upto, digests = document.get("upto"), document.get("digests")
    numbers = isinstance(upto, dict) and all(isinstance(upto.get(name), int) for name in NUMBERS)
    named = isinstance(digests, dict) and set(digests) == set(PARTS)
    texts = isinstance(document.get("case_id"), str) and isinstance(document.get("digest"), str)
    if document.get("format") != FORMAT or not (lists and numbers and named and texts):
        raise ConfigurationError(f"expected a file of the format {FORMAT!r}, as `case export` writes it")
    if document.get("agent") != agent:
        raise ConfigurationError(f"the case is one of another agent than {agent}")
    return cast("dict[str, int]", upto)


def _compared(name: str, document: Mapping[str, Any], lake: Sequence[Any]) -> PartCheck:
    items = document[name]
    if digest_of(items) != document["digests"][name]:
        return PartCheck(name, "changed in the file", len(items))
    if digest_of(lake) == document["digests"][name]:
        return PartCheck(name, "same", len(items))
    given, held = _texts(items), _texts(lake)
    return PartCheck(name, "differs from the lake", len(items), len(given - held), len(held - given))
