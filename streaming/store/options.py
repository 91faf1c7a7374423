"""How long an object store is waited for: options in the names that deltalake and obstore share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from schemas.errors import ConfigurationError, nearest

# An answer, or that there is none, within about half a minute: whoever waits longer says so meanwhile.
DEFAULTS: dict[str, str] = {
    "timeout": "30s",
    "connect_timeout": "5s",
    "max_retries": "4",
    "retry_timeout": "20s",
}
MEANINGS: Mapping[str, str] = {
    "timeout": "longest time of one request",
    "connect_timeout": "longest time that a connection may take",
    "retry_timeout": "no further attempt after so long",
    "max_retries": "most attempts after the first",
    "backoff_config.init_backoff": "pause before the second attempt",
    "backoff_config.max_backoff": "longest pause between two attempts",
    "backoff_config.base": "factor by which pauses grow",
}
_VARIABLE = "FLAGSTREAM_STORE_OPTIONS"
_DURATION = re.compile(r"(\d+)(ms|s|m)")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes"}
_NUMBER = re.compile(r"\d+")
_COUNTS = {"max_retries", "backoff_config.base"}
_KNOWN = {name: _NUMBER if name in _COUNTS else _DURATION for name in MEANINGS}


def store_options(given: str, where: str) -> dict[str, str]:
    """Return the options of a store: the defaults, and what is given in their place.

    Args:
        given: such as `timeout=10s,max_retries=8`.
        where: the setting that holds it, for errors.

    Raises:
        ConfigurationError: an option that is not known, or a value that it cannot have.
    """
    options = dict(DEFAULTS)
    for part in filter(None, (each.strip() for each in given.split(","))):
        name, _, value = (each.strip() for each in part.partition("="))
        if name not in _KNOWN:
            raise ConfigurationError(f"unknown option {name!r}; {nearest(name, _KNOWN)}", where=where)
        if not _KNOWN[name].fullmatch(value):
            wanted = "a duration such as 500ms or 10s" if _KNOWN[name] is _DURATION else "a number"
            raise ConfigurationError(f"{name}: expected {wanted}, got {value!r}", where=where)
        options[name] = value
    return options


def options_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the options that the environment gives for every store that this process reaches.

    Raises:
        ConfigurationError: see store_options.
    """
    return store_options(environ.get(_VARIABLE, ""), _VARIABLE)


def retry_config(options: Mapping[str, str]) -> dict[str, Any]:
    """Return what of some options obstore takes as its configuration of retries."""
    known = {name: _value(text) for name, text in options.items() if name in _KNOWN}
    config = {name: known[name] for name in ("max_retries", "retry_timeout") if name in known}
    backoff = {name.partition(".")[2]: value for name, value in known.items() if "." in name}
    return config | ({"backoff": backoff} if backoff else {})


def _value(text: str) -> int | timedelta:
    found = _DURATION.fullmatch(text)
    return int(text) if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})
