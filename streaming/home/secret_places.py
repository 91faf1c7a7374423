"""Secrets stand in files as the places that hold them: `${env:NAME}` or `${file:/path}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import ConfigurationError
from streaming.output.redaction import keep_secret

SECRET_PLACE = re.compile(r"\$\{(env|file):([^}]+)\}")


def looked_up(value: str, environ: Mapping[str, str], where: str, key: str, *, is_secret: bool = True) -> str:
    """Return a value with what lies at the places that it names, which is hidden in all output from then on.

    Args:
        value: as it stands in a file.
        environ: where `${env:NAME}` is looked up.
        where: the file, for errors.
        key: of the value, for errors.
        is_secret: what is found is to be hidden; an address, say, is not.

    Raises:
        ConfigurationError: there is no such variable or file; naming it, and never what another one holds.
    """

    def one(match: re.Match[str]) -> str:
        try:
            found = _at(match[1], match[2], environ)
        except ConfigurationError as fault:
            raise ConfigurationError(fault.problem, where=where, key=key) from None
        if is_secret:
            keep_secret(found)
        return found

    return SECRET_PLACE.sub(one, value)


def _at(kind: str, name: str, environ: Mapping[str, str]) -> str:
    try:
        return environ[name] if kind == "env" else Path(name).read_text(encoding="utf-8").strip()
    except KeyError:
        problem = f"the environment has no {name}"
    except (OSError, ValueError):  # a path with NUL, or no UTF-8
        problem = f"no file that can be read at {name}"
    raise ConfigurationError(problem)
