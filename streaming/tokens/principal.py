"""Who asks: a name for the audit log, and what they may do with each agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streaming.tokens.bearer import Scope

OF_TOKEN = "token:"  # how the names of tokens begin where somebody is named


@dataclass(frozen=True)
class Principal:
    """Somebody whom the server knows.

    Attributes:
        name: as the audit log names them, such as `token:night-shift`.
        key: what their requests are counted under; of two tokens of one name each has its own.
        scopes: agent → what they may do with it; agents that are not there they may not see.
        per_minute: requests that they may make in a minute.
    """

    name: str
    key: str
    scopes: Mapping[str, frozenset[Scope]]
    per_minute: int

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents that they may see, by name."""
        return tuple(sorted(self.scopes))
