"""The number of a lake's format: code refuses a lake that later code has written in a form it does not know.

It is a property of each table, set when the table is created. A table without one is of format 1.
"""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable

from schemas.errors import ConfigurationError

FORMAT = 1
FORMAT_KEY = "flagstream.format"


def check_format(path: Path, table: DeltaTable) -> None:
    """Check that this code knows the format of a table.

    Raises:
        ConfigurationError: it is of a later one.
    """
    noted = table.metadata().configuration.get(FORMAT_KEY, "1")
    if not noted.isdecimal() or int(noted) > FORMAT:
        raise ConfigurationError(
            f"a lake of format {noted}, this flagstream reads up to {FORMAT}: "
            "install a version of flagstream at least as new as the one that wrote it",
            where=str(path),
        )
