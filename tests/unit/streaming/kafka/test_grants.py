"""What an agent needs of a Kafka with access control: one list, whoever tells of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec
from streaming.cli.root import app
from streaming.home.brokers import Brokers
from streaming.home.client_properties import load_properties
from streaming.kafka.grants import (
    Grant,
    fixed_start,
    grants_of,
    principal_of,
    raise_if_unauthorized,
    to_publish,
    to_read,
)
from streaming.testing.streams import write_spec

DOC = Path(__file__).parents[4] / "docs" / "kafka.md"


def spec_with(folder: Path, **source: object) -> AgentSpec:
    sources = {"transactions": {"contract": "simulator", **source}, "labels": {"topic": "labels"}}
    return load_spec(write_spec(folder, lambda name: name, name="payments", data_sources=sources))


def resources(spec: AgentSpec) -> list[tuple[str, str, bool, tuple[str, ...]]]:
    return [(each.resource, each.name, each.prefixed, each.operations) for each in grants_of(spec)]


def test_the_page_lists_what_the_code_asks_for(tmp_path: Path) -> None:
    written = re.findall(
        r"^\| (.+) `([^`]+)` \| ([\w, ]+) \|$", DOC.read_text(encoding="utf-8"), re.MULTILINE
    )
    said = {
        ("topic", False): "topic",
        ("group", True): "groups that begin with",
        ("transactional-id", True): "transactional ids that begin with",
    }
    spec = spec_with(tmp_path, topic="transactions")
    assert written == [
        (said[kind, prefixed], name, ", ".join(operations))
        for kind, name, prefixed, operations in resources(spec)
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"topics": ["a", "b"]}, [("topic", "a", False), ("topic", "b", False)]),
        ({"topic_pattern": r"pay\..*"}, [("topic", "pay.", True)]),
        ({"topic_pattern": r"pay|cash"}, [("topic", "*", False)]),
    ],
)
def test_every_topic_of_a_stream_is_to_be_read(
    tmp_path: Path, source: dict[str, object], expected: list[tuple[str, str, bool]]
) -> None:
    found = [each[:3] for each in resources(spec_with(tmp_path, **source))]
    assert found[: len(expected)] == expected
    assert found[len(expected) : len(expected) + 2] == [
        ("topic", "labels", False),
        ("topic", "alerts", False),
    ]


@given(st.data(), st.sampled_from([r"pay\..*", r"pays?", r"a{0,2}b", r"x-[ab]+\.c", r"p*", r"p+q", r"a\.*"]))
def test_a_prefix_covers_whatever_matches(data: st.DataObject, pattern: str) -> None:
    name = data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    assert name.startswith(fixed_start(pattern))


def test_a_prefix_is_as_long_as_it_can_be() -> None:
    assert [fixed_start(each) for each in (r"pay\..*", "pays?", "x-[ab]+", ".*")] == ["pay.", "pay", "x-", ""]


def test_commands_survive_a_shell() -> None:
    grant = Grant("group", "flagstream-payments", True, ("Read",), "count")
    words = shlex.split(grant.command("User:CN=an agent, OU=it", "one:9092,two:9092"))
    assert words == [
        *("kafka-acls", "--bootstrap-server", "one:9092,two:9092", "--add"),
        *("--allow-principal", "User:CN=an agent, OU=it", "--operation", "Read"),
        *("--group", "flagstream-payments", "--resource-pattern-type", "prefixed"),
    ]
    wild = Grant("topic", "*", False, ("Read",), "read").command("User:x", "b:1")
    assert wild.endswith("--topic '*'")


@pytest.mark.parametrize(
    ("code", "grants", "named"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, to_read("events"), "--operation Read --topic events`"),
        (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            to_publish("alerts", "payments"),
            "--operation Read --operation Write --topic alerts`",
        ),
        (
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            to_publish("alerts", "payments"),
            "--operation Read --group flagstream-payments --resource-pattern-type prefixed`",
        ),
        (
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            to_publish("alerts", "payments"),
            "--operation Write --transactional-id flagstream-payments --resource-pattern-type prefixed`",
        ),
    ],
)
def test_a_refusal_names_the_command_that_grants_it(
    tmp_path: Path, code: int, grants: dict[int, Grant], named: str
) -> None:
    path = tmp_path / "client.properties"
    path.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n"
        "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required"
        ' username="agent-7" password="not-shown";\n'
    )
    brokers = Brokers("one:9092").reached_by(load_properties(path, {}))
    with pytest.raises(ConfigurationError) as raised:
        raise_if_unauthorized(KafkaException(KafkaError(code)), grants, brokers, "publishing to alerts")
    assert named in str(raised.value)
    assert "--bootstrap-server one:9092 --add --allow-principal User:agent-7 " in str(raised.value)
    assert principal_of("one:9092") == "User:PRINCIPAL"
    raise_if_unauthorized(KafkaException(KafkaError(KafkaError._TRANSPORT)), grants, brokers)
    raise_if_unauthorized(TimeoutError(), grants, brokers)


def test_the_command_prints_them_without_a_broker(tmp_path: Path) -> None:
    file = str(write_spec(tmp_path, lambda name: name, name="payments"))
    arguments = ["kafka", "acls", "--spec", file, "--home", str(tmp_path), "--principal"]
    done = CliRunner().invoke(app, [*arguments, "User:x"], catch_exceptions=False)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) == len(grants_of(load_spec(Path(file))))
    assert all(shlex.split(line)[0] == "kafka-acls" for line in lines)
    done = CliRunner().invoke(app, [*arguments, "User:x", "--json"], catch_exceptions=False)
    assert [each["command"] for each in json.loads(done.stdout)] == lines
    refused = CliRunner().invoke(app, [*arguments, "x"])
    assert isinstance(refused.exception, ConfigurationError)
