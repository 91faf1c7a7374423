"""Delta tables that several processes write side by side, beside those that one driver takes over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from schemas.errors import RetryableError
from streaming.delta.lake import LakeTable

Result = TypeVar("Result")


class SharedTable(LakeTable):
    """An append-only table that several processes write side by side.

    Nobody claims it. All commits carry the same application id at epoch 0, so Delta refuses a commit when any
    other came between the handle's version and its own: the loser looks again and tries again.

    Args:
        path: the table's folder; created with `schema` when absent.
        schema: Arrow schema; an existing table must have the same column names and types.
        retention: how long versions stay readable.

    Raises:
        ConfigurationError: the table exists with another schema.
    """

    def __init__(self, path: Path, schema: pa.Schema, retention: timedelta) -> None:
        super().__init__(path, schema, f"{path.name}/shared", retention, synced=True)

    def by_turns(self, attempt: Callable[[], Result]) -> Result:
        """Run `attempt`, which reads and then appends at most once, until no other commit came in between.

        Raises:
            RetryableError: the commit was refused although nobody else has written.
        """
        while True:
            self.keep_up()
            seen = self.version
            try:
                return attempt()
            except RetryableError:
                self._reopen()
                if self.version == seen:
                    raise

    def _follow(self) -> None:
        """Only between two turns: what an attempt has read must be what its commit goes on from."""
