"""The manifests: one agent, confined, with what its pod needs and no more.

tests/services builds them with kustomize and checks them against the schemas of Kubernetes.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from schemas.loading import load_document
from schemas.routes import Routes
from schemas.spec import load_spec
from streaming.definition.agent_definition import AgentDefinition
from streaming.drafting.agent_files import CONTRACT, POLICY, RULES, SPEC
from streaming.home.settings import Settings
from tests.deployment import (
    BASE,
    DOCKER,
    KUBERNETES,
    OVERLAYS,
    ROOT,
    SCHEMAS,
    Manifest,
    agent_container,
    agent_pod,
    documents,
    manifests,
    only,
    services,
)
from tests.unit.test_docs import parse

WORKLOADS = ("StatefulSet", "Deployment", "Job")
MONITORING = KUBERNETES / "components" / "monitoring"
BESIDE = ("notify", "serve")
OURS = {"app.kubernetes.io/name": "flagstream"}


def workloads() -> list[tuple[Path, Manifest]]:
    """Those that are whole: a patch has no labels of its own."""
    return [
        (file, each)
        for file, each in manifests()
        if each["kind"] in WORKLOADS and "labels" in each["spec"]["template"].get("metadata", {})
    ]


def pods() -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for _, each in workloads()]


def kustomizations() -> Iterator[tuple[Path, Manifest]]:
    for file in sorted(DOCKER.rglob("kustomization.yaml")):
        yield from ((file, each) for each in documents(file))


def test_there_is_something_to_check() -> None:
    assert len(workloads()) == 3
    assert {folder.name for folder in OVERLAYS} == {"dev", "prod", "prod-desk", "prod-s3"}


def test_what_kustomizations_name_is_there() -> None:
    for file, content in kustomizations():
        named = [*content.get("resources", []), *content.get("components", [])]
        named += [each["path"] for each in content.get("patches", [])]
        named += [one for each in content.get("configMapGenerator", []) for one in each.get("files", [])]
        assert named or content.get("configMapGenerator")
        for name in named:
            place = file.parent / name
            assert (place / "kustomization.yaml").is_file() if place.is_dir() else place.is_file(), name


def test_every_manifest_is_part_of_something() -> None:
    named = {
        (file.parent / name).resolve()
        for file, content in kustomizations()
        for name in [*content.get("resources", []), *(each["path"] for each in content.get("patches", []))]
    }
    left = {file for file, each in manifests() if file.name != "kustomization.yaml"} - named
    assert left == set()


def beside(name: str) -> dict[str, Any]:
    """The container of a component that stands beside the agent's."""
    patched = only("StatefulSet", KUBERNETES / "components" / name)["spec"]["template"]["spec"]
    agent, found = patched["containers"]
    assert agent == {"name": "agent"}, "it stays the first, and as it is"
    return dict(found)


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_agent_is_as_confined_and_has_probes_and_limits(name: str) -> None:
    container, agent = beside(name), agent_container()
    assert (container["name"], container["image"]) == (name, agent["image"])
    assert container["securityContext"] == agent["securityContext"]
    models = {"secretRef": {"name": "flagstream-model-keys", "optional": True}}
    assert [*container["envFrom"], models] == agent["envFrom"], "keys of models are the agent's alone"
    resources = container["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    parse(list(container["args"]))
    assert container["args"][container["args"].index("--spec") + 1] == "/etc/flagstream/agent/agent.yaml"
    written = {
        each["mountPath"]: each["name"] for each in container["volumeMounts"] if "readOnly" not in each
    }
    assert written == {"/state": "state", "/tmp": f"{name}-scratch"}
    for kind in ("startup", "liveness", "readiness"):
        probe, agents = (each[f"{kind}Probe"] for each in (container, agent))
        assert probe["httpGet"] == {"path": agents["httpGet"]["path"], "port": f"{name}-metrics"}


def test_ports_of_the_pod_are_each_of_one_process_and_each_is_served_scraped_and_let_in() -> None:
    containers = [agent_container(), *(beside(name) for name in BESIDE)]
    ports = [port for each in containers for port in each["ports"]]
    assert (
        len({port["containerPort"] for port in ports}) == len({port["name"] for port in ports}) == len(ports)
    )
    for name in BESIDE:
        served = {port["name"]: port["containerPort"] for port in beside(name)["ports"]}
        (variable,) = beside(name)["env"]
        at = f"0.0.0.0:{served[f'{name}-metrics']}"
        assert (variable["name"], variable["value"]) == ("FLAGSTREAM_METRICS", at)
        folder = KUBERNETES / "components" / name
        service = only("Service", folder)
        assert (service["metadata"]["name"], service["spec"]["selector"]) == (f"flagstream-{name}", OURS)
        assert service["metadata"]["labels"].items() >= OURS.items()
        assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == served
        scraped = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}["metrics"]
        assert scraped == f"{name}-metrics", "the ServiceMonitor looks for this name"
        rules = only("NetworkPolicy", folder)["spec"]["ingress"]
        assert {port["port"] for rule in rules for port in rule["ports"]} == served.keys()
        assert all(rule["from"] for rule in rules)


def test_the_api_is_reached_by_tls_and_the_secrets_of_routes_are_files() -> None:
    args = beside("serve")["args"]
    assert "--tls-certificate" in args and "--plain-http" not in args
    assert args[args.index("--listen") + 1].endswith(f":{beside('serve')['ports'][0]['containerPort']}")
    assert beside("notify")["volumeMounts"][-1]["name"] == "route-secrets"
    folder = beside("notify")["volumeMounts"][-1]["mountPath"]
    routes = load_document(KUBERNETES / "components" / "notify" / "agent" / "routes.yaml", Routes)
    places = [place for each in routes.routes if each.webhook for place in each.webhook.secrets]
    assert places
    assert all(place.startswith(f"${{file:{folder}/") for place in places)


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: str(pod["containers"][0]["name"]))
def test_every_pod_keeps_to_the_restricted_profile(pod: dict[str, Any]) -> None:
    """As https://kubernetes.io/docs/concepts/security/pod-security-standards/ says it."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(
        {"emptyDir", "projected", "configMap", "secret"} & each.keys() for each in pod.get("volumes", [])
    )
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")
        assert {"requests", "limits"} <= container["resources"].keys()
        assert container["image"] != "flagstream" or context["readOnlyRootFilesystem"] is True


def test_every_namespace_of_ours_enforces_it() -> None:
    found = [each for _, each in manifests() if each["kind"] == "Namespace"]
    assert len(found) == 2
    for each in found:
        assert each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_two_pods_cannot_easily_be() -> None:
    """One replica of a StatefulSet, whose volume is mounted once; nothing scales it."""
    agent = only("StatefulSet")["spec"]
    assert agent["replicas"] == 1
    (claim,) = agent["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    patch = only("StatefulSet", KUBERNETES / "overlays" / "prod")["spec"]
    assert patch["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert "replicas" not in patch
    assert not [each for _, each in manifests() if each["kind"] == "HorizontalPodAutoscaler"]
    assert agent["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_its_user_and_folders_are_the_image_s() -> None:
    image = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    security = agent_pod()["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in image
    mounts = {each["mountPath"]: each["name"] for each in agent_container()["volumeMounts"]}
    assert f"FLAGSTREAM_HOME={next(path for path, name in mounts.items() if name == 'state')} " in image
    held = {each["name"] for each in agent_pod()["volumes"]} | {"state"}
    assert set(mounts.values()) == held


def settings_literals() -> Iterator[tuple[Path, str]]:
    for file, content in kustomizations():
        for each in content.get("configMapGenerator", []):
            if each["name"] == "flagstream-settings":
                yield from ((file, literal) for literal in each["literals"])


def test_every_variable_is_a_setting(tmp_path: Path) -> None:
    pairs = [literal.split("=", 1) for _, literal in settings_literals()]
    pairs += [
        [variable["name"], variable["value"]]
        for pod in pods()
        for container in pod["containers"]
        if container["image"] == "flagstream"
        for variable in container.get("env", [])
    ]
    assert len(pairs) >= 6
    (tmp_path / "client.properties").write_text("security.protocol=SSL\n", encoding="utf-8")
    files = {"FLAGSTREAM_KAFKA_CONFIG": str(tmp_path / "client.properties"), "FLAGSTREAM_KAFKA": "kafka:9093"}
    for name, value in pairs:
        Settings.load(tmp_path, files if name in files else {name: value})
        assert name.startswith(("FLAGSTREAM_", "AWS_"))


def test_probes_and_services_ask_where_metrics_are_served() -> None:
    (served,) = {literal for _, literal in settings_literals() if literal.startswith("FLAGSTREAM_METRICS=")}
    (port,) = agent_container()["ports"]
    assert served == f"FLAGSTREAM_METRICS=0.0.0.0:{port['containerPort']}"
    probes = {
        name: agent_container()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {name: (each["path"], each["port"]) for name, each in probes.items()} == {
        "startup": ("/livez", port["name"]),
        "liveness": ("/livez", port["name"]),
        "readiness": ("/readyz", port["name"]),
    }
    (scraped,) = only("Service")["spec"]["ports"]
    assert (scraped["port"], scraped["targetPort"]) == (port["containerPort"], port["name"])
    (endpoint,) = only("ServiceMonitor", MONITORING)["spec"]["endpoints"]
    assert endpoint["port"] == scraped["name"]
    assert only("NetworkPolicy")["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["name"]}]


def test_all_that_selects_selects_the_agent() -> None:
    labels = only("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert labels == OURS
    selected = [
        only("StatefulSet")["spec"]["selector"]["matchLabels"],
        only("Service")["spec"]["selector"],
        only("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only("ServiceMonitor", MONITORING)["spec"]["selector"]["matchLabels"],
    ]
    assert selected == [OURS] * len(selected)
    assert only("Service")["metadata"]["labels"].items() >= OURS.items()


def test_jobs_have_the_names_that_the_rules_know_whatever_prefix_an_overlay_gives() -> None:
    by = only("ServiceMonitor", MONITORING)["spec"]["jobLabel"]
    places = [BASE, *(KUBERNETES / "components" / name for name in BESIDE)]
    jobs = {only("Service", place)["metadata"]["labels"][by] for place in places}
    rules = (DOCKER / "prometheus" / "flagstream-rules.yml").read_text("utf-8")
    assert jobs == set(re.findall(r'up\{job="([^"]+)"\}', rules))


def test_no_key_is_in_a_manifest_and_secrets_are_named_alone() -> None:
    assert not [file for file, each in manifests() if each["kind"] == "Secret"]
    assert not [file for file, content in kustomizations() if "secretGenerator" in content]
    named = set(
        re.findall(r"flagstream-(?:\w+-)?(?:keys|kafka)\b", (BASE / "statefulset.yaml").read_text("utf-8"))
    )
    assert named == {"flagstream-keys", "flagstream-model-keys"}


def test_the_network_is_closed_but_for_what_is_named() -> None:
    policy = only("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    anywhere = [each for each in policy["egress"] if "to" not in each]
    assert all(port["port"] >= 9092 for each in anywhere for port in each["ports"])
    blocks = [to["ipBlock"] for each in policy["egress"] for to in each.get("to", []) if "ipBlock" in to]
    assert any("169.254.0.0/16" in block["except"] for block in blocks)


def test_commands_of_the_pods_are_commands() -> None:
    for pod in pods():
        for container in pod["containers"]:
            if container["image"] == "flagstream":
                parse(list(container["args"]))


def test_the_agent_that_comes_along_can_be_deployed() -> None:
    spec = load_spec(BASE / "agent" / "agent.yaml")
    AgentDefinition.load(spec)
    named = agent_container()["args"]
    assert named[named.index("--spec") + 1] == "/etc/flagstream/agent/agent.yaml"
    (payments,) = (each for _, each in workloads() if each["metadata"]["name"] == "payments")
    assert (
        spec.data_sources.transactions.topic in payments["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    shown = next(each for each in agent_pod()["volumes"] if each["name"] == "agent")
    names = [each["configMap"]["name"] for each in shown["projected"]["sources"]]
    made = {each["name"]: each for each in only("Kustomization")["configMapGenerator"]}
    assert {Path(one).name for name in names for one in made[name]["files"]} == {
        "agent.yaml",
        "contract.yaml",
        "policy.yaml",
        "rules.yaml",
    }
    drafted = {CONTRACT, POLICY, RULES, SPEC}
    assert {each.name for each in (BASE / "agent").iterdir()} == drafted, "what `flagstream init` drafts"


def test_rules_change_under_a_running_agent_as_a_config_map_changes(tmp_path: Path) -> None:
    """The kubelet writes a folder beside, turns a link, and removes the folder before."""
    volume = tmp_path / "agent"
    volume.mkdir()

    def shown(number: int, rules: str) -> None:
        content = volume / f"..2026_{number}"
        content.mkdir()
        for name in ("agent.yaml", "contract.yaml", "policy.yaml"):
            (content / name).write_bytes((BASE / "agent" / name).read_bytes())
        (content / "rules.yaml").write_text(rules, encoding="utf-8")
        (volume / "..new").symlink_to(content.name)
        (volume / "..new").rename(volume / "..data")
        for name in ("agent.yaml", "contract.yaml", "policy.yaml", "rules.yaml"):
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"..data/{name}")

    rules = (BASE / "agent" / "rules.yaml").read_text(encoding="utf-8")
    shown(1, rules)
    spec = load_spec(volume / "agent.yaml")
    watch = AgentDefinition.load(spec).rule_watch(spec)
    watch.load()
    assert watch.changed() is None
    shown(2, rules.replace("10000", "777"))
    for left in (volume / "..2026_1").iterdir():
        left.unlink()
    (volume / "..2026_1").rmdir()
    changed = watch.changed()
    assert changed is not None
    assert [each.when for each in changed.rules] == ["amount > 777"]


def test_a_rolled_out_spec_is_another_map_and_rules_are_the_same_one() -> None:
    made = {each["name"]: each for each in only("Kustomization")["configMapGenerator"]}
    assert "options" not in made["flagstream-agent"]
    assert made["flagstream-rules"]["options"] == {"disableNameSuffixHash": True}


def test_the_operator_pages_by_the_very_rules_of_prometheus() -> None:
    groups = [
        group
        for file in sorted((DOCKER / "prometheus").glob("*rules.yml"))
        for group in next(documents(file)).get("groups", [])
    ]
    assert groups
    assert only("PrometheusRule", MONITORING)["spec"]["groups"] == groups, (
        "docker/prometheus_rule.py writes it"
    )


def test_every_dashboard_is_in_the_map_that_grafana_reads() -> None:
    (made,) = next(documents(DOCKER / "grafana" / "kustomization.yaml"))["configMapGenerator"]
    shown = {(DOCKER / "grafana" / each).resolve() for each in made["files"]}
    assert shown == {each.resolve() for each in (DOCKER / "grafana").rglob("*.json")} != set()
    assert made["options"]["labels"] == {"grafana_dashboard": "1"}


def crd(name: str) -> dict[str, Any]:
    """The schema of a kind of the Prometheus operator, without room for keys that it does not know."""
    (content,) = documents(SCHEMAS / f"monitoring.coreos.com_{name}.yaml")
    (served,) = content["spec"]["versions"]
    return dict(closed(served["schema"]["openAPIV3Schema"]))


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(each) for name, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.parametrize(
    ("kind", "name"), [("ServiceMonitor", "servicemonitors"), ("PrometheusRule", "prometheusrules")]
)
def test_what_the_operator_reads_is_what_it_knows(kind: str, name: str) -> None:
    schema = crd(name)
    schema["properties"]["metadata"] = {"type": "object"}
    validator = Draft202012Validator(schema)
    manifest = only(kind, MONITORING)
    assert [each.message for each in validator.iter_errors(manifest)] == []
    manifest["spec"]["intervall"] = "1m"
    assert list(validator.iter_errors(manifest)) != []


def test_a_pod_gets_the_time_that_a_batch_takes() -> None:
    """The longest batch waits for answers, and then as long again; the local model's are the slowest."""
    spec = load_spec(BASE / "agent" / "agent.yaml")
    grace = timedelta(seconds=agent_pod()["terminationGracePeriodSeconds"])
    assert grace >= 4 * spec.llm.deadline
    assert services()["agent"]["stop_grace_period"]


def test_what_is_asked_for_is_enough_for_an_agent() -> None:
    machines = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    least = int(re.search(r"\| memory \| (\d+) GiB \|", machines)[1])  # type: ignore[index]  # the page names it
    for _, each in manifests():
        if each["kind"] == "StatefulSet" and each["metadata"]["name"] == "flagstream":
            memory = each["spec"]["template"]["spec"]["containers"][0].get("resources")
            if memory is None:  # a patch that adds another container, or a file to read
                continue
            assert int(memory["limits"]["memory"].removesuffix("Gi")) >= least
            assert memory["limits"]["memory"] == memory["requests"]["memory"]


def test_manifests_are_yaml_without_anchors() -> None:
    """Anchors do not survive `kubectl apply` on one document of a file."""
    for file in KUBERNETES.rglob("*.yaml"):
        assert not [
            event
            for event in yaml.parse(file.read_text("utf-8"), yaml.CSafeLoader)
            if isinstance(event, yaml.AliasEvent)
        ]


GUIDE = (ROOT / "docs" / "deploy-kubernetes.md").read_text(encoding="utf-8")
_OF_A_NAMESPACE = re.compile(
    r"\b(exec|logs|rollout|scale|patch|get|delete pvc|create secret|apply --filename)\b"
)


def kubectl_lines() -> list[str]:
    spans = re.findall(r"`(kubectl [^`]+)`", GUIDE)
    blocks = re.findall(r"^ *(kubectl .+?)(?<!\\)$", GUIDE, re.MULTILINE)
    return [*spans, *blocks]


def test_commands_of_the_guide_name_their_namespace_and_the_agents_spec() -> None:
    assert len(kubectl_lines()) > 15
    for line in kubectl_lines():
        if _OF_A_NAMESPACE.search(line):
            assert line.startswith("kubectl --namespace flagstream"), line
        if "-- flagstream " in line:
            assert "--spec /etc/flagstream/agent/agent.yaml" in line, line
            parse(shlex.split(line.partition("-- flagstream ")[2]))


def test_the_pod_can_be_put_to_sleep_for_an_erasure() -> None:
    (patch,) = re.findall(r"--type json --patch '(\[.*?\])'", GUIDE, re.DOTALL)
    pod: Any = {"spec": {"template": {"spec": copy.deepcopy(agent_pod())}}}
    for step in json.loads(patch):
        *way, last = step["path"].strip("/").split("/")
        place = functools.reduce(lambda at, name: at[int(name) if isinstance(at, list) else name], way, pod)
        assert (last in place) == (step["op"] != "add"), step
        if step["op"] == "remove":
            del place[last]
        else:
            place[last] = step["value"]
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    assert container["command"] + container["args"] == ["tini", "--", "sleep", "infinity"]
    assert not [name for name in container if name.endswith("Probe")]


def test_the_sizes_are_those_of_the_bytes_that_a_payment_takes() -> None:
    measured = float(re.search(r"Volume: (\d+) bytes for each", GUIDE)[1])  # type: ignore[index]  # it is there
    rows = re.findall(r"^\| up to ([\d,]+) \| .* \| (\d+) (Gi|Ti)(?:, or a bucket)? \|$", GUIDE, re.MULTILINE)
    assert len(rows) == 3
    for rate, size, unit in rows:
        needed = int(rate.replace(",", "")) * 30 * 86_400 * measured * 1.5
        given = int(size) * {"Gi": 2**30, "Ti": 2**40}[unit]
        assert needed <= given <= 1.25 * needed, rate
    claim = only("StatefulSet", KUBERNETES / "overlays" / "prod")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["resources"]["requests"]["storage"] == f"{rows[0][1]}{rows[0][2]}"
