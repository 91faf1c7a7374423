"""What became of a commit whose answer was lost: its entry may stand in the log although the call failed.

Every commit carries a random mark. After a fault the log is read anew: where an entry since carries the mark,
the commit has landed, and nobody writes its rows once more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from deltalake import DeltaTable

from schemas.errors import RetryableError

MARK_KEY = "flagstream.commit"
_MARK_BYTES = 12
_PAUSE_SECONDS = 0.5


class RefusedError(RetryableError):
    """A commit was certainly not made: another one came in between."""


def new_mark() -> str:
    """Return a mark that no other commit has."""
    return secrets.token_hex(_MARK_BYTES)


def has_landed(newest: Callable[[], DeltaTable], after: int, mark: str, attempts: int = 1) -> bool | None:
    """Return whether a commit later than version `after` carries the mark; None where nobody can tell.

    Args:
        newest: opens the table as it is now.
        after: the version that the commit's writer had seen.
        mark: of the commit.
        attempts: how many times to try to read the log.
    """
    for attempt in range(attempts):
        time.sleep(_PAUSE_SECONDS if attempt else 0.0)
        with suppress(Exception):  # what kept the answer may keep the log, too: the first fault counts
            table = newest()
            since = table.version() - after
            return since > 0 and any(entry.get(MARK_KEY) == mark for entry in table.history(since))
    return None
