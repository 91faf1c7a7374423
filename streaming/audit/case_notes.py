"""What the audit log says of the cases that something was done to: every one by its id, however many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.audit.events import MOST_CASES


def notes_of(case_ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield what each row of the log says of one action's cases, with how many of them it names.

    One case stands as `case`. Of several, each row has some (`cases`), and how many there are in all with a
    digest: the SHA-256 of all names in order, a line each. So an auditor sees whether a row is missing.
    """
    named = [f"case-{each}" for each in case_ids]
    if len(named) == 1:
        yield {"rows": 1, "case": named[0]}
        return
    whole = {"cases_in_all": len(named), "cases_digest": _digest(named)}
    for first in range(0, len(named), MOST_CASES):
        some = named[first : first + MOST_CASES]
        yield {"rows": len(some), "cases": some, **whole}


def _digest(named: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{each}\n" for each in sorted(named)).encode()).hexdigest()
