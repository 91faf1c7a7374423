"""What became of a commit whose answer was lost: its entry may stand in the log although the call failed.

Every commit carries a random mark. After a fault the log is read anew: where an entry since carries the mark,
the commit has landed, and nobody writes its rows once more.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from streaming.delta.stored import newest_version

MARK_KEY = "flagstream.commit"
_MARK_BYTES = 12


def new_mark() -> str:
    """Return a mark that no other commit has."""
    return secrets.token_hex(_MARK_BYTES)


def has_landed(path: Path, after: int, mark: str) -> bool:
    """Return whether a commit later than version `after` carries the mark; False where nobody can tell."""
    try:
        table = newest_version(path)
        since = table.version() - after
        return since > 0 and any(entry.get(MARK_KEY) == mark for entry in table.history(since))
    except Exception:  # what kept the answer keeps the log, too: the first fault is the one to report
        return False
