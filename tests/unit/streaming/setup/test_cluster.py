"""How a session on a Spark cluster is set up, and what is refused there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.cluster import SparkClusterSettings
from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from streaming.home.brokers import Brokers
from streaming.home.client_properties import load_properties
from streaming.setup.cluster import check_cluster, cluster_configuration, master_away
from streaming.setup.spark_jvm import EVERYWHERE_THE_SAME, configuration_of

PLATFORM = {"DATABRICKS_RUNTIME_VERSION": "17.3"}


@pytest.mark.parametrize(
    "master", ["yarn", "k8s://https://host:443", "local[2]", "spark://host", "spark://a:1,b"]
)
def test_masters_that_were_not_tried_are_refused(master: str) -> None:
    with pytest.raises(ValidationError, match="master"):
        SparkClusterSettings(master=master)


def test_several_masters_have_an_address_each() -> None:
    cluster = SparkClusterSettings(master="spark://one:7077,two.example:70")
    assert cluster.addresses == [("one", 7077), ("two.example", 70)]


def test_executors_have_one_core_and_nothing_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_SOMEBODY", "abc")
    cluster = SparkClusterSettings(master="spark://127.0.0.1:7077", executors=3, memory="700m")
    jars = [Path("/jars/a.jar"), Path("/jars/b.jar")]
    found = {**configuration_of(tmp_path), **cluster_configuration(cluster, jars, EVERYWHERE_THE_SAME)}
    assert (found["spark.master"], found["spark.executor.cores"]) == (cluster.master, "1")
    assert (found["spark.cores.max"], found["spark.executor.memory"]) == ("3", "700m")
    assert found["spark.driver.host"] == found["spark.driver.bindAddress"] == "127.0.0.1"
    assert found["spark.jars"] == "/jars/a.jar,/jars/b.jar"
    assert {name for name in found if name.startswith("spark.executorEnv.")} == {
        "spark.executorEnv.PYTHONHASHSEED",
        "spark.executorEnv.LC_ALL",
    }
    assert "KEY_OF_SOMEBODY" not in str(found)


def test_all_cores_that_are_free_are_taken_unless_the_spec_says_how_many() -> None:
    cluster = SparkClusterSettings(master="spark://127.0.0.1:7077")
    assert "spark.cores.max" not in cluster_configuration(cluster, [], [])


def test_tasks_wait_for_executors_that_hold_buckets_alone() -> None:
    master = "spark://127.0.0.1:7077"
    plain = cluster_configuration(SparkClusterSettings(master=master), [], [])
    assert "spark.locality.wait.process" not in plain
    holding = cluster_configuration(SparkClusterSettings(master=master, buckets=8), [], [])
    assert (holding["spark.locality.wait"], holding["spark.locality.wait.process"]) == ("0s", "10s")
    with pytest.raises(ValidationError, match="buckets"):
        SparkClusterSettings(master=master, buckets=0)


def test_a_master_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="known by its name"):
        cluster_configuration(SparkClusterSettings(master="spark://host.invalid:1"), [], [])


def test_the_drivers_address_is_one_that_spark_reads_where_a_name_has_one_of_version_6_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = {socket.AF_INET6: ("::1", 7077, 0, 0), socket.AF_INET: ("127.0.0.1", 7077)}

    def found(_: str, __: int, family: int = 0, type: int = 0) -> list[tuple[object, ...]]:  # noqa: A002 -- as socket names it
        return [(kind, type, 17, "", at) for kind, at in kinds.items() if family in (0, kind)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    made = cluster_configuration(SparkClusterSettings(master="spark://localhost:7077"), [], [])
    assert made["spark.driver.host"] == "127.0.0.1"


def test_a_platform_has_a_session_of_its_own() -> None:
    contract = load_contract("simulator")
    check_cluster(contract, "broker:9092", {})
    with pytest.raises(ConfigurationError, match="brings a session of its own"):
        check_cluster(contract, "broker:9092", PLATFORM)


def test_brokers_that_want_a_login_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=SSL\n", encoding="utf-8")
    brokers = Brokers("broker:9093").reached_by(load_properties(file, {}))
    with pytest.raises(ConfigurationError, match="executors get no secrets"):
        check_cluster(load_contract("simulator"), brokers, {})


def test_a_master_that_does_not_listen_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        cluster = SparkClusterSettings(master=f"spark://{address}")
        assert f"no master of Spark answers at {address}" in str(master_away(cluster))
        taken.listen()
        assert master_away(cluster) is None
        both = SparkClusterSettings(master=f"spark://127.0.0.1:1,{address}")
        assert master_away(both) is None, "one of several is enough"
