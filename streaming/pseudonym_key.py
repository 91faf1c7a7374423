"""The key of the pseudonyms: one per home folder, made once, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

_BYTES = 32


def pseudonym_key(home: Path) -> bytes:
    """Return the key of `home`, made when there is none; of two processes that make one, one prevails."""
    path = home / "pseudonyms.key"
    if not path.is_file():
        home.mkdir(parents=True, exist_ok=True)
        _make(path)
    return path.read_bytes()


def _make(path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
    made = Path(name)
    try:
        path.hardlink_to(made)
    except FileExistsError:
        pass  # another process was first
    finally:
        made.unlink()
