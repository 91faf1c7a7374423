"""Which topics a stream reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.errors import ConfigurationError

# What Java's and Python's regular expressions read alike, over the characters that names of topics have.
_COMMON = re.compile(
    r"(?:[A-Za-z0-9_.,*+?|()^$-]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\}|\\[.dwDW-]|\[\^?(?:[A-Za-z0-9_.-]|\\[.dw-])+\])+"
)


@dataclass(frozen=True)
class Subscription:
    """Topics by their names, or all whose whole names match a pattern, but for Kafka's own (`__…`).

    Attributes:
        names: in the order in which they were named; empty for a pattern.
        pattern: None for names.
    """

    names: tuple[str, ...] = ()
    pattern: str | None = None

    @property
    def is_one(self) -> bool:
        """Whether all records come from one topic."""
        return len(self.names) == 1

    @property
    def first(self) -> str:
        """The only topic, or the first that is named.

        Raises:
            ConfigurationError: it is a pattern.
        """
        if not self.names:
            raise ConfigurationError(
                "a pattern names no topic", key="data_sources.transactions.topic_pattern"
            )
        return self.names[0]

    @property
    def expression(self) -> str:
        """The pattern as Java and Python read it, whether they match the whole name or look within."""
        return rf"^(?!__)(?:{self.pattern})$"

    def includes(self, topic: str) -> bool:
        """Say whether a topic is read."""
        return topic in self.names if self.pattern is None else re.match(self.expression, topic) is not None

    def among(self, topics: Iterable[str]) -> list[str]:
        """Return those of some topics that are read, sorted."""
        return sorted(filter(self.includes, topics))

    def __str__(self) -> str:
        """Return it in words."""
        return ", ".join(self.names) if self.pattern is None else f"topics that match {self.pattern!r}"


def check_pattern(pattern: str) -> str:
    """Return a pattern that means the same to every client.

    Raises:
        ValueError: it is no regular expression, or uses more than literals, `.`, `[…]`, `(…|…)`, `*`, `+`,
            `?`, `{…}` and backslashes before `.`, `-`, `d` and `w`.
    """
    if not _COMMON.fullmatch(pattern) or "(?" in pattern:
        raise ValueError(
            r"expected a regular expression for whole names of topics, such as 'payments\..*', of letters, "
            r"digits, . [ ] ( ) | * + ? { } and \."
        )
    try:
        re.compile(pattern)
    except re.error as fault:
        raise ValueError(f"no regular expression: {fault}") from None
    return pattern
