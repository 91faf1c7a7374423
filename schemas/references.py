"""Tables that events are joined to: what is known of a merchant or a card elsewhere, and exchange rates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.event_fields import ColumnType
from schemas.loading import Document

Name = Annotated[str, Field(min_length=1)]
RATE = "rate"


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


class ExchangeRates(Document):
    """Exchange rates, by which amounts are converted to one currency: a Delta table, Parquet or CSV.

    The amount in that currency becomes the column `reference_amount` of `transactions`. What is paid in it
    needs no rate; an amount without a rate is null there.

    Attributes:
        path: of the table's folder or file; relative ones start at the spec's folder.
        to: the currency that amounts are converted to, as events name it.
        currency: column of the table with the other currency, as events name it.
        rate: column with what one unit of that currency is worth in `to`.
        inverse: the column says how many units of that currency one unit of `to` is worth, as the ECB does.
        since: column with the time from which a rate holds; an event sees the newest one that held at its
            own time. Without it a currency has one rate, the last of the table.
    """

    path: Name
    to: Annotated[str, Field(min_length=1, max_length=16)]
    currency: Name = "currency"
    rate: Name = "rate"
    inverse: bool = False
    since: Name | None = "valid_from"

    @property
    def table(self) -> ReferenceTable:
        """The rates as any reference table."""
        taken = {RATE: ReferenceColumn(field=self.rate, type="float")}
        return ReferenceTable(path=self.path, on={"currency": self.currency}, since=self.since, columns=taken)
