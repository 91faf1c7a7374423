"""What a run has read of files that somebody may break while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from schemas.errors import ConfigurationError

_Read = TypeVar("_Read")


class LastRead:
    """What was read last, by what it was read for; one for all attempts of a run.

    The first attempt refuses a file that cannot be used. A later one follows a fault that has passed, such as
    a broker that was away for a moment, and goes on by what was read before.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def note(self, key: Hashable, found: object) -> None:
        """Keep what was read, in place of what was read before it."""
        self._found[key] = found

    def or_before(
        self, key: Hashable, read: Callable[[], _Read], broken: Callable[[ConfigurationError], None]
    ) -> _Read:
        """Return what `read` returns, or what was kept before where it cannot be used.

        Args:
            broken: called with the fault where that is so.

        Raises:
            ConfigurationError: it cannot be used, and nothing was kept.
        """
        try:
            found = read()
        except ConfigurationError as fault:
            if key not in self._found:
                raise
            broken(fault)
            kept: _Read = self._found[key]
            return kept
        self.note(key, found)
        return found
