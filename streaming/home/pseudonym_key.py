"""The key of the pseudonyms: one per home folder, made once, readable by its owner alone."""

from __future__ import annotations

import secrets
from pathlib import Path

from streaming.home.whole_files import create_file

_BYTES = 32


def pseudonym_key(home: Path) -> bytes:
    """Return the key of `home`, made when there is none; of two processes that make one, one prevails."""
    path = home / "pseudonyms.key"
    if not path.is_file():
        home.mkdir(parents=True, exist_ok=True)
        create_file(path, secrets.token_bytes(_BYTES))
    return path.read_bytes()
