"""Pages of the records that wait, those that came last first; a cursor names a place between two of them."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from schemas.errors import ConfigurationError
from streaming.quarantine.requests import PLACE

_NO_TIME = 2**62
_PARTS = 4


@dataclass(frozen=True)
class WaitingCursor:
    """The last record of a page; the next one begins behind it, whether it waits still or not.

    Attributes:
        arrived: in microseconds since 1970 UTC, `2**62` for one without a time.
    """

    arrived: int
    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> WaitingCursor:
        """Return what `text` means.

        Raises:
            ConfigurationError: it is no cursor.
        """
        parts = text.split(":", _PARTS - 1)
        if len(parts) != _PARTS or not all(each.isdecimal() and each.isascii() for each in parts[:3]):
            raise ConfigurationError("expected the `next` of a page", where="after")
        arrived, partition, offset = (min(int(each), _NO_TIME) for each in parts[:3])
        return cls(arrived, parts[3], partition, offset)

    def text(self) -> str:
        """Return it as a client keeps it."""
        return f"{self.arrived}:{self.partition}:{self.offset}:{self.topic}"


def in_page_order(waiting: pl.DataFrame) -> pl.DataFrame:
    """Return rows of `waiting`, those that came last first, with `at`, by which cursors tell them."""
    at = pl.col("arrived").dt.epoch("us").fill_null(_NO_TIME).alias("at")
    return waiting.with_columns(at).sort("at", *PLACE, descending=True)


def page_of(rows: pl.DataFrame, after: WaitingCursor | None, most: int) -> tuple[pl.DataFrame, str | None]:
    """Return the rows of a page, and the cursor of the next one, None where there is none.

    Args:
        rows: in the order of pages; no copy of them is made.
        after: where the page before has ended.
        most: rows of a page.
    """
    behind = rows.height if after is None else int(rows.select(_behind(after).sum()).item() or 0)
    page = rows.slice(rows.height - behind, most)
    if behind <= most or page.height == 0:
        return page.drop("at"), None
    last = page.row(-1, named=True)
    cursor = WaitingCursor(last["at"], last["topic"], last["partition"], last["offset"])
    return page.drop("at"), cursor.text()


def _behind(cursor: WaitingCursor) -> pl.Expr:
    """Say which rows come after a place, where all columns descend."""
    found = pl.lit(value=False)
    for name, value in (
        ("offset", cursor.offset), ("partition", cursor.partition), ("topic", cursor.topic),
        ("at", cursor.arrived),
    ):  # fmt: skip
        found = (pl.col(name) < value) | ((pl.col(name) == value) & found)
    return found
