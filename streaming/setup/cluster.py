"""How Spark is set up for executors of a standalone cluster: what this driver asks of its master."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path

from schemas.cluster import SparkClusterSettings
from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from streaming.home.brokers import properties_of
from streaming.home.platform import is_on_platform

_SECONDS = 3.0
# What is decided hangs on none of this: executors stay, and no task is run twice side by side.
_STEADY = {
    "spark.executor.cores": "1",
    "spark.dynamicAllocation.enabled": "false",
    "spark.speculation": "false",
    "spark.sql.adaptive.enabled": "false",
    # An executor that is gone is not waited for.
    "spark.locality.wait": "0s",
    # Spark looks after each row how large a batch has become, which headers make quadratic.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1),
    # The same texts and hashes on all machines, and nothing of this process's environment.
    "spark.executorEnv.PYTHONHASHSEED": "0",
    "spark.executorEnv.LC_ALL": "C.UTF-8",
}

# Where executors hold buckets: a task waits for the executor that holds what it needs, and carries a bucket
# whole where none does (MiB).
_HOLDING = {"spark.locality.wait.process": "10s", "spark.rpc.message.maxSize": "1024"}


def cluster_configuration(
    cluster: SparkClusterSettings, jars: Sequence[Path], java: Sequence[str]
) -> dict[str, str]:
    """Return what a session on a cluster is configured with beside every session.

    Args:
        cluster: which one.
        jars: beyond those PySpark ships; executors fetch them from the driver.
        java: options of executors' JVMs.

    Raises:
        ConfigurationError: no master is known by its name.
    """
    own = _own_address(cluster.addresses)
    held = {} if cluster.buckets is None else _HOLDING
    most = {} if cluster.executors is None else {"spark.cores.max": str(cluster.executors)}
    return {
        **_STEADY,
        **most,
        **held,
        "spark.master": cluster.master,
        "spark.driver.host": own,
        "spark.driver.bindAddress": own,
        "spark.executor.memory": cluster.memory,
        # In whole seconds, and never 0, which would be for ever.
        "spark.python.worker.idleTimeoutSeconds": str(ceil(cluster.task_timeout.total_seconds())),
        "spark.python.worker.killOnIdleTimeout": "true",
        "spark.executor.extraJavaOptions": " ".join(java),
        "spark.jars": ",".join(map(str, jars)),
    }


def check_cluster(contract: EventContract, bootstrap: str, environ: Mapping[str, str]) -> None:
    """Refuse what executors cannot do; `run`, `spec validate` and `doctor` all ask here.

    Args:
        contract: what the events are.
        bootstrap: the brokers they are read from.
        environ: of this process.

    Raises:
        ConfigurationError: a contract that reads by a schema registry, or brokers that want a login or
            certificates, which lie on this machine; a platform, which brings a session of its own.
    """
    if contract.asks_registry:
        raise ConfigurationError(
            "cluster decodes no contract that reads by a schema registry: executors get no login "
            "for it. Name the schemas in the contract (format, key_format), or leave execution at local",
            key="execution",
        )
    if properties_of(bootstrap) is not None:
        raise ConfigurationError(
            "cluster reads from brokers without a client.properties alone: what it names, logins "
            "and certificates, lies on this machine, and executors get no secrets",
            key="execution",
        )
    if is_on_platform(environ):
        raise ConfigurationError(
            "cluster is for standalone clusters: this platform brings a session of its own, on "
            "whose workers this was not tried. Leave execution at local",
            key="execution",
        )


def master_away(cluster: SparkClusterSettings) -> str | None:
    """Say why no master of a cluster can be reached, None where one listens."""
    faults = []
    for host, port in cluster.addresses:
        try:
            with socket.create_connection((host, port), _SECONDS):
                return None
        except OSError as fault:
            faults.append(f"no master of Spark answers at {host}:{port}: {fault.strerror or fault}")
    return "; ".join(faults) or None


def _own_address(masters: Sequence[tuple[str, int]]) -> str:
    """Return this machine's address on the way to a master; nothing is sent."""
    for host, port in masters:
        with suppress(OSError):
            # Java takes version 4, too, where a name has both; `localhost` often begins with ::1.
            ((*_, address), *_) = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    raise ConfigurationError("no master is known by its name", where="cluster", key="master")
