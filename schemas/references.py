"""What a contract says of reference tables: what is known of a merchant, a customer or a card elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.event_fields import ColumnType
from schemas.loading import Document

Name = Annotated[str, Field(min_length=1)]


class ReferenceColumn(Document):
    """A column taken over from a reference table; null where it holds nothing usable.

    Text is cut after `max_length` characters.
    """

    field: Name
    type: ColumnType = "string"
    max_length: int = Field(default=1_000, ge=1)


class ReferenceTable(Document):
    """A table joined to each event: a Delta table, Parquet or CSV.

    Attributes:
        path: of the table's folder or file.
        on: column of the contract → column of the table. Both are compared as text, and all have to agree.
        since: column of the table with the time from which a row holds; an event sees the newest row that
            held at its own time. Without it a key has one row, the last of the table.
        columns: what the transactions take over, by the name of their column.
    """

    path: Name
    on: dict[Name, Name] = Field(min_length=1)
    since: str | None = None
    columns: dict[str, ReferenceColumn] = Field(min_length=1)
