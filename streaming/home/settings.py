"""The one settings object, read once at the edge from the environment and the command line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from schemas.errors import ConfigurationError, MachineError, nearest
from schemas.llm import checked_base_url
from streaming.home.brokers import Brokers
from streaming.home.client_properties import load_properties
from streaming.home.service_variables import is_of_a_service
from streaming.output.log import check_format
from streaming.output.redaction import keep_secret

_PREFIX = "FLAGSTREAM_"
_SHORTEST_KEY = 32
_OURS = ("embedded", "docker")
_VARIABLES = {
    "FLAGSTREAM_HOME": "folder for all state",
    "FLAGSTREAM_CACHE": "folder for downloads",
    "FLAGSTREAM_KAFKA": "embedded, docker, or a bootstrap address",
    "FLAGSTREAM_KAFKA_CONFIG": "a client.properties: how to reach a secured Kafka",
    "FLAGSTREAM_LLM_BASE_URL": "an OpenAI-compatible endpoint",
    "FLAGSTREAM_LOG_FORMAT": "text or json: how a running agent logs",
    "FLAGSTREAM_IVY_SETTINGS": "an Ivy settings file that names a mirror",
    "FLAGSTREAM_SCHEMA_REGISTRY": "address of a schema registry's Confluent interface",
    "FLAGSTREAM_SCHEMA_REGISTRY_LOGIN": "user:password for it",
    "FLAGSTREAM_AUDIT_KEY": "the secret that the audit log's hashes are keyed with",
}


ARTEFACTS = "artefacts"


@dataclass(frozen=True)
class Settings:
    """Where state lives and which services are used.

    Attributes:
        home: folder of all state.
        cache: folder of downloads.
        kafka: `embedded`, `docker`, or a bootstrap address, which knows how it is reached.
        llm_base_url: an OpenAI-compatible endpoint, None when not given.
        ivy_settings: an Ivy settings file for a mirror, None for Ivy's own.
        audit_key: the audit log's secret, None for one made beside its anchor.
        log_format: text or json.
        schema_registry: address of a schema registry, None when not given.
        schema_registry_login: user and password for it, with a colon between them.
    """

    home: Path
    cache: Path
    kafka: str = "embedded"
    llm_base_url: str | None = None
    ivy_settings: Path | None = None
    audit_key: SecretStr | None = None
    log_format: str = "text"
    schema_registry: str | None = None
    schema_registry_login: SecretStr | None = None
    _environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, home: Path, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises:
            ConfigurationError: an unknown FLAGSTREAM_ variable, or a value that cannot be used.
        """
        for name, value in environ.items():
            if name.startswith(_PREFIX) and name not in _VARIABLES and not is_of_a_service(name, value):
                raise ConfigurationError(f"unknown variable; {nearest(name, _VARIABLES)}", where=name)
        mirror = environ.get("FLAGSTREAM_IVY_SETTINGS")
        return cls(
            home=home.resolve(),
            cache=Path(environ.get("FLAGSTREAM_CACHE") or _default_cache()).resolve(),
            kafka=_kafka(environ),
            llm_base_url=_endpoint(environ.get("FLAGSTREAM_LLM_BASE_URL")),
            ivy_settings=Path(mirror) if mirror else None,
            audit_key=_audit_key(environ.get("FLAGSTREAM_AUDIT_KEY")),
            log_format=check_format(environ.get("FLAGSTREAM_LOG_FORMAT") or "text", "FLAGSTREAM_LOG_FORMAT"),
            schema_registry=_registry(environ.get("FLAGSTREAM_SCHEMA_REGISTRY")),
            schema_registry_login=_login(environ.get("FLAGSTREAM_SCHEMA_REGISTRY_LOGIN")),
            _environ=dict(environ),
        )

    def api_key(self, name: str) -> SecretStr | None:
        """Return the key that the environment variable `name` holds, None when it is absent or empty."""
        return _secret(self._environ.get(name))

    @property
    def jars_spark(self) -> Path:
        """Jars for Spark beyond those PySpark ships."""
        return self.cache / "jars" / "spark"

    @property
    def jars_broker(self) -> Path:
        """Jars of the embedded Kafka broker."""
        return self.cache / "jars" / "broker"

    @property
    def classes(self) -> Path:
        """Archives of the classes that JVMs load."""
        return self.cache / "classes"

    @property
    def jars_msk(self) -> Path:
        """Jars with which Spark logs in to Amazon MSK, fetched only when asked for."""
        return self.cache / "jars" / "msk"

    @property
    def jars_bench(self) -> Path:
        """Jars that only benchmarks need, for what flagstream is measured against."""
        return self.cache / "jars" / "bench"

    def lake(self, agent: str) -> Path:
        """Return the folder of an agent's Delta tables."""
        return self.home / "lake" / agent

    def snapshots(self, agent: str) -> Path:
        """Return the folder of an agent's snapshots."""
        return self.lake(agent) / "snapshots"

    def artefacts(self, agent: str) -> Path:
        """Return the folder of the trained models that have decided, by their SHA-256."""
        return self.lake(agent) / ARTEFACTS

    def checkpoint(self, agent: str) -> Path:
        """Return the folder of Spark's checkpoint for an agent."""
        return self.home / "checkpoints" / agent

    def profiles(self, agent: str) -> Path:
        """Return the folder of an agent's profile checkpoints."""
        return self.home / "profiles" / agent

    def models(self, agent: str) -> Path:
        """Return the folder of an agent's trained models."""
        return self.home / "models" / agent

    def sandbox(self, agent: str) -> Path:
        """Return the folder of what candidates of an agent would have decided."""
        return self.home / "sandbox" / agent

    def audit(self, agent: str) -> Path:
        """Return the folder of what guards an agent's audit table: its anchor and, unless given, its key."""
        return self.home / "audit" / agent

    def health(self, agent: str) -> Path:
        """Return the file of the conditions that a running agent stands under."""
        return self.home / "health" / f"{agent}.json"

    @property
    def endpoints(self) -> Path:
        """File of what model endpoints have shown that they take."""
        return self.home / "llm" / "endpoints.json"

    @property
    def spark(self) -> Path:
        """Spark's scratch folder."""
        return self.home / "spark"


def find_java(environ: Mapping[str, str] = os.environ) -> str:
    """Return the java executable: JAVA_HOME's, else the one on the path.

    Raises:
        MachineError: there is none.
    """
    home = environ.get("JAVA_HOME")
    candidate = Path(home) / "bin" / "java" if home else None
    found = str(candidate) if candidate is not None and candidate.is_file() else shutil.which("java")
    if found is None:
        raise MachineError("no java found: install a JDK 17 or newer, for example the package openjdk-17-jdk")
    return found


def _default_cache() -> Path:
    return Path(__file__).resolve().parents[2] / ".cache"


def _endpoint(value: str | None) -> str | None:
    try:
        return checked_base_url(value) if value else None
    except ValueError as fault:
        raise ConfigurationError(str(fault), where="FLAGSTREAM_LLM_BASE_URL") from None


def _registry(value: str | None) -> str | None:
    try:
        return checked_base_url(value) if value else None
    except ValueError:
        raise ConfigurationError(
            "expected an address such as https://host/apis/ccompat/v7, without a login: "
            "that goes into FLAGSTREAM_SCHEMA_REGISTRY_LOGIN",
            where="FLAGSTREAM_SCHEMA_REGISTRY",
        ) from None


def _login(value: str | None) -> SecretStr | None:
    user, colon, password = (value or "").partition(":")
    if value and not (user and colon):
        raise ConfigurationError("expected user:password", where="FLAGSTREAM_SCHEMA_REGISTRY_LOGIN")
    keep_secret(password)
    return _secret(value)


def _audit_key(value: str | None) -> SecretStr | None:
    if value and len(value) < _SHORTEST_KEY:
        raise ConfigurationError(
            f"expected at least {_SHORTEST_KEY} characters, best random ones", where="FLAGSTREAM_AUDIT_KEY"
        )
    return _secret(value)


def _secret(value: str | None) -> SecretStr | None:
    keep_secret(value)
    return SecretStr(value) if value else None


def _kafka(environ: Mapping[str, str]) -> str:
    value, file = environ.get("FLAGSTREAM_KAFKA"), environ.get("FLAGSTREAM_KAFKA_CONFIG")
    if not file:
        return _address(value or "embedded")
    properties = load_properties(Path(file), environ)
    address = _address(value or properties.bootstrap or "")
    if address in _OURS:
        raise ConfigurationError(f"{address} is reached without it", where="FLAGSTREAM_KAFKA_CONFIG")
    return Brokers(address).reached_by(properties)


def _address(value: str) -> str:
    if value in _OURS or ":" in value:
        return value
    raise ConfigurationError(
        f"expected embedded, docker or host:port, got {value!r}", where="FLAGSTREAM_KAFKA"
    )
