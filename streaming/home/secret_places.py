"""Secrets stand in files as the places that hold them: `${env:NAME}` or `${file:/path}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import ConfigurationError

SECRET_PLACE = re.compile(r"\$\{(env|file):([^}]+)\}")


def looked_up(value: str, environ: Mapping[str, str], where: str, key: str) -> str:
    """Return a value with what lies at the places that it names.

    Args:
        value: as it stands in a file.
        environ: where `${env:NAME}` is looked up.
        where: the file, for errors.
        key: of the value, for errors.

    Raises:
        ConfigurationError: there is no such variable or file; naming it, and never what another one holds.
    """

    def one(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        try:
            return environ[name] if kind == "env" else Path(name).read_text(encoding="utf-8").strip()
        except KeyError:
            problem = f"the environment has no {name}"
        except (OSError, UnicodeDecodeError):
            problem = f"no file that can be read at {name}"
        raise ConfigurationError(problem, where=where, key=key)

    return SECRET_PLACE.sub(one, value)
