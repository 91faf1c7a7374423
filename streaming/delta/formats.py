"""The number of a lake's format: code refuses a lake that later code has written in a form it does not know.

It is a property of each table, set when the table is created. A table without one is of format 1.
"""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable

from schemas.documents import clipped
from schemas.errors import ConfigurationError
from streaming.store.place import Place

FORMAT = 1
FORMAT_KEY = "flagstream.format"
_SHOWN_CHARACTERS = 20


def check_format(place: Place | Path, table: DeltaTable) -> None:
    """Check that this code knows the format of a table.

    Raises:
        ConfigurationError: it is of a later one.
    """
    noted = table.metadata().configuration.get(FORMAT_KEY, "1")
    if not _is_known(noted):
        raise ConfigurationError(
            f"a lake of format {clipped(noted, _SHOWN_CHARACTERS)}, this flagstream reads up to {FORMAT}: "
            "install a version of flagstream at least as new as the one that wrote it",
            where=str(place),
        )


def _is_known(noted: str) -> bool:
    # Python reads no number of thousands of digits.
    return noted.isdecimal() and len(noted) <= _SHOWN_CHARACTERS and int(noted) <= FORMAT
