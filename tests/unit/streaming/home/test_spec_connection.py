"""A spec may name how its brokers are reached, and sends no secret where its policy does not say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent.triage.triage import POLICIES
from schemas.errors import ConfigurationError
from schemas.policy import Policy, load_policy
from schemas.spec import AgentSpec, load_spec
from streaming.cli.root import app
from streaming.home.brokers import connection, secret_names_of
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.home.spec_connection import settings_for

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
LOGIN = f'{SCRAM} required username="u" password="${{env:KAFKA_SECRET}}";'
SECURED = f"""bootstrap.servers=one.example.org:9093,two.example.org:9093
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config={LOGIN}
"""
BY_NAME = """metadata.broker.list=one.example.org:9093,two.example.org:9093
security.protocol=sasl_ssl
sasl.mechanisms=SCRAM-SHA-256
sasl.username=u
sasl.password=${env:KAFKA_SECRET}
"""
BOUND = [{"secret": "env:KAFKA_SECRET", "to": ["one.example.org:9093", "TWO.example.org:9093"]}]
ENVIRON = {"KAFKA_SECRET": "whispered-5", "OTHER": "whispered-6"}


def spec_beside(
    folder: Path, text: str, secrets: list[dict[str, Any]], name: str = "kafka.properties"
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "kafka.properties").write_text(text, encoding="utf-8")
    policy = {"policyName": "ours", "kafkaSecrets": secrets}
    (folder / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    spec = {
        "name": "payments",
        "version": "1.0.0",
        "data_sources": {"transactions": {"contract": "simulator", "topic": "events"}},
        "alerts": {"topic": "alerts"},
        "kafka": name,
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**spec, "policy": "./policy.json"}), encoding="utf-8")
    return path


def reached(spec: Path, **environ: str) -> Settings:
    settings = Settings.load(spec.parent / "home", {**ENVIRON, **environ})
    return settings_for(PlacedAgent(settings, load_spec(spec)), POLICIES)


@pytest.mark.parametrize("text", [SECURED, BY_NAME])
def test_a_spec_names_its_brokers_and_how_they_are_reached(tmp_path: Path, text: str) -> None:
    kafka = reached(spec_beside(tmp_path, text, BOUND)).kafka
    assert kafka == "one.example.org:9093,two.example.org:9093"
    assert connection(kafka)["sasl.password"] == "whispered-5"
    assert secret_names_of(kafka) == {"KAFKA_SECRET"}


def test_the_environment_goes_before_the_spec(tmp_path: Path) -> None:
    spec = spec_beside(tmp_path, SECURED, BOUND)
    assert reached(spec, FLAGSTREAM_KAFKA="embedded").kafka == "embedded"
    other = tmp_path / "other.properties"
    other.write_text("bootstrap.servers=three:9092", encoding="utf-8")
    assert reached(spec, FLAGSTREAM_KAFKA_CONFIG=str(other)).kafka == "three:9092"
    with pytest.raises(ConfigurationError, match="env:KAFKA_SECRET would go to four:9093"):
        reached(spec, FLAGSTREAM_KAFKA="four:9093")


def test_a_spec_that_names_none_is_as_before(tmp_path: Path) -> None:
    spec = load_spec(spec_beside(tmp_path, SECURED, BOUND))
    plain = spec.model_copy(update={"kafka": None})
    assert "kafka" not in plain.model_dump()
    assert "kafkaSecrets" not in load_policy("default", POLICIES).model_dump()
    assert Policy.model_validate(load_policy("default", POLICIES).model_dump()).digest
    settings = Settings.load(tmp_path / "home", {})
    assert settings_for(PlacedAgent(settings, plain), POLICIES) is settings
    assert AgentSpec.model_validate(plain.model_dump(mode="json")).digest == plain.digest


@pytest.mark.parametrize(
    ("text", "secrets", "said"),
    [
        (SECURED, [], "env:KAFKA_SECRET would go to one.example.org:9093, and policy ours does not say"),
        (SECURED, [{**BOUND[0], "to": ["one.example.org:9093"]}], "would go to two.example.org:9093"),
        (SECURED.replace("KAFKA_SECRET", "OTHER"), BOUND, "env:OTHER would go to"),
        (SECURED.replace("${env:KAFKA_SECRET}", "plain-1"), BOUND, "sasl.jaas.config: holds a secret"),
        (SECURED.replace("${env:KAFKA_SECRET}", "a${env:KAFKA_SECRET}"), BOUND, "holds a secret"),
        (SECURED + "ssl.keystore.type=PKCS12\nssl.keystore.password=plain-1\n", BOUND,
         "ssl.keystore.password: holds a secret"),
        (SECURED + "ssl.keystore.key=plain-1\nssl.keystore.certificate.chain=x\n", BOUND,
         "ssl.keystore.key: holds a secret"),
        (BY_NAME.replace("${env:KAFKA_SECRET}", "plain-1"), BOUND, "sasl.password: holds a secret"),
        (BY_NAME.replace("KAFKA_SECRET", "OTHER"), BOUND, "env:OTHER would go to"),
        (BY_NAME + "ssl.certificate.location=/me.crt\nssl.key.location=/me.key\n", BOUND,
         "file:/me.crt would go to one.example.org:9093"),
        (SECURED.replace("env:KAFKA_SECRET", "file:/etc/shadow"), BOUND, "file:/etc/shadow would go to"),
        ("bootstrap.servers=one.example.org:9093\nsecurity.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\n"
         "sasl.oauthbearer.token.endpoint.url=https://Id.example.org/token\n"
         "sasl.oauthbearer.client.credentials.client.id=me\n"
         "sasl.oauthbearer.client.credentials.client.secret=${env:KAFKA_SECRET}\n", BOUND,
         "would go to https://id.example.org"),
        ("bootstrap.servers=b-1.a.c4.kafka.eu-central-1.amazonaws.com:9098\nsecurity.protocol=SASL_SSL\n"
         "sasl.mechanism=AWS_MSK_IAM\n", BOUND, "aws would go to b-1"),
        ("client.id=me\n", BOUND, "expected embedded, docker or host:port"),
        (f"{BY_NAME}sasl.oauthbearer.token.endpoint.url=https://plain-1@[x/\n", BOUND, "url: is no address"),
        (f"{BY_NAME}sasl.oauthbearer.token.endpoint.url=https://u:plain-1@id.example.org/\n", BOUND,
         "would go to https://id.example.org"),
        (SECURED.replace('"${env:KAFKA_SECRET}"', "plain-1 x=${env:KAFKA_SECRET}"), BOUND, "holds a secret"),
    ],
)  # fmt: skip
def test_what_no_policy_binds_is_sent_to_nobody(
    tmp_path: Path, text: str, secrets: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        reached(spec_beside(tmp_path, text, secrets))
    assert not any(word in str(refused.value) for word in ("whispered", "plain-1"))


@pytest.mark.parametrize("name", ["../kafka.properties", "/etc/passwd", "a/../../kafka.properties", "link"])
def test_the_file_lies_beside_the_spec(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "agent"
    spec = spec_beside(folder, SECURED, BOUND, name)
    (tmp_path / "kafka.properties").write_text(SECURED, encoding="utf-8")
    (folder / "link").symlink_to(tmp_path / "kafka.properties")
    with pytest.raises(ConfigurationError, match="kafka: expected a file in the spec's folder or below"):
        load_spec(spec)


@given(
    st.dictionaries(st.sampled_from(["a:1", "b:2", "c:3"]), st.booleans(), min_size=1),
    st.lists(st.sampled_from(["env:A", "env:B", "file:/c"]), max_size=3, unique=True),
    st.lists(st.sampled_from(["env:A", "env:B", "file:/c"]), max_size=3, unique=True),
)
@properties(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_secret_goes_only_where_its_policy_says(
    tmp_path: Path, servers: dict[str, bool], used: list[str], known: list[str]
) -> None:
    """Of any secrets, brokers and policies: those that are bound pass, and no others."""
    text = f"bootstrap.servers={','.join(servers)}\nsecurity.protocol=PLAINTEXT\n"
    keys = ("ssl.key.password", "ssl.keystore.password", "ssl.truststore.password")
    text += "".join(f"{key}=${{{each}}}\n" for key, each in zip(keys, used, strict=False))
    allowed = [server for server, told in servers.items() if told]
    secrets = [{"secret": each, "to": allowed} for each in known if allowed]
    spec = spec_beside(tmp_path, text, secrets)
    expected = not used or (len(allowed) == len(servers) and set(used) <= set(known))
    environ = {"A": "whispered-7", "B": "whispered-8"}
    try:
        reached(spec, **environ)
    except ConfigurationError as refused:
        assert ("would go to" in str(refused)) is not expected
        assert not expected or "no file that can be read at /c" in str(refused)
    else:
        assert expected


def test_commands_about_an_agent_go_by_its_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_beside(tmp_path, SECURED, BOUND)
    for name in ("FLAGSTREAM_KAFKA", "FLAGSTREAM_KAFKA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAFKA_SECRET", "whispered-9")
    command = [
        "kafka",
        "acls",
        "--spec",
        str(spec),
        "--principal",
        "User:p",
        "--home",
        str(tmp_path / "home"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "--bootstrap-server one.example.org:9093,two.example.org:9093" in done.output
    assert "whispered-9" not in done.output
