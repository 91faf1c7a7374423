"""The bundle of an agent: what is written, by its types, and that nobody's file is overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.bundles.jobs import Job

from schemas.cluster import SparkClusterSettings
from schemas.errors import ConfigurationError
from schemas.lake_tables import TABLES
from schemas.llm import Fallback, TokenPrice
from schemas.spec import AgentSpec, load_spec
from streaming.commands.cost import first_estimate
from streaming.databricks.bundle import bundle_files, write_bundle
from streaming.databricks.cluster import secrets_of
from streaming.databricks.costs import job_costs, month_usd
from streaming.databricks.curated_sql import table_statements, view_statements
from streaming.databricks.runtime import PINNED
from streaming.home.pseudonym_key import pseudonym_key
from streaming.home.settings import Settings
from streaming.setup.platform import LEAST_SPARK
from tests.unit.streaming.databricks.samples import card_fraud, written

GOLDEN = Path(__file__).resolve().parents[3] / "fixtures" / "bundle_of_card_fraud.txt"
NOT_GOLDEN = ("requirements.txt",)  # what is installed here


def as_text(files: dict[str, bytes]) -> str:
    kept = [(path, content) for path, content in sorted(files.items()) if path not in NOT_GOLDEN]
    return "".join(f"==> {path}\n{content.decode()}" for path, content in kept)


def test_the_bundle_is_the_golden_one() -> None:
    """Where the change is meant: write `as_text(bundle_files(card_fraud(), {}))` to the fixture."""
    assert as_text(bundle_files(card_fraud(), {})) == GOLDEN.read_text(encoding="utf-8")


def resources(files: dict[str, bytes], name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(files[f"resources/{name}.yml"])["resources"])


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return bundle_files(card_fraud(), {})


def validated(found: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Have the package itself check resources, as the Databricks CLI has it do."""
    at = {name: folder / f"{name}.json" for name in ("input", "output", "diagnostics", "locations")}
    at["input"].write_text(json.dumps({"bundle": {"target": "dev"}, "resources": found}), encoding="utf-8")
    options = [word for name, path in at.items() for word in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "databricks.bundles.build", "--phase", "apply_mutators", *options]
    subprocess.run(command, check=False, capture_output=True, cwd=folder, timeout=60)
    said = [json.loads(line) for line in at["diagnostics"].read_text(encoding="utf-8").splitlines()]
    return json.loads(at["output"].read_text(encoding="utf-8") or "{}"), said


@pytest.mark.long
def test_the_package_of_databricks_takes_every_resource(files: dict[str, bytes], tmp_path: Path) -> None:
    found = {**resources(files, "jobs"), **resources(files, "catalog")}
    output, said = validated(found, tmp_path)
    assert said == []
    assert output["resources"] == found


def test_the_package_of_databricks_names_what_it_does_not_know(tmp_path: Path) -> None:
    _, said = validated({"jobs": {"agent": {"name": "x", "continuos": {}}}}, tmp_path)
    assert [each["severity"] for each in said] == ["error"]
    assert "continuos" in json.dumps(said)


def test_the_agent_runs_without_an_end_on_one_node_of_its_own(files: dict[str, bytes]) -> None:
    agent = resources(files, "jobs")["jobs"]["agent"]
    (cluster,) = agent["job_clusters"]
    assert agent["continuous"] == {"pause_status": "UNPAUSED", "task_retry_mode": "ON_FAILURE"}
    assert agent["max_concurrent_runs"] == 1
    assert cluster["new_cluster"]["num_workers"] == 0
    assert "autoscale" not in cluster["new_cluster"]
    assert cluster["new_cluster"]["spark_conf"]["spark.databricks.cluster.profile"] == "singleNode"
    assert cluster["new_cluster"]["data_security_mode"] == "SINGLE_USER"
    metrics = [rule["metric"] for rule in agent["health"]["rules"]]
    assert metrics == ["STREAMING_BACKLOG_SECONDS", "STREAMING_BACKLOG_RECORDS"]
    assert agent["email_notifications"]["on_streaming_backlog_exceeded"] == ["${var.notify}"]


@pytest.mark.parametrize("name", ["maintenance", "reconcile", "snapshot"])
def test_what_is_done_beside_it_has_a_schedule_and_a_longest_time(name: str, files: dict[str, bytes]) -> None:
    job = resources(files, "jobs")["jobs"][name]
    assert job["schedule"]["timezone_id"] == "UTC"
    assert job["health"]["rules"][0]["metric"] == "RUN_DURATION_SECONDS"
    assert job["timeout_seconds"] > job["health"]["rules"][0]["value"]


def test_a_replay_has_parameters_that_its_task_uses(files: dict[str, bytes]) -> None:
    job = resources(files, "jobs")["jobs"]["replay"]
    words = job["tasks"][0]["python_wheel_task"]["parameters"]
    for parameter in job["parameters"]:
        assert f"{{{{job.parameters.{parameter['name']}}}}}" in words


def test_no_secret_stands_in_a_bundle_but_where_it_is(files: dict[str, bytes]) -> None:
    for job in resources(files, "jobs")["jobs"].values():
        variables = job["job_clusters"][0]["new_cluster"]["spark_env_vars"]
        for name in secrets_of(card_fraud()):
            assert variables[name].startswith("{{secrets/"), name


def agent(**changes: Any) -> AgentSpec:
    return card_fraud().model_copy(update=changes)


def test_the_secrets_are_those_that_the_spec_needs() -> None:
    silent = card_fraud().llm.model_copy(update={"provider": "none"})
    assert secrets_of(card_fraud()) == {
        "FLAGSTREAM_AUDIT_KEY": "audit-key",
        "FLAGSTREAM_PSEUDONYM_KEY": "pseudonym-key",
        "OPENAI_API_KEY": "openai-api-key",
    }
    assert list(secrets_of(agent(llm=silent))) == ["FLAGSTREAM_AUDIT_KEY"]


def test_with_its_secrets_a_job_has_the_keys_that_are_not_made_in_a_store(tmp_path: Path) -> None:
    given = {**dict.fromkeys(secrets_of(card_fraud()), "k" * 32), "FLAGSTREAM_STORE": "s3://payments/lakes"}
    assert pseudonym_key(Settings.load(tmp_path, given)) == b"k" * 32


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model": None}, "llm.model"),
        ({"model": "local"}, "llm.model"),
        ({"fallbacks": (Fallback(model="local"),)}, "llm.fallbacks"),
    ],
)
def test_the_local_model_is_refused_by_what_to_do_instead(changes: dict[str, Any], key: str) -> None:
    llm = card_fraud().llm.model_copy(update=changes)
    with pytest.raises(
        ConfigurationError, match=r"'local', which comes with flagstream.*provider: none"
    ) as fault:
        bundle_files(agent(llm=llm), {})
    assert fault.value.key == key
    assert bundle_files(agent(llm=llm.model_copy(update={"provider": "none"})), {})


LOGIN = 'x.ScramLoginModule required username="u" password="%s";'


def secured(folder: Path, password: str = "${env:KAFKA_PASSWORD}", **more: str) -> AgentSpec:
    """The agent, whose spec names how its brokers are reached."""
    properties = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": LOGIN % password,
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    lines = [f"{name}={value}\n" for name, value in properties.items()]
    (folder / "kafka.properties").write_text("".join(lines), encoding="utf-8")
    content = {**card_fraud().model_dump(mode="json"), "kafka": "kafka.properties"}
    (folder / "s.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_spec(folder / "s.yaml")


def test_how_brokers_are_reached_travels_and_what_it_takes_is_among_the_secrets(tmp_path: Path) -> None:
    spec = secured(tmp_path)
    bundle = written(tmp_path / "bundle", spec)
    found = load_spec(bundle / "agent" / "spec.yaml")
    assert found.kafka == str(bundle / "agent" / "client.properties")
    assert Path(found.kafka).read_bytes() == (tmp_path / "kafka.properties").read_bytes()
    assert secrets_of(found) == {**secrets_of(card_fraud()), "KAFKA_PASSWORD": "kafka-password"}
    assert "`KAFKA_PASSWORD`" in (bundle / "README.md").read_text(encoding="utf-8")
    jobs = yaml.safe_load((bundle / "resources" / "jobs.yml").read_text(encoding="utf-8"))["resources"][
        "jobs"
    ]
    for job in jobs.values():
        variables = job["job_clusters"][0]["new_cluster"]["spark_env_vars"]
        assert variables["KAFKA_PASSWORD"].endswith("/kafka-password}}")


def test_a_secret_in_the_file_of_the_brokers_goes_into_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds a secret") as fault:
        bundle_files(secured(tmp_path, "whispered"), {})
    assert "whispered" not in str(fault.value)


@pytest.mark.parametrize("place", ["password", "ssl_truststore_location"])
def test_what_the_file_of_the_brokers_names_lies_on_a_volume(place: str, tmp_path: Path) -> None:
    for folder in ("/etc/kafka", "/Volumes/main/payments/state"):
        value = f"${{file:{folder}/it.pem}}" if place == "password" else f"{folder}/it.pem"
        spec = secured(tmp_path, **{place: value})
        if folder.startswith("/Volumes/"):
            assert bundle_files(spec, {})
            continue
        with pytest.raises(ConfigurationError, match=r"/etc/kafka/it\.pem lies on this machine"):
            bundle_files(spec, {})


def test_readers_see_the_curated_views_and_no_table(files: dict[str, bytes]) -> None:
    (schema,) = resources(files, "catalog")["schemas"].values()
    held = {each["principal"]: each["privileges"] for each in schema["grants"]}
    assert held["${var.readers}"] == ["USE_SCHEMA"]
    assert "ALL_PRIVILEGES" not in json.dumps(held)
    granted = [statement for _, _, found in view_statements(card_fraud()) for statement in found[1:]]
    assert len(granted) == 5
    assert all(each.startswith("GRANT SELECT ON VIEW") for each in granted)


def test_every_table_is_declared_where_the_lake_has_it(tmp_path: Path) -> None:
    spec = card_fraud()
    lake = Settings.load(tmp_path, {}).lake(spec.name)
    found = {name: (place, statement) for name, place, statement in table_statements(spec)}
    assert sorted(found) == sorted(getattr(spec.tables, table) for table in TABLES if table != "tokens")
    for name, (place, statement) in found.items():
        assert place == "{store}" + str(lake / name).removeprefix(str(tmp_path))
        assert f"LOCATION '{place}'" in statement


def test_the_runtime_has_a_spark_that_is_new_enough() -> None:
    assert tuple(map(int, PINNED.spark.split(".")[:2])) >= LEAST_SPARK
    assert PINNED.kafka.endswith(f"_2.13:{PINNED.spark}")


def test_the_definition_travels_with_all_that_it_names(tmp_path: Path) -> None:
    contract = card_fraud().data_sources.transactions.contract
    assert contract == "simulator"
    folder = tmp_path / "agent"
    folder.mkdir()
    shipped = Path(__file__).resolve().parents[4] / "schemas" / "contracts" / "simulator.yaml"
    (folder / "c.yaml").write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "r.yaml").write_text(
        "rules:\n- {name: a, when: amount > 5, severity: low, reason: r}\n", "utf-8"
    )
    content = card_fraud().model_dump(mode="json")
    content["data_sources"]["transactions"]["contract"] = "./c.yaml"
    content["rules_file"] = "r.yaml"
    (folder / "s.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    bundle = written(tmp_path / "bundle", load_spec(folder / "s.yaml"))
    found = load_spec(bundle / "agent" / "spec.yaml")
    assert Path(found.data_sources.transactions.contract) == bundle / "agent" / "contract.yaml"
    assert found.rules_file == str(bundle / "agent" / "rules.yaml")
    assert found.threshold == card_fraud().threshold


def test_rates_that_lie_on_this_machine_are_refused(tmp_path: Path) -> None:
    rates = {"path": str(tmp_path / "rates.csv"), "to": "EUR"}
    content = {**card_fraud().model_dump(mode="json"), "profiles": {"currencies": "reference"}}
    content["data_sources"] = {**content["data_sources"], "rates": rates}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"rates\.csv lies on this machine"):
        bundle_files(load_spec(tmp_path / "s.yaml"), {})


def test_executors_of_a_cluster_of_its_own_are_refused_and_not_left_out_without_a_word() -> None:
    cluster = SparkClusterSettings(master="spark://here:7077")
    spec = card_fraud().model_copy(update={"execution": "cluster", "cluster": cluster})
    with pytest.raises(ConfigurationError, match="execution: a platform brings a session of its own"):
        bundle_files(spec, {})


@pytest.mark.long
def test_nothing_of_anybody_s_is_overwritten(tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle")
    edited = bundle / "databricks.yml"
    edited.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is there already"):
        write_bundle(bundle_files(card_fraud(), {}), bundle)
    assert edited.read_text(encoding="utf-8") == "mine"


def test_a_variable_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'catalog'"):
        bundle_files(card_fraud(), {"catalogue": "main"})


def test_what_it_costs_is_hours_by_a_price_and_tokens(files: dict[str, bytes]) -> None:
    jobs = {name: Job.from_dict(each).as_dict() for name, each in resources(files, "jobs")["jobs"].items()}
    costs = job_costs({name: dict(each) for name, each in jobs.items()}, 0.5)
    by_job = {each.job: each for each in costs}
    assert by_job["agent"].usd == 360.0
    assert by_job["reconcile"].hours == 180.0
    assert by_job["replay"].usd == 0.0
    priced = card_fraud().llm.model_copy(
        update={"prices": {"gpt-4o-mini": TokenPrice(input=1.0, output=2.0)}}
    )
    tokens = first_estimate(agent(llm=priced), 100.0, 0.5)
    assert tokens.llm_usd_per_day > 0
    assert month_usd(costs, tokens) == pytest.approx(
        sum(each.usd for each in costs) + 30 * tokens.llm_usd_per_day
    )
