"""The key of the pseudonyms: the one given, else one per home, made once, for its owner to read alone."""

from __future__ import annotations

import secrets
from pathlib import Path

from schemas.errors import ConfigurationError
from streaming.home.settings import Settings
from streaming.store.whole_files import create_file

_BYTES = 32


def pseudonym_key(settings: Settings) -> bytes:
    """Return the key, made when there is none; of two processes that make one, one prevails.

    Raises:
        ConfigurationError: there is none, and the lake lies in a store, where any machine may go on with it;
            or one is given, and the home has made another.
    """
    path = settings.home / "pseudonyms.key"
    if settings.pseudonym_key is not None:
        given = settings.pseudonym_key.get_secret_value().encode()
        _check_same(given, path if settings.kept.is_local else None)
        return given
    if not settings.kept.is_local:
        raise ConfigurationError(
            "a model is asked about pseudonyms, which must be the same on every machine: set it to a random "
            "text of at least 32 characters, such as `openssl rand -hex 32` prints, and keep it; "
            "none is made in a store",
            where="FLAGSTREAM_PSEUDONYM_KEY",
        )
    if not path.is_file():
        settings.home.mkdir(parents=True, exist_ok=True)
        create_file(path, secrets.token_bytes(_BYTES))
    return path.read_bytes()


def _check_same(key: bytes, made: Path | None) -> None:
    """Answers on record are found by pseudonyms, and would be asked for again under another key."""
    if made is not None and made.is_file() and made.read_bytes() != key:
        raise ConfigurationError(
            f"{made} holds another key, with which this home has asked so far: unset the variable, or move "
            "the file away; answers on record are then not found again",
            where="FLAGSTREAM_PSEUDONYM_KEY",
        )
