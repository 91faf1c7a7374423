"""Keys of S3 that obstore does not find by itself: given apart, or in a profile of AWS's credentials file."""

from __future__ import annotations

import configparser
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError
from streaming.output.redaction import keep_secret

Credential = dict[str, Any]
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
PROFILES = ("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE")
# What finds keys by itself: a role of a pod, of a container or of a machine.
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_NAMES = ("access_key_id", "secret_access_key", "token")
_READ_AGAIN = timedelta(minutes=5)


def provider_of(
    given: Mapping[str, str], environ: Mapping[str, str], home: Path | None = None
) -> Callable[[], Credential] | None:
    """Return what gives a client its keys, None where it finds them by itself.

    Args:
        given: variables for one place alone, which come before those of the environment.
        environ: the environment's.
        home: the user's folder, by default this process's.
    """
    if KEYS[0] in given:
        return lambda: _credential([given.get(name) for name in KEYS], None)
    named = "AWS_PROFILE" in given
    if not named and any(name in environ for name in (KEYS[0], *_ROLES)):
        return None
    around = {**environ, **given}
    file = around.get("AWS_SHARED_CREDENTIALS_FILE")
    path = Path(file) if file else (home or Path.home()) / ".aws" / "credentials"
    profile = around.get("AWS_PROFILE") or "default"
    if not named and "AWS_PROFILE" not in environ and not _holds(path, profile):
        return None
    return lambda: _of_profile(path, profile)


def _holds(path: Path, profile: str) -> bool:
    return path.is_file() and _parsed(path).has_section(profile)


def _parsed(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        # Its words would quote the line, which may hold a key.
        raise ConfigurationError("is no credentials file", where=str(path)) from None
    return parser


def _of_profile(path: Path, profile: str) -> Credential:
    """Read the file anew, since keys in it are renewed."""
    parser = _parsed(path)
    found = dict(parser.items(profile)) if parser.has_section(profile) else {}
    if "aws_access_key_id" not in found or "aws_secret_access_key" not in found:
        raise ConfigurationError(f"holds no keys of profile {profile!r}", where=str(path))
    return _credential([found.get(name.lower()) for name in KEYS], datetime.now(UTC) + _READ_AGAIN)


def _credential(values: list[str | None], expires_at: datetime | None) -> Credential:
    for value in values[1:]:
        keep_secret(value)
    return {**dict(zip(_NAMES, values, strict=True)), "expires_at": expires_at}
