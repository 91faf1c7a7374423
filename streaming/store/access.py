"""How one place of a store is reached where that differs from what the environment says of all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Access:
    """Settings of a store's client that come before the environment's, credentials included.

    Attributes:
        variables: in the names of the client's own variables, such as AWS_ACCESS_KEY_ID.
    """

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def with_prefix(cls, prefix: str, environ: Mapping[str, str]) -> Access:
        """Return what the environment says under names that begin with a prefix."""
        given = {name: value for name, value in environ.items() if name.startswith(prefix) and value}
        return cls({name.removeprefix(prefix): value for name, value in given.items()})
