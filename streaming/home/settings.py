"""The one settings object, read once at the edge from the environment and the command line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import SecretStr

from schemas.addresses import is_uri
from schemas.cluster import SparkClusterSettings
from schemas.errors import ConfigurationError, MachineError, nearest
from schemas.spec import AgentSpec
from streaming.home.brokers import Brokers
from streaming.home.client_properties import ClientProperties
from streaming.home.listen import ListenAddress, listen_address
from streaming.home.trace_target import TraceTarget, trace_target
from streaming.home.variables import (
    OWN_BROKERS,
    PREFIX,
    VARIABLES,
    anchor_access,
    broker_address,
    brokers_named,
    is_known,
    key_named,
    model_endpoint,
    registry_address,
    registry_login,
    secret_of,
    store_named,
)
from streaming.output.log import check_format
from streaming.store.access import Access
from streaming.store.folders import ARTEFACTS, BASE
from streaming.store.place import Place, check_no_volume, resolved

LAKES = "lake"


@dataclass(frozen=True)
class Settings:
    """Where state lives and which services are used.

    Attributes:
        home: folder of all state, or of what must be on this machine where there is a store.
        cache: folder of downloads.
        kafka: `embedded`, `docker`, or a bootstrap address, which knows how it is reached.
        llm_base_url: an OpenAI-compatible endpoint, None when not given.
        ivy_settings: an Ivy settings file for a mirror, None for Ivy's own.
        audit_key: the audit log's secret, None for one made beside its anchor.
        audit_anchor: where the audit log's anchor lies, None for beside the lake.
        anchor_access: how that place is reached, where not as the environment says.
        pseudonym_key: the secret that pseudonyms are made with, None for one made in the home.
        log_format: text or json.
        schema_registry: address of a schema registry, None when not given.
        schema_registry_login: user and password for it, with a colon between them.
        metrics: where a process serves metrics and health, None where it does not.
        traces: where traces are sent, None where none are made.
        store: where tables and what belongs to them lie, None for the home.
        cluster: the Spark cluster that reads and decodes, None where this process's own Spark does.
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
    metrics: ListenAddress | None = None
    traces: TraceTarget | None = None
    store: Place | None = None
    audit_anchor: Place | None = None
    anchor_access: Access | None = field(default=None, repr=False)
    pseudonym_key: SecretStr | None = None
    cluster: SparkClusterSettings | None = None
    _environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, home: Path, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises:
            ConfigurationError: an unknown FLAGSTREAM_ variable, or a value that cannot be used.
        """
        for name, value in environ.items():
            if name.startswith(PREFIX) and not is_known(name, value):
                raise ConfigurationError(f"unknown variable; {nearest(name, VARIABLES)}", where=name)
        check_home(home)
        check_no_volume(str(home), "FLAGSTREAM_HOME")
        mirror, access = environ.get("FLAGSTREAM_IVY_SETTINGS"), anchor_access(environ)
        reached = {**environ, **access.variables}  # the anchor's own variables go before those of the lake
        return cls(
            home=resolved(home, f"--home {home}"),
            cache=resolved(Path(environ.get("FLAGSTREAM_CACHE") or _default_cache()), "FLAGSTREAM_CACHE"),
            kafka=brokers_named(environ),
            llm_base_url=model_endpoint(environ.get("FLAGSTREAM_LLM_BASE_URL")),
            ivy_settings=Path(mirror) if mirror else None,
            audit_key=key_named(environ, "FLAGSTREAM_AUDIT_KEY"),
            audit_anchor=store_named(
                environ.get("FLAGSTREAM_AUDIT_ANCHOR"), "FLAGSTREAM_AUDIT_ANCHOR", reached
            ),
            anchor_access=access,
            pseudonym_key=key_named(environ, "FLAGSTREAM_PSEUDONYM_KEY"),
            log_format=check_format(environ.get("FLAGSTREAM_LOG_FORMAT") or "text", "FLAGSTREAM_LOG_FORMAT"),
            schema_registry=registry_address(environ.get("FLAGSTREAM_SCHEMA_REGISTRY")),
            schema_registry_login=registry_login(environ.get("FLAGSTREAM_SCHEMA_REGISTRY_LOGIN")),
            metrics=listen_address(environ.get("FLAGSTREAM_METRICS"), "FLAGSTREAM_METRICS"),
            traces=trace_target(environ),
            store=store_named(environ.get("FLAGSTREAM_STORE"), "FLAGSTREAM_STORE", environ),
            _environ=dict(environ),
        )

    def api_key(self, name: str) -> SecretStr | None:
        """Return the key that the environment variable `name` holds, None when it is absent or empty."""
        return secret_of(self._environ.get(name))

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that the settings were read from."""
        return self._environ

    @property
    def kafka_address(self) -> str | None:
        """The address that the environment gives, None where it gives none."""
        return self._environ.get("FLAGSTREAM_KAFKA") or None

    @property
    def names_its_brokers(self) -> bool:
        """Whether the environment says how brokers are reached, or that they are ours."""
        return bool(self._environ.get("FLAGSTREAM_KAFKA_CONFIG")) or self.kafka_address in OWN_BROKERS

    def reached_by(self, properties: ClientProperties) -> Brokers:
        """Return the brokers of the environment or, where it names none, of a file.

        Raises:
            ConfigurationError: neither gives an address.
        """
        return Brokers(broker_address(self.kafka_address or properties.bootstrap or "")).reached_by(
            properties
        )

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

    def under(self, spec: AgentSpec) -> Settings:
        """Return the settings of a process that works for one agent: its spec may name store and cluster.

        Raises:
            ConfigurationError: that is none, or the environment keeps commits to it from being atomic.
        """
        own = self if spec.execution == "local" else replace(self, cluster=spec.cluster)
        if self.store is not None or spec.store is None:
            return own
        return replace(own, store=store_named(spec.store, f"store of the spec {spec.name!r}", self._environ))

    @property
    def kept(self) -> Place:
        """Where tables and what belongs to them lie: the store, else the home."""
        return self.store or Place.local(self.home)

    def lake(self, agent: str) -> Place:
        """Return where an agent's Delta tables lie."""
        return self.kept / LAKES / agent

    def lake_at_home(self, agent: str) -> Path:
        """Return where an agent's Delta tables lie while no store is named."""
        return self.home / LAKES / agent

    def snapshots(self, agent: str) -> Place:
        """Return where an agent's snapshots lie."""
        return self.lake(agent) / "snapshots"

    def artefacts(self, agent: str) -> Place:
        """Return where the trained models lie that have decided, by their SHA-256."""
        return self.lake(agent) / ARTEFACTS

    def checkpoint(self, agent: str) -> Path:
        """Return the folder of Spark's checkpoint for an agent."""
        return self.home / "checkpoints" / agent

    def profiles(self, agent: str) -> Place:
        """Return where an agent's profile checkpoints lie."""
        return self.kept / "profiles" / agent

    def base(self, agent: str) -> Place:
        """Return where profiles lie as they stood at the first transaction that retention has left."""
        return self.profiles(agent) / BASE

    def models(self, agent: str) -> Place:
        """Return where an agent's trained models lie."""
        return self.kept / "models" / agent

    def sandbox(self, agent: str) -> Path:
        """Return the folder of what candidates of an agent would have decided."""
        return self.home / "sandbox" / agent

    def audit(self, agent: str) -> Place:
        """Return where lies what guards an agent's audit table: its anchor and, unless given, its key."""
        return self.kept / "audit" / agent

    def drift(self, agent: str) -> Path:
        """Return the file of what drift is measured against."""
        return self.home / "drift" / f"{agent}.npz"

    def anchor(self, agent: str) -> Place:
        """Return where the anchor of an agent's audit table lies."""
        return self.audit(agent) if self.audit_anchor is None else self.audit_anchor / agent

    def deliveries(self, agent: str) -> Place:
        """Return where it is on record how far the routes of an agent's alerts have come."""
        return self.kept / "deliveries" / agent

    @property
    def owners(self) -> Place:
        """Where it is on record who runs an agent."""
        return self.kept / "owner"

    @property
    def owner_locks(self) -> Path:
        """Folder of locks that fall with the process that runs an agent."""
        return self.home / "owner"

    @property
    def spool(self) -> Path:
        """Folder of files on their way to a store or from it."""
        return self.home / "spool"

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


def check_home(home: Path) -> None:
    """Check that a home is a folder of this machine.

    Raises:
        ConfigurationError: it was given as a URI.
    """
    if is_uri(str(home)):
        raise ConfigurationError(
            "the home is a folder of this machine, for the broker, Spark's checkpoint and temporary files; "
            "tables go into a store with FLAGSTREAM_STORE, or `store` in the spec",
            where=f"--home {home}",
        )


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
