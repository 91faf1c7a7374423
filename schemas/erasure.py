"""The tokens that stand for erased ids: random, so that nothing leads from one back to the id."""

from __future__ import annotations

import re
import secrets

_BYTES = 16
_TOKEN = re.compile(rf"erased-[0-9a-f]{{{2 * _BYTES}}}")


def new_token() -> str:
    """Return a token that no other id is."""
    return f"erased-{secrets.token_hex(_BYTES)}"


def is_token(text: str) -> bool:
    """Return whether a text is the token of an erased id."""
    return _TOKEN.fullmatch(text) is not None


def holds_token(text: str) -> bool:
    """Return whether a text holds the token of an erased id."""
    return _TOKEN.search(text) is not None
