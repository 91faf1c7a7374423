"""A secured Kafka: the whole pipeline under each login with the least rights, and no secret anywhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from schemas.spec import load_spec
from streaming.delta.maintenance import tables_below
from streaming.delta.whole_tables import read_stored
from streaming.home.settings import Settings
from streaming.kafka.grants import Grant, grants_of
from streaming.kafka.topic_admin import ensure_topic
from streaming.store.place import Place
from streaming.testing.drivers import Child
from streaming.testing.streams import Stream, stored, write_spec
from tests.secured_broker import (
    CERTIFIED,
    PASSWORD,
    PLAIN_PASSWORD,
    STORE_PASSWORD,
    USER,
    SecuredBroker,
    allow,
    jaas,
    secured_broker,
)

pytestmark = pytest.mark.timeout(600)
CANARY = PASSWORD.partition('"')[0]
# Of a batch of records: where its length and its attributes lie, the bit of transactions' own marks, codecs.
_LENGTH, _ATTRIBUTES, _CONTROL = 8, 21, 0x20
GZIP, LZ4 = 1, 3


def test_the_canary_is_in_every_secret() -> None:
    assert all(CANARY in each for each in (PASSWORD, PLAIN_PASSWORD, STORE_PASSWORD))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SecuredBroker, str]]:
    folder = tmp_path_factory.mktemp("secured")
    jars = Settings.load(folder, os.environ).jars_broker
    with secured_broker(folder / "broker", jars) as found:
        yield found


class Agent:
    """An agent on a secured broker, run by the command that a user runs."""

    def __init__(
        self, folder: Path, name: str, secured: tuple[SecuredBroker, str], login: str, **changes: object
    ) -> None:
        self.broker, self.admin, self.name = *secured, name
        self.home = folder / "home"
        self.spec_file = write_spec(folder, self.topic, name=name, labels=self.topic("labels"), **changes)
        self.spec = load_spec(self.spec_file)
        events, alerts = self.spec.data_sources.transactions.topic, self.spec.alerts.topic
        for topic in (events, alerts, self.topic("labels")):
            ensure_topic(self.admin, topic, 1)
        self.principal = CERTIFIED if login == "MTLS" else USER
        self.stream = Stream(self.admin, events)

    def topic(self, kind: str) -> str:
        return f"{self.name}-{kind}"

    def command(
        self, properties: Path | None, jaas_line: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end by a client.properties, None for the one that the spec names."""
        environ = {**os.environ, "KAFKA_JAAS": jaas_line}
        if properties is not None:
            environ["FLAGSTREAM_KAFKA_CONFIG"] = str(properties)
        main = "from streaming.cli.root import main; main()"
        command = [sys.executable, "-c", main, *arguments, "--home", str(self.home)]
        child = Child(command, env=environ)
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


@pytest.mark.parametrize("login", ["SCRAM", "PLAIN", "MTLS", "OAUTH", "OIDC", "OIDC-over-https"])
def test_the_pipeline_runs_with_the_least_rights(
    secured: tuple[SecuredBroker, str], tmp_path: Path, login: str
) -> None:
    login, _, over_https = login.partition("-")
    named = named_by_the_spec(tmp_path, secured[0]) if login == "PLAIN" else {}
    agent = Agent(tmp_path, f"agent-{login.lower()}{over_https}", secured, login, **named)
    allow(agent.admin, agent.principal, grants_of(agent.spec))
    properties, line = agent.broker.client_properties(login), jaas(login)
    if over_https:
        known = {"sasl.oauthbearer.token.endpoint.url": agent.broker.issuer.tls_token_url}
        properties, line = (
            agent.broker.client_properties(login, **known),
            jaas(login, more=of_an_authority(agent)),
        )
    for way in (properties, *other_ways(agent.broker, login, properties)):
        agent.stream.send(300)
        done = agent.command(way, line, "run", "--spec", str(agent.spec_file), "--until-idle")
        assert done.returncode == 0, done.stdout
    lake = agent.home / "lake" / agent.spec.name
    ids = stored(Place.local(lake), "transactions", "sequence")["transaction_id"].to_pylist()
    assert Counter(ids) == Counter(agent.stream.sent_ids)
    done = agent.command(way, line, "reconcile", "--spec", str(agent.spec_file))
    assert done.returncode == 0, done.stdout
    if login == "SCRAM":
        ask_about(agent, way, line)
    if login == "PLAIN":
        assert codecs_of(agent) == {LZ4, GZIP}
    written = [each for each in agent.home.rglob("*") if each.is_file()]
    assert not [each for each in written if CANARY.encode() in each.read_bytes()]
    assert not [name for name, rows in rows_as_text(lake).items() if CANARY in rows]


def other_ways(broker: SecuredBroker, login: str, first: Path) -> list[Path | None]:
    """Return by which files later runs reach the same listener, None for the one that the spec names."""
    if login == "SCRAM":
        return [broker.librdkafka_properties(login)]
    if login == "PLAIN":
        return [None]
    if login == "MTLS":
        return [by_pkcs12(broker), broker.librdkafka_properties(login)]
    return [first]


def by_pkcs12(broker: SecuredBroker) -> Path:
    """Write a client.properties with both stores of type PKCS12, and their password in a file."""
    known = dict[str, str]()
    for kind, name in {"keystore": "client.p12", "truststore": "ca.p12"}.items():
        known[f"ssl.{kind}.type"] = "PKCS12"
        known[f"ssl.{kind}.location"] = f"{broker.certificates}/{name}"
        known[f"ssl.{kind}.password"] = broker.place_of(STORE_PASSWORD, "stores", "\n")
    return broker.client_properties("MTLS", file="pkcs12.properties", **known)


def named_by_the_spec(folder: Path, broker: SecuredBroker) -> dict[str, object]:
    """Write a connection and a policy into the folder of a spec, and return how the spec names them."""
    written = broker.client_properties("PLAIN", **{"compression.type": "gzip"})
    (folder / "kafka.properties").write_text(written.read_text(encoding="utf-8"), encoding="utf-8")
    bound = {"secret": "env:KAFKA_JAAS", "to": [f"localhost:{broker.ports['PLAIN']}"]}
    policy = {"policyName": "ours", "kafkaSecrets": [bound]}
    (folder / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    return {"kafka": "kafka.properties", "policy": "./policy.json"}


def ask_about(agent: Agent, properties: Path | None, line: str) -> None:
    """Run what shows an agent's state; each `command` looks for secrets in what it says."""
    lake = Place.local(agent.home / "lake" / agent.spec.name)
    alert = stored(lake, "alerts", "outbox_seq")["alert_id"][0].as_py()
    questions = [("status",), ("alerts", "--json"), ("audit", "show", "--json"), ("explain", alert)]
    for question in questions:
        done = agent.command(properties, line, *question, "--spec", str(agent.spec_file))
        assert done.returncode == 0, done.stdout
        assert done.stdout.strip(), question


def rows_as_text(lake: Path) -> dict[str, str]:
    """Return the rows of each table, which lie compressed in their files."""
    tables = {each.name: read_stored(each) for each in tables_below(Place.local(lake))}
    found = {name: str(rows.to_pylist()) for name, rows in tables.items() if rows is not None}
    assert found["audit"].count("{") > 1
    assert "-events" in found["batches"], "a name that is there has to be found"
    return found


def codecs_of(agent: Agent) -> set[int]:
    """Return by which codecs the batches of the alerts topic are compressed, in the broker's own files."""
    found, topic = set[int](), agent.spec.alerts.topic
    for segment in agent.broker.folder.rglob(f"{topic}-0/*.log"):
        left = segment.read_bytes()
        while len(left) > _ATTRIBUTES + 2:
            (attributes,) = struct.unpack_from(">h", left, _ATTRIBUTES)
            if not attributes & _CONTROL:
                found.add(attributes & 7)
            left = left[_LENGTH + 4 + struct.unpack_from(">i", left, _LENGTH)[0] :]
    return found


def of_an_authority(agent: Agent) -> str:
    """Return how a login names the authority of the issuer, which is in no store of the machine."""
    store = agent.broker.certificates / "ca.pem"
    return f' ssl.truststore.type="PEM" ssl.truststore.location="{store}"'


def test_an_issuer_of_an_unknown_authority_is_refused_before_anything_is_read(
    secured: tuple[SecuredBroker, str], tmp_path: Path
) -> None:
    agent = Agent(tmp_path, "agent-untrusting", secured, "OIDC")
    known = {"sasl.oauthbearer.token.endpoint.url": agent.broker.issuer.tls_token_url}
    properties = agent.broker.client_properties("OIDC", **known)
    done = agent.command(properties, jaas("OIDC"), "doctor")
    assert done.returncode != 0
    assert "certificate" in done.stdout.lower(), done.stdout


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
