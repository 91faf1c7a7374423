"""A secured Kafka: the whole pipeline under each login with the least rights, and no secret anywhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from schemas.spec import load_spec
from streaming.home.settings import Settings
from streaming.kafka.broker import ensure_topic
from streaming.kafka.grants import Grant, grants_of
from streaming.testing.streams import Stream, stored, write_spec
from tests.secured_broker import CERTIFIED, PASSWORD, USER, SecuredBroker, allow, jaas, secured_broker

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("secured")]
CANARY = PASSWORD.partition('"')[0]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SecuredBroker, str]]:
    folder = tmp_path_factory.mktemp("secured")
    jars = Settings.load(folder, os.environ).jars_broker
    with secured_broker(folder / "broker", jars) as found:
        yield found


class Agent:
    """An agent on a secured broker, run by the command that a user runs."""

    def __init__(self, folder: Path, name: str, secured: tuple[SecuredBroker, str], login: str) -> None:
        self.broker, self.admin, self.name = *secured, name
        self.home = folder / "home"
        self.spec_file = write_spec(folder, self.topic, name=name, labels=self.topic("labels"))
        self.spec = load_spec(self.spec_file)
        events, alerts = self.spec.data_sources.transactions.topic, self.spec.alerts.topic
        for topic in (events, alerts, self.topic("labels")):
            ensure_topic(self.admin, topic, 1)
        self.principal = CERTIFIED if login == "MTLS" else USER
        self.stream = Stream(self.admin, events)

    def topic(self, kind: str) -> str:
        return f"{self.name}-{kind}"

    def command(self, properties: Path, jaas_line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "FLAGSTREAM_KAFKA_CONFIG": str(properties), "KAFKA_JAAS": jaas_line}
        main = "from streaming.cli.root import main; main()"
        command = [sys.executable, "-c", main, *arguments, "--home", str(self.home)]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
        )
        seen = list[str]()
        while child.poll() is None:
            seen += [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
            try:
                child.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        said = child.communicate()[0]
        assert CANARY not in said
        assert not any(CANARY in each for each in seen)
        return subprocess.CompletedProcess(command, child.returncode, said, "")


@pytest.mark.parametrize("login", ["SCRAM", "PLAIN", "MTLS", "OAUTH", "OIDC"])
def test_the_pipeline_runs_with_the_least_rights(
    secured: tuple[SecuredBroker, str], tmp_path: Path, login: str
) -> None:
    agent = Agent(tmp_path, f"agent-{login.lower()}", secured, login)
    allow(agent.admin, agent.principal, grants_of(agent.spec))
    properties, line = agent.broker.client_properties(login), jaas(login)
    for _ in range(2):
        agent.stream.send(300)
        done = agent.command(properties, line, "run", "--spec", str(agent.spec_file), "--until-idle")
        assert done.returncode == 0, done.stdout
    lake = agent.home / "lake" / agent.spec.name
    ids = stored(lake, "transactions", "sequence")["transaction_id"].to_pylist()
    assert Counter(ids) == Counter(agent.stream.sent_ids)
    done = agent.command(properties, line, "reconcile", "--spec", str(agent.spec_file))
    assert done.returncode == 0, done.stdout
    written = [each for each in agent.home.rglob("*") if each.is_file()]
    assert not [each for each in written if CANARY.encode() in each.read_bytes()]


def test_a_wrong_password_is_said_at_once_and_without_it(
    secured: tuple[SecuredBroker, str], tmp_path: Path
) -> None:
    agent = Agent(tmp_path, "agent-wrong", secured, "SCRAM")
    properties = agent.broker.client_properties("SCRAM")
    line = jaas("SCRAM", f"{CANARY}-but-wrong")
    done = agent.command(properties, line, "doctor")
    assert "uthentication" in done.stdout, done.stdout
    done = agent.command(properties, line, "run", "--spec", str(agent.spec_file), "--until-idle")
    assert done.returncode != 0
    assert "uthentication" in done.stdout, done.stdout


def test_a_certificate_that_nobody_knows_is_refused(
    secured: tuple[SecuredBroker, str], tmp_path: Path
) -> None:
    agent = Agent(tmp_path, "agent-stranger", secured, "SCRAM")
    empty = {"ssl.truststore.location": None, "ssl.truststore.type": None}
    properties = agent.broker.client_properties("SCRAM", **empty)
    done = agent.command(properties, jaas("SCRAM"), "doctor")
    assert done.returncode != 0
    assert "certificate" in done.stdout, done.stdout


def granted_by(command: str) -> Grant:
    """What a printed command grants."""
    words = shlex.split(command)
    options = list(pairwise(words))
    operations = tuple(value for name, value in options if name == "--operation")
    (kind,) = {name[2:] for name in words} & {"topic", "group", "transactional-id"}
    name = dict(options)[f"--{kind}"]
    return Grant(kind, name, "prefixed" in words, operations, "")  # type: ignore[arg-type]  # one of the three


def plain(grants: list[Grant]) -> set[tuple[object, ...]]:
    return {(each.resource, each.name, each.prefixed, each.operations) for each in grants}


def test_each_right_that_is_missing_is_named_with_the_command_that_grants_it(
    secured: tuple[SecuredBroker, str], tmp_path: Path
) -> None:
    agent = Agent(tmp_path, "agent-bare", secured, "PLAIN")
    properties, line = agent.broker.client_properties("PLAIN"), jaas("PLAIN")
    arguments = ("--spec", str(agent.spec_file))
    agent.stream.send(100)
    needed = grants_of(agent.spec)
    granted: list[Grant] = []
    while True:
        done = agent.command(properties, line, "run", *arguments, "--until-idle")
        if done.returncode == 0:
            break
        assert done.returncode == 2, done.stdout
        (command,) = re.findall(r"`(kafka-acls [^`]+)`", done.stdout)
        assert f"--allow-principal User:{USER} " in command
        granted.append(granted_by(command))
        assert plain(granted) <= plain(needed), command
        assert len(granted) <= len(needed), granted
        allow(agent.admin, agent.principal, granted[-1:])
    assert plain(granted) >= {each for each in plain(needed) if each[1] != "flagstream-"}
    allow(agent.admin, agent.principal, needed)
    done = agent.command(properties, line, "reconcile", *arguments)
    assert done.returncode == 0, done.stdout


def test_doctor_names_the_rights_that_an_agent_lacks(
    secured: tuple[SecuredBroker, str], tmp_path: Path
) -> None:
    agent = Agent(tmp_path, "agent-patient", secured, "PLAIN")
    properties, line = agent.broker.client_properties("PLAIN"), jaas("PLAIN")
    needed = [each for each in grants_of(agent.spec) if each.resource != "transactional-id"]
    for lacking in needed:
        if lacking.name != "flagstream-":
            done = agent.command(properties, line, "doctor", "--spec", str(agent.spec_file), "--json")
            (found,) = (each for each in json.loads(done.stdout) if each["name"] == "Kafka rights")
            assert not found["ok"]
            named = [granted_by(each) for each in re.findall(r"`(kafka-acls [^`]+)`", found["advice"])]
            assert plain([lacking]) <= plain(named)
        allow(agent.admin, agent.principal, [lacking])
    done = agent.command(properties, line, "doctor", "--spec", str(agent.spec_file), "--json")
    (found,) = (each for each in json.loads(done.stdout) if each["name"] == "Kafka rights")
    assert found["ok"], found
