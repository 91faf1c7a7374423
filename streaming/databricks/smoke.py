"""What an agent needs of a workspace, checked by reading alone: the first job of a new one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from agent.triage.triage import POLICIES
from schemas.errors import ConfigurationError, FlagstreamError, StoreError
from schemas.spec import load_spec
from streaming.databricks.cluster import secrets_of
from streaming.databricks.store_login import CONFIGURED, store_credentials
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.home.spec_connection import settings_for
from streaming.kafka.presence import metadata_of
from streaming.output.redaction import keep_environment_secret, redacted
from streaming.setup.platform import adopt_session
from streaming.store.presence import store_away

_LEAST_PYTHON = (3, 11)
_STORE = "FLAGSTREAM_STORE"
Check = Callable[[], str]


@dataclass(frozen=True)
class SmokeCheck:
    """One thing that was checked, whether it is as it should be, and what was found."""

    name: str
    passed: bool
    said: str


def checks(
    spec: Path,
    kept: Path,
    session: SparkSession,
    credentials: str = CONFIGURED,
    environ: Mapping[str, str] = os.environ,
) -> list[SmokeCheck]:
    """Check everything, whatever fails, and return what was found; nothing is written anywhere.

    Args:
        spec: the spec's file.
        kept: folder of what is kept of the state.
        session: the platform's.
        credentials: of the store, see streaming.databricks.store_login.
        environ: where settings and secrets are.
    """
    keep_environment_secret(environ)
    return [_found(name, check) for name, check in _all(spec, kept, session, credentials, environ)]


def _all(
    spec: Path, kept: Path, session: SparkSession, credentials: str, environ: Mapping[str, str]
) -> Iterator[tuple[str, Check]]:
    yield "Python", _python
    yield "Spark", lambda: f"Spark {adopt_session(session).version}"
    yield "definition", lambda: _definition(spec)
    yield "secrets", lambda: _secrets(spec, environ)
    yield "store", lambda: _store(credentials, environ)
    yield "brokers", lambda: _topics(spec, environ)
    yield "kept state", lambda: _folder(kept)


def _found(name: str, check: Check) -> SmokeCheck:
    try:
        return SmokeCheck(name, True, check())
    except (FlagstreamError, OSError) as fault:
        return SmokeCheck(name, False, redacted(str(fault)))


def _python() -> str:
    if sys.version_info < _LEAST_PYTHON:
        raise ConfigurationError(f"Python {sys.version.split()[0]} is too old: 3.11 or later is needed")
    return f"Python {sys.version.split()[0]}"


def _definition(path: Path) -> str:
    spec = load_spec(path)
    AgentDefinition.load(spec, str(path))
    return f"{spec.name} {spec.version}"


def _secrets(path: Path, environ: Mapping[str, str]) -> str:
    wanted = secrets_of(load_spec(path))
    missing = sorted(key for name, key in wanted.items() if not environ.get(name))
    if missing:
        raise ConfigurationError(f"no secret in the scope for: {', '.join(missing)}")
    return f"{len(wanted)} of {len(wanted)} are there"


def _store(credentials: str, environ: Mapping[str, str]) -> str:
    settings = _settings(environ)
    place = settings.store
    if place is None:
        raise ConfigurationError("is not set: name an external location", where=_STORE)
    if place.is_local:
        raise ConfigurationError(
            f"{place} is a folder of this node, which is gone with it: name an external location",
            where=_STORE,
        )
    with store_credentials(credentials, settings.home):
        fault = store_away(place)
    if fault is not None:
        raise StoreError(fault)
    return f"{place} can be read with the credentials that are {credentials}"


def _topics(path: Path, environ: Mapping[str, str]) -> str:
    spec = load_spec(path)
    seen = metadata_of(settings_for(PlacedAgent(_settings(environ), spec), POLICIES).kafka).topics
    missing = sorted(set(spec.data_sources.transactions.subscription.names) - set(seen))
    if missing:
        raise ConfigurationError(f"not there, or not this login's to read: {', '.join(missing)}")
    return f"{len(seen)} topics can be seen"


def _settings(environ: Mapping[str, str]) -> Settings:
    return Settings.load(Path(environ.get("FLAGSTREAM_HOME") or "var"), environ)


def _folder(kept: Path) -> str:
    if not kept.parent.is_dir():
        raise ConfigurationError(f"{kept.parent} is not there, or not this identity's to read")
    return f"{kept.parent} can be read"
