"""Checks the machine: what flagstream needs, what is there, and what to do about the difference."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from agent.model.local_llm import weights_file
from schemas.errors import ConfigurationError, MachineError, RetryableError
from schemas.llm import Llm
from schemas.spec import AgentSpec
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.brokers import properties_of
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings, find_java
from streaming.kafka.grants import principal_of
from streaming.kafka.presence import metadata_of
from streaming.kafka.rights import missing_grants
from streaming.setup.cluster import check_cluster, master_away
from streaming.setup.downloads import LOCK_FILE, check_jars, jar_paths, locked_jars
from streaming.setup.machine_checks import (
    CheckResult,
    check_cores,
    check_disk,
    check_home,
    check_java,
    check_memory,
    check_open_files,
    check_port,
    check_proxy,
    check_python,
    check_result,
    check_state,
)
from streaming.setup.machine_limits import machine_limits
from streaming.setup.process import nearest_existing, write_fault
from streaming.setup.spark_jvm import spark_archive
from streaming.store.place import Place
from streaming.store.store_check import StoreTrial, try_store

_ANSWER_SECONDS = 3.0
_REDIRECTS = range(300, 400)


def check_machine(settings: Settings, spec: AgentSpec | None = None) -> list[CheckResult]:
    """Check everything a run needs; no check stops the others.

    Takes about a second, plus up to three for each service that does not answer, and half a minute for an
    object store. Starts nothing, and writes nothing but objects of a scratch prefix of that store, which go
    where they may be removed.

    Args:
        settings: what a run would go by.
        spec: of an agent whose rights on Kafka, keys and cluster are checked, too.
    """
    limits = machine_limits()
    return [
        check_python(sys.version_info),
        check_java(find_java),
        check_cores(limits),
        check_arithmetic(),
        check_memory(limits),
        check_open_files(),
        check_port(),
        check_proxy(),
        check_state(settings.home),
        check_disk(settings.home, shutil.disk_usage(nearest_existing(settings.home)).free),
        check_home(settings.home),
        check_archive(settings),
        check_jar_folder(settings.jars_spark),
        check_jar_folder(settings.jars_broker),
        check_kafka(settings),
        *([] if spec is None else [check_rights(PlacedAgent(settings, spec))]),
        *([] if spec is None else check_execution(PlacedAgent(settings, spec))),
        check_llm(settings),
        *([] if settings.kept.is_local else [check_keys(settings, spec), check_store(settings.kept)]),
        *([] if settings.audit_anchor is None else [check_anchor(settings.audit_anchor, settings)]),
    ]


def check_arithmetic() -> CheckResult:
    """Which bits this machine computes; what each batch was computed on is in `flagstream status`."""
    return CheckResult("arithmetic", True, f"fingerprint {machine_fingerprint()}")


def check_jar_folder(folder: Path, lock: Path = LOCK_FILE) -> CheckResult:
    """Whether every pinned jar of a section lies in its folder, unchanged."""
    name = f"{folder.name} jars"
    try:
        paths = jar_paths(folder, lock=lock)
        check_jars(folder, locked_jars(folder.name, lock))
    except MachineError as fault:
        return CheckResult(name, False, str(fault), "run `make setup`")
    return CheckResult(name, True, f"{len(paths)} jars, checksums right")


def check_archive(settings: Settings) -> CheckResult:
    """Whether the classes are archived that a start loads; without them it takes longer."""
    missing = "no archive of classes for this JDK: starts take longer until `flagstream fetch` has made one"
    try:
        made = spark_archive(settings, jar_paths(settings.jars_spark)).is_there
    except (MachineError, OSError):
        made = False
    return CheckResult("start", True, "classes archived" if made else missing)


def check_kafka(settings: Settings) -> CheckResult:
    """Whether the Kafka that the settings choose can be had; a broker already running must answer."""
    if settings.kafka == "docker":
        return _check_docker()
    if settings.kafka != "embedded":
        return _check_bootstrap(settings.kafka)
    jars = check_jar_folder(settings.jars_broker)
    found = "embedded broker, started when needed" if jars.ok else jars.found
    return CheckResult("Kafka", jars.ok, found, jars.advice)


def check_rights(agent: PlacedAgent) -> CheckResult:
    """Whether this login has the rights that an agent needs on its topics and groups."""
    name = "Kafka rights"
    if ":" not in agent.settings.kafka:
        return CheckResult(name, True, "all, as the broker is ours")
    try:
        missing = missing_grants(agent.settings.kafka, agent.spec)
    except RetryableError as fault:
        return CheckResult(name, False, str(fault), "see to the broker first")
    principal = principal_of(agent.settings.kafka)
    lacking = "; ".join(f"may not {each.use}" for each in missing)
    advice = "; ".join(f"`{each.command(principal, agent.settings.kafka)}`" for each in missing)
    if missing:
        return CheckResult(name, False, lacking, advice)
    return CheckResult(name, True, f"those that {agent.name} needs on topics and groups")


def check_execution(agent: PlacedAgent) -> list[CheckResult]:
    """Whether a Spark cluster can do what an agent needs, and a master answers; nothing without a cluster."""
    name, settings = "Spark cluster", agent.settings
    if settings.cluster is None:
        return []
    try:
        check_cluster(AgentDefinition.of(agent.spec).contract, settings.kafka, settings.environ)
    except ConfigurationError as fault:
        return [CheckResult(name, False, fault.problem, "docs/cluster.md says what is refused, and why")]
    away, master = master_away(settings.cluster), settings.cluster.master
    advice = "start it, or correct cluster.master; a run waits for it"
    return [check_result(name, away is None, away or f"{master} answers", advice)]


def check_keys(settings: Settings, spec: AgentSpec | None) -> CheckResult:
    """Whether the keys are given that are made beside a lake in a folder, and never in a store."""
    wanted = {"FLAGSTREAM_AUDIT_KEY": settings.audit_key}
    if spec is not None and spec.llm.provider != "none":
        wanted["FLAGSTREAM_PSEUDONYM_KEY"] = settings.pseudonym_key
    missing = " and ".join(name for name, key in wanted.items() if key is None)
    found = f"not set: {missing}" if missing else f"{' and '.join(wanted)} set"
    advice = "set to what `openssl rand -hex 32` prints, once for all machines, and keep it"
    return check_result("keys", not missing, found, advice)


def check_store(place: Place) -> CheckResult:
    """Whether a store can do what a lake asks of it; where a permission is missing it is named."""
    return _of_trials("store", place, try_store(place))


def check_anchor(place: Place, settings: Settings) -> CheckResult:
    """Whether the audit log's anchor can lie where it is to lie, by the login that is its own."""
    name = "audit anchor"
    if not place.is_local:
        return _of_trials(name, place, try_store(place, settings.anchor_access, removes=False))
    fault = write_fault(place.path)
    found = str(place) if fault is None else f"{place}: {fault.strerror}"
    advice = f"let this user write {place}, or name another folder in FLAGSTREAM_AUDIT_ANCHOR"
    return check_result(name, fault is None, found, advice)


def _of_trials(name: str, place: Place, found: Sequence[StoreTrial]) -> CheckResult:
    wrong = [each for each in found if each.fault]
    if not wrong:
        return CheckResult(name, True, f"{place}: {', '.join(each.operation for each in found)}")
    needs = dict.fromkeys(each.needs for each in wrong if each.needs)
    said = "; ".join(f"{each.operation}: {each.fault}" for each in wrong)
    advice = f"grant {'; '.join(needs)}" if needs else "docs/stores.md says what a store must do"
    if needs and len(wrong) == len(found):
        advice = f"see whether this is the right login, to which nothing is permitted, or {advice}"
    return CheckResult(name, False, f"{place}: {said}", advice)


def check_llm(settings: Settings) -> CheckResult:
    """Whether the endpoint given answers, or else the local model's weights are installed."""
    if settings.llm_base_url is not None:
        return _check_endpoint(settings.llm_base_url)
    if settings.api_key(Llm().api_key_env) is not None:
        return CheckResult("LLM", True, f"a key in {Llm().api_key_env}: the provider's endpoint is asked")
    try:
        return CheckResult("LLM", True, f"local model {weights_file().name}")
    except MachineError as fault:
        return CheckResult("LLM", False, str(fault), "run `make setup`, or run with --llm none: rules alone")


def _check_bootstrap(bootstrap: str) -> CheckResult:
    try:
        brokers = len(metadata_of(bootstrap, _ANSWER_SECONDS, advice="").brokers)
    except RetryableError as fault:
        advice = (
            "start that Kafka, or unset FLAGSTREAM_KAFKA to use the embedded broker"
            if properties_of(bootstrap) is None
            else "check address, login and certificates in the client.properties that is named"
        )
        return CheckResult("Kafka", False, str(fault), advice)
    return CheckResult("Kafka", True, f"{bootstrap} answers, {brokers} broker(s)")


def _check_docker() -> CheckResult:
    if importlib.util.find_spec("testcontainers") is None:
        return CheckResult("Kafka", False, "testcontainers is not installed", "run `make setup`")
    try:
        version = _docker_version()
    except RetryableError as fault:
        advice = "start Docker, or unset FLAGSTREAM_KAFKA to use the embedded broker"
        return CheckResult("Kafka", False, f"no Docker engine answers: {fault}", advice)
    return CheckResult("Kafka", True, f"Docker {version} answers")


def _docker_version() -> str:
    from docker.client import DockerClient  # noqa: PLC0415 - an extra, absent from a plain installation
    from docker.constants import DEFAULT_DOCKER_API_VERSION  # noqa: PLC0415 - as above
    from docker.errors import DockerException  # noqa: PLC0415 - as above

    # Naming a version keeps the constructor from connecting: a failure there would leak its socket.
    client = DockerClient.from_env(version=DEFAULT_DOCKER_API_VERSION, timeout=int(_ANSWER_SECONDS))
    try:
        return str(client.version(api_version=False)["Version"])
    except (DockerException, OSError) as fault:
        raise RetryableError(str(fault)) from fault
    finally:
        client.close()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the answer, as the clients of a run do."""

    def redirect_request(self, *_: object) -> None:
        return None


def _check_endpoint(base_url: str) -> CheckResult:
    url = f"{base_url.rstrip('/')}/models"
    try:
        with urllib.request.build_opener(_NoRedirects).open(url, timeout=_ANSWER_SECONDS):
            pass
    except urllib.error.HTTPError as refusal:
        refusal.close()
        # Refusing a call without a key is an answer too.
        if refusal.code in _REDIRECTS:
            advice = "name the address it leads to: requests with a key follow no redirect"
            return CheckResult("LLM", False, f"{base_url} redirects ({refusal.code})", advice)
    except (OSError, ValueError) as fault:
        advice = "start it, correct FLAGSTREAM_LLM_BASE_URL, or unset it to use the local model"
        return CheckResult("LLM", False, f"{base_url} does not answer: {fault}", advice)
    return CheckResult("LLM", True, f"{base_url} answers")
