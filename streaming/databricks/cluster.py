"""The compute of a bundle's jobs: one node for each run, with what the agent needs on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from databricks.bundles.jobs import ClusterSpec, DataSecurityMode, JobCluster, Library, MavenLibrary

from schemas.spec import AgentSpec
from streaming.databricks.runtime import PINNED
from streaming.home.spec_connection import variables_in, written_connection

CLUSTER = "single-node"
SCOPE = "${resources.secret_scopes.secrets.name}"
# Two targets never share a lake.
STORE = "${var.store}/${bundle.target}"
_LOCAL = "/local_disk0/flagstream"
_SPARK = {
    "spark.master": "local[*, 4]",
    "spark.databricks.cluster.profile": "singleNode",
    # A batch is taken into the driver as one Arrow table, whatever its size.
    "spark.driver.maxResultSize": "0",
    "spark.kafka.consumer.fetchedData.cache.timeout": "2s",
    "spark.kafka.consumer.fetchedData.cache.evictorThreadRunInterval": "500ms",
}


def job_cluster(spec: AgentSpec) -> JobCluster:
    """Return one node of the pinned runtime, for one run and for its identity alone."""
    return JobCluster(
        job_cluster_key=CLUSTER,
        new_cluster=ClusterSpec(
            spark_version="${var.runtime}",
            node_type_id="${var.node_type}",
            num_workers=0,
            data_security_mode=DataSecurityMode.SINGLE_USER,
            spark_conf={**_SPARK},
            spark_env_vars={**environment(spec)},
            custom_tags={"ResourceClass": "SingleNode", "flagstream_agent": spec.name},
        ),
    )


def libraries() -> list[Library]:
    """Return the wheel, what it needs beside the runtime, and the jars of Kafka."""
    return [
        Library(whl="../dist/*.whl"),
        Library(requirements="../requirements.txt"),
        Library(maven=MavenLibrary(coordinates=PINNED.kafka)),
    ]


def environment(spec: AgentSpec) -> Mapping[str, str]:
    """Return the variables of a run; secrets are references, which the platform resolves on the node."""
    return {
        "FLAGSTREAM_HOME": _LOCAL,
        "FLAGSTREAM_CACHE": f"{_LOCAL}/cache",
        "FLAGSTREAM_KAFKA": "${var.kafka}",
        "FLAGSTREAM_STORE": STORE,
        "FLAGSTREAM_LOG_FORMAT": "json",
        **{name: f"{{{{secrets/{SCOPE}/{key}}}}}" for name, key in secrets_of(spec).items()},
    }


def secrets_of(spec: AgentSpec) -> Mapping[str, str]:
    """Return the secrets that a spec needs: environment variable → key in the scope.

    Raises:
        ConfigurationError: the file that says how its brokers are reached cannot be used.
    """
    names = ["FLAGSTREAM_AUDIT_KEY", *_model_keys(spec), *variables_in(written_connection(spec))]
    return {name: name.removeprefix("FLAGSTREAM_").lower().replace("_", "-") for name in names}


def _model_keys(spec: AgentSpec) -> Sequence[str]:
    """Where a model is asked, its key is wanted, and that of the pseudonyms: none is made in a store."""
    if spec.llm.provider == "none":
        return ()
    names = {spec.llm.api_key_env, *(each.api_key_env for each in spec.llm.fallbacks)}
    return ["FLAGSTREAM_PSEUDONYM_KEY", *sorted(names)]
