"""Delta tables that several processes write side by side, beside those that one driver takes over."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TypeVar

import pyarrow as pa

from streaming.delta.commits import RefusedError
from streaming.delta.lake_table import LakeTable
from streaming.store.place import Place

Result = TypeVar("Result")


class SharedTable(LakeTable):
    """An append-only table that several processes write side by side.

    Nobody claims it. All commits carry the same application id at epoch 0, so Delta refuses a commit when any
    other came between the handle's version and its own: the loser looks again and tries again.

    Args:
        place: where the table lies; created with `schema` when absent.
        schema: Arrow schema; an existing table must have the same column names and types.
        retention: how long versions stay readable.
        later: columns, nullable, that a table from before they came is given.

    Raises:
        ConfigurationError: the table exists with another schema.
    """

    # No number of a stream's settles what became of a commit here: its mark alone does.
    _read_attempts = 3

    def __init__(
        self, place: Place, schema: pa.Schema, retention: timedelta, later: Collection[str] = ()
    ) -> None:
        super().__init__(place, schema, f"{place.name}/shared", retention, later, synced=True)

    def by_turns(self, attempt: Callable[[], Result]) -> Result:
        """Run `attempt`, which reads and then appends at most once, until no other commit came in between.

        Only a commit that certainly was not made is tried again: one whose answer was lost may have landed.

        Raises:
            RetryableError: the disk or the store is away, or the commit was refused although nobody else has
                written.
        """
        while True:
            self.keep_up()
            seen = self.version
            try:
                return attempt()
            except RefusedError:
                self.refresh()
                if self.version == seen:
                    raise

    def _follow(self) -> None:
        """Only between two turns: what an attempt has read must be what its commit goes on from."""
