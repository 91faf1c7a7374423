"""The compose file: what its own schema says, and what README promises of it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.spec import load_spec
from streaming.commands.reference import commands_of
from streaming.home.settings import Settings
from tests.deployment import (
    COMPOSE,
    DOCKER,
    KUBERNETES,
    ROOT,
    SCHEMAS,
    agent_container,
    agent_pod,
    compose,
    documents,
    project_version,
    services,
)
from tests.unit.test_docs import PROGRAM, parse

SCHEMA = json.loads((SCHEMAS / "compose-spec.json").read_text(encoding="utf-8"))
BESIDE = ("serve", "notify")
OURS = ("agent", *BESIDE, "payments")
_SECRET = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|LOGIN")
_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")
_LEFT_EMPTY = re.compile(r"\$\{\w+:\?[^}]*\}")


def resolved(text: str) -> str:
    """A value as compose takes it where a variable with a default is not set."""
    return _DEFAULT.sub(lambda found: found[2], text)


def variables(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def test_it_is_what_the_specification_of_compose_says() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert [each.message for each in Draft202012Validator(SCHEMA).iter_errors(compose())] == []


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [("agent", "comand", []), ("kafka", "ports", 9092), ("grafana", "image", ["x"])],
)
def test_what_the_specification_does_not_know_is_found(service: str, key: str, value: object) -> None:
    content = compose()
    content["services"][service][key] = value
    assert list(Draft202012Validator(SCHEMA).iter_errors(content)) != []


def test_every_image_of_others_is_pinned_by_its_digest_and_is_the_same_everywhere() -> None:
    images = {name: each["image"] for name, each in services().items()}
    others = {name: image for name, image in images.items() if name not in OURS}
    assert set(others) == {"kafka", "topics", "store", "prometheus", "grafana"}
    for image in others.values():
        assert re.fullmatch(r"[\w./-]+:v?[\d.]+@sha256:[0-9a-f]{64}", image), image
    manifests = "\n".join(file.read_text(encoding="utf-8") for file in KUBERNETES.rglob("*.yaml"))
    named = set(re.findall(r"image: (\S+)", manifests))
    assert named == {"flagstream", others["kafka"]}
    assert resolved(images["agent"]) == resolved(images["payments"]) == f"flagstream:{project_version()}"


def test_the_store_is_the_one_that_tests_run_and_the_agent_has_its_key() -> None:
    store, agent = services()["store"], variables(services()["agent"])
    pinned = (ROOT / "streaming" / "testing" / "servers" / "versitygw" / "go.mod").read_text(encoding="utf-8")
    (version,) = re.findall(r"github\.com/versity/versitygw (v[\d.]+)", pinned)
    assert store["image"].startswith(f"versity/versitygw:{version}@")
    login = {"ROOT_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID", "ROOT_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY"}
    assert variables(store) == {name: agent[ours] for name, ours in login.items()}
    (port,) = re.findall(r"--port :(\d+)", store["entrypoint"][-1])
    assert agent["AWS_ENDPOINT_URL"] == f"http://store:{port}"
    (bucket,) = re.findall(r"mkdir -p /data/(\w+)", store["entrypoint"][-1])
    assert agent["FLAGSTREAM_STORE"].startswith(f"s3://{bucket}/")


def test_all_of_it_listens_on_this_machine_alone() -> None:
    ports = [port for each in services().values() for port in each.get("ports", [])]
    assert len(ports) >= 4
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_no_key_stands_in_it_and_each_is_demanded() -> None:
    given = [pair for each in services().values() for pair in variables(each).items()]
    secret = {name: value for name, value in given if _SECRET.search(name)}
    assert {"AWS_SECRET_ACCESS_KEY", "FLAGSTREAM_AUDIT_KEY", "GF_SECURITY_ADMIN_PASSWORD"} <= secret.keys()
    assert all(_LEFT_EMPTY.fullmatch(value) for value in secret.values())


def test_the_script_makes_every_key_once_for_its_owner_alone(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_bytes((DOCKER / "secrets.sh").read_bytes())
    for _ in range(2):
        subprocess.run(["sh", str(script)], check=True, capture_output=True, cwd="/")
    made = tmp_path / ".env"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    first = made.read_text(encoding="utf-8")
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    assert made.read_text(encoding="utf-8") == first
    pairs = dict(line.split("=", 1) for line in first.splitlines() if "=" in line and line[0] != "#")
    demanded = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text(encoding="utf-8")))
    assert demanded == pairs.keys()
    assert len(set(pairs.values())) == len(pairs)
    assert Settings.load(tmp_path, {"FLAGSTREAM_AUDIT_KEY": pairs["FLAGSTREAM_AUDIT_KEY"]}).audit_key


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_keys_that_came_since_are_added_and_those_that_are_there_stay(tmp_path: Path, end: str) -> None:
    script, env = tmp_path / "secrets.sh", tmp_path / ".env"
    script.write_bytes((DOCKER / "secrets.sh").read_bytes())
    lines = ["# mine", "AWS_ACCESS_KEY_ID=mine", "FLAGSTREAM_AUDIT_KEY=", "MORE=a b $c"]
    env.write_text("\n".join(lines) + end, encoding="utf-8")
    env.chmod(0o600)
    said = subprocess.run(["sh", str(script)], check=True, capture_output=True, text=True).stdout
    after = env.read_text(encoding="utf-8").splitlines()
    assert after[:4] == lines
    pairs = dict(line.split("=", 1) for line in after if "=" in line)
    demanded = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text(encoding="utf-8")))
    assert demanded == pairs.keys() - {"MORE"}
    assert pairs["AWS_ACCESS_KEY_ID"] == "mine"
    assert all(pairs.values()), "the last line of a name counts"
    assert "FLAGSTREAM_PSEUDONYM_KEY" in said and pairs["FLAGSTREAM_PSEUDONYM_KEY"] not in said
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.name == ".env.new"] == []


@pytest.mark.parametrize("name", OURS)
def test_ours_are_confined(name: str) -> None:
    service = services()[name]
    assert (service["read_only"], service["user"], service["cap_drop"]) == (True, "10001:10001", ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(each.endswith(":/state") for each in service["volumes"])
    (scratch,) = service["tmpfs"]
    assert "exec" in scratch.partition(":")[2].split(","), "Java loads libraries from there"


@pytest.mark.parametrize("name", OURS)
def test_their_commands_and_variables_are_ours(name: str) -> None:
    service = services()[name]
    parse([resolved(word) for word in service["command"]])
    ours = {key: value for key, value in variables(service).items() if key.startswith("FLAGSTREAM_")}
    Settings.load(Path("/state"), {key: _LEFT_EMPTY.sub("k" * 40, value) for key, value in ours.items()})
    assert commands_of(PROGRAM)


def test_the_agent_reads_what_is_sent_and_ends_as_it_does_in_kubernetes() -> None:
    agent, payments, topics = (services()[name] for name in ("agent", "payments", "topics"))
    assert "card-fraud" in [resolved(word) for word in agent["command"]]
    read = load_spec(ROOT / "agent" / "specs" / "card-fraud.yaml").data_sources.transactions.topic
    assert f"--topic={read}" in topics["command"]
    assert read in payments["command"]
    grace = agent_pod()["terminationGracePeriodSeconds"]
    assert agent["stop_grace_period"] == f"{grace // 60}m"
    assert agent_container()["securityContext"]["readOnlyRootFilesystem"] is agent["read_only"]


@pytest.mark.parametrize("name", BESIDE)
def test_what_runs_beside_the_agent_reads_its_lake_by_its_spec(name: str) -> None:
    agent, beside = services()["agent"], services()[name]
    assert variables(beside) == variables(agent)
    assert set(beside["volumes"]) == set(agent["volumes"])
    spec = agent["command"][agent["command"].index("--spec") + 1]
    assert beside["command"][beside["command"].index("--spec") + 1] == spec


def test_only_deliveries_get_what_their_routes_need_and_only_where_they_are_asked_for() -> None:
    files = {name: [each["path"] for each in services()[name].get("env_file", [])] for name in OURS}
    assert files == {"agent": ["model.env"], "serve": [], "notify": ["routes.env"], "payments": []}
    assert [name for name, each in services().items() if "profiles" in each] == ["notify"]
    assert "*.env" in (DOCKER / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_what_services_wait_for_and_mount_is_there() -> None:
    content = compose()
    for service in services().values():
        for name, how in service.get("depends_on", {}).items():
            assert name in services()
            assert how["condition"] != "service_healthy" or "healthcheck" in services()[name]
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in content["volumes"]


def test_prometheus_scrapes_the_agent_by_the_rules_and_grafana_shows_it() -> None:
    settings = next(documents(DOCKER / "prometheus" / "compose.yml"))
    jobs = {each["job_name"]: each for each in settings["scrape_configs"]}
    port = services()["agent"]["ports"][0].rpartition(":")[2]
    assert jobs["flagstream"]["static_configs"][0]["targets"] == [f"agent:{port}"]
    assert jobs["flagstream-serve"]["static_configs"][0]["targets"] == [f"serve:{port}"]
    (found,) = jobs["flagstream-notify"]["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["notify"], int(port)), "missed where its profile is up alone"
    rules = (DOCKER / "prometheus" / "flagstream-rules.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'job="([^"]+)"', rules)) == jobs.keys()
    for pattern in settings["rule_files"]:
        assert list((DOCKER / "prometheus").glob(Path(pattern).name))
    (source,) = next(documents(DOCKER / "grafana/provisioning/datasources/prometheus.yaml"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = next(documents(DOCKER / "grafana/provisioning/dashboards/flagstream.yaml"))["providers"]
    mounts = dict(mount.split(":")[:2][::-1] for mount in services()["grafana"]["volumes"])
    assert list((DOCKER / mounts[provider["options"]["path"]]).glob("*.json"))


@pytest.mark.skipif(
    not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists(),
    reason="no Docker engine to ask",
)
def test_compose_itself_takes_it(tmp_path: Path) -> None:
    keys = tmp_path / "env"
    demanded = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text(encoding="utf-8")))
    keys.write_text("".join(f"{name}=x\n" for name in demanded), encoding="utf-8")
    command = ["docker", "compose", "--env-file", str(keys), "--file", str(COMPOSE), "config", "--quiet"]
    subprocess.run(command, check=True, capture_output=True)
