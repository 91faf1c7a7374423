"""Image, compose file and manifests before the tools and schemas of those who will read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from streaming.setup.sbom import main as write_bill
from tests.deployment import COMPOSE, DOCKER, DOCKERFILE, OVERLAYS, Manifest

pytestmark = pytest.mark.timeout(900)
HERE = Path(__file__).parent
# Kinds of the Prometheus operator, whose schemas tests/unit/deployment has.
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
KUBERNETES = "1.37.0"


@dataclass(frozen=True)
class Tools:
    """Folder with the programs of an installation."""

    folder: Path

    def run(self, name: str, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one of them and return what it said."""
        return subprocess.run(
            [str(self.folder / name), *map(str, arguments)],
            env={**os.environ, **environ}, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def checkers(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """Linters and schemas, installed by pip as the packages themselves are."""
    folder = tmp_path_factory.mktemp("checkers")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    lock = HERE / "deployment.lock"
    command = [str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", str(lock)]
    subprocess.run(command, check=True, capture_output=True)
    return Tools(folder / "bin")


@pytest.fixture(scope="session")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """Kustomize and the reader of compose files, built from source as their modules are pinned."""
    if shutil.which("go") is None:
        pytest.fail("Kustomize is built by Go 1.24 or newer, and there is no `go`: install it")
    folder = tmp_path_factory.mktemp("builders")
    for package in ("sigs.k8s.io/kustomize/kustomize/v5", "flagstream/deployment_tools/compose"):
        command = ["go", "build", "-mod=readonly", "-o", f"{folder}/", package]
        subprocess.run(command, cwd=HERE / "deployment_tools", check=True, capture_output=True)
    (folder / "v5").rename(folder / "kustomize") if (folder / "v5").exists() else None
    return Tools(folder)


def test_the_linter_of_dockerfiles_has_nothing_to_say(checkers: Tools, tmp_path: Path) -> None:
    done = checkers.run("hadolint", "--failure-threshold", "style", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    worse = tmp_path / "Dockerfile"
    worse.write_text("FROM debian\nRUN cd /tmp && apt-get install curl\n", encoding="utf-8")
    assert {"DL3006", "DL3008"} <= set(re.findall(r"DL\d+", checkers.run("hadolint", worse).stdout))


@pytest.mark.parametrize("script", ["build-image.sh", "secrets.sh", "try-image.sh"])
def test_scripts_are_scripts(script: str) -> None:
    shell = (DOCKER / script).read_text(encoding="utf-8").splitlines()[0].rpartition("/")[2].split()[-1]
    subprocess.run([shell, "-n", str(DOCKER / script)], check=True)


def test_the_bill_of_materials_is_what_cyclonedx_says(checkers: Tools, tmp_path: Path) -> None:
    file = tmp_path / "sbom.cdx.json"
    write_bill(file)
    check = (
        "import sys; from cyclonedx.schema import SchemaVersion; "
        "from cyclonedx.validation.json import JsonStrictValidator as V; "
        "fault = V(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()); "
        "sys.exit(0 if fault is None else str(fault))"
    )
    done = checkers.run("python", "-c", check, file)
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text(encoding="utf-8"))
    content["components"][0]["kind"] = "unknown"
    file.write_text(json.dumps(content), encoding="utf-8")
    assert checkers.run("python", "-c", check, file).returncode != 0


def built(builders: Tools, overlay: Path) -> list[Manifest]:
    done = builders.run("kustomize", "build", overlay)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def references(content: Any) -> Iterator[tuple[str, str]]:
    """ConfigMaps and Secrets that something names."""
    if isinstance(content, list):
        for each in content:
            yield from references(each)
    elif isinstance(content, dict):
        for key, each in content.items():
            if key in ("configMapRef", "configMap", "configMapKeyRef") and "name" in each:
                yield "ConfigMap", each["name"]
            elif key in ("secretRef", "secret", "secretKeyRef"):
                yield "Secret", each.get("name") or each["secretName"]
            yield from references(each)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda each: each.name)
def test_an_overlay_is_what_kubernetes_takes(
    overlay: Path, builders: Tools, checkers: Tools, tmp_path: Path
) -> None:
    found = built(builders, overlay)
    kinds = [each["kind"] for each in found]
    assert kinds.count("StatefulSet") >= 1
    assert {"NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "ConfigMap", "Namespace"} <= set(kinds)
    (namespace,) = (each["metadata"]["name"] for each in found if each["kind"] == "Namespace")
    for each in found:
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == namespace, each["metadata"]
    core = tmp_path / "core.yaml"
    core.write_text(yaml.safe_dump_all([each for each in found if each["kind"] not in OPERATOR]), "utf-8")
    done = checkers.run("kubernetes-validate", "-k", KUBERNETES, "--strict", core)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = core.read_text(encoding="utf-8").replace(
        "terminationGracePeriodSeconds", "terminationGracePeriod"
    )
    core.write_text(wrong, encoding="utf-8")
    assert checkers.run("kubernetes-validate", "-k", KUBERNETES, "--strict", core).returncode != 0


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda each: each.name)
def test_what_an_overlay_names_it_makes_or_the_page_does(overlay: Path, builders: Tools) -> None:
    found = built(builders, overlay)
    made = {(each["kind"], each["metadata"]["name"]) for each in found}
    page = (DOCKER.parent / "docs" / "deploy-kubernetes.md").read_text(encoding="utf-8")
    for kind, name in set(references(found)):
        assert (kind, name) in made or (kind == "Secret" and f"secret generic {name} " in page), name
    (agent,) = (
        each for each in found if each["kind"] == "StatefulSet" and each["metadata"]["name"] == "flagstream"
    )
    containers = agent["spec"]["template"]["spec"]["containers"]
    assert containers[0]["name"] == "agent", "commands of the guide are about the first"
    assert all(re.fullmatch(r"flagstream:[\d.]+", each["image"]) for each in containers)
    beside = {"serve", "notify"} if overlay.name == "prod-desk" else set()
    assert {each["name"] for each in containers} == {"agent", *beside}
    mounted = {each["name"] for one in containers for each in one["volumeMounts"]}
    assert mounted == {each["name"] for each in agent["spec"]["template"]["spec"]["volumes"]} | {"state"}
    files = [{each["mountPath"] for each in one["volumeMounts"]} for one in containers]
    assert overlay.name == "dev" or all("/etc/flagstream/kafka" in each for each in files)


def test_production_demands_its_keys_and_mounts_its_volume_once(builders: Tools) -> None:
    for name in ("prod", "prod-s3"):
        (overlay,) = (each for each in OVERLAYS if each.name == name)
        found = built(builders, overlay)
        (agent,) = (each for each in found if each["kind"] == "StatefulSet")
        (container,) = agent["spec"]["template"]["spec"]["containers"]
        secrets = [each["secretRef"] for each in container["envFrom"] if "secretRef" in each]
        models = {"name": "flagstream-model-keys", "optional": True}  # an agent may ask none
        assert secrets == [{"name": "flagstream-keys"}, models]
        assert agent["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
        assert {"ServiceMonitor", "PrometheusRule"} <= {each["kind"] for each in found}
        (settings,) = (
            each["data"] for each in found if each["metadata"]["name"].startswith("flagstream-settings")
        )
        assert settings["FLAGSTREAM_METRICS"]
        assert settings["FLAGSTREAM_KAFKA_CONFIG"]
        assert ("FLAGSTREAM_STORE" in settings) is (name == "prod-s3")


def test_another_spec_replaces_the_pod_and_other_rules_do_not(builders: Tools, tmp_path: Path) -> None:
    shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns(".env"))
    base = tmp_path / "docker" / "kubernetes" / "base"

    def names() -> set[str]:
        return {each["metadata"]["name"] for each in built(builders, base) if each["kind"] == "ConfigMap"}

    before = names()
    rules = base / "agent" / "rules.yaml"
    rules.write_text(rules.read_text(encoding="utf-8").replace("10000", "5"), encoding="utf-8")
    assert names() == before
    spec = base / "agent" / "agent.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace("0.995", "0.999"), encoding="utf-8")
    assert len(names() - before) == 1


def test_compose_understands_its_file_and_demands_the_keys(builders: Tools, tmp_path: Path) -> None:
    shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns(".env"))
    file = tmp_path / "docker" / COMPOSE.name
    without = builders.run("compose", file)
    assert without.returncode != 0
    assert "docker/secrets.sh" in without.stderr
    subprocess.run(["sh", str(file.parent / "secrets.sh")], check=True, capture_output=True)
    done = builders.run("compose", file)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    agent = content["services"]["agent"]
    keys = dict(line.split("=") for line in (file.parent / ".env").read_text().splitlines() if "=" in line)
    assert agent["environment"]["FLAGSTREAM_AUDIT_KEY"] == keys["FLAGSTREAM_AUDIT_KEY"]
    assert agent["environment"]["AWS_SECRET_ACCESS_KEY"] == keys["AWS_SECRET_ACCESS_KEY"]
    store = content["services"]["store"]["environment"]
    assert store["ROOT_SECRET_ACCESS_KEY"] == keys["AWS_SECRET_ACCESS_KEY"]
    assert "GRAFANA_ADMIN_PASSWORD" not in agent["environment"]
    assert agent["read_only"] is True
    assert agent["stop_grace_period"] == "2m0s"
