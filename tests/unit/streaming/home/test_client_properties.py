"""A client.properties means the same to both Kafka clients, and no secret of it is ever shown."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.home.brokers import (
    Brokers,
    compression_of,
    connection,
    java_options_of,
    secret_names_of,
    spark_connection,
)
from streaming.home.client_properties import (
    KNOWN,
    ClientProperties,
    load_properties,
    parse_properties,
)
from streaming.home.kafka_login import jaas_options
from streaming.home.settings import Settings
from streaming.output.redaction import redacted

PASSWORD = 'pass"word; \\1='
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


def written(folder: Path, text: str) -> Path:
    path = folder / "client.properties"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str, **environ: str) -> ClientProperties:
    return load_properties(written(folder, text), environ)


TLS = "security.protocol=SSL\n"
SASL = "security.protocol=SASL_SSL\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("client.id=me\nclient.rack: r1\nclient.dns.lookup use_all_dns_ips", {
            "client.id": "me", "client.rack": "r1", "client.dns.lookup": "use_all_dns_ips"}),
        ("metadata.max.age.ms=7\nreconnect.backoff.ms=8\nreconnect.backoff.max.ms=9", {
            "metadata.max.age.ms": "7", "reconnect.backoff.ms": "8", "reconnect.backoff.max.ms": "9"}),
        ("socket.connection.setup.timeout.ms=6", {"socket.connection.setup.timeout.ms": "6"}),
        (TLS + "ssl.truststore.type=PEM\nssl.truststore.location=/ca.pem", {
            "security.protocol": "SSL", "ssl.ca.location": "/ca.pem"}),
        (TLS + "ssl.truststore.type=PEM\nssl.truststore.certificates=-----BEGIN\\nx", {
            "security.protocol": "SSL", "ssl.ca.pem": "-----BEGIN\nx"}),
        (TLS + "ssl.keystore.type=PEM\nssl.keystore.location=/me.pem\nssl.key.password=abcdef", {
            "security.protocol": "SSL", "ssl.certificate.location": "/me.pem", "ssl.key.location": "/me.pem",
            "ssl.key.password": "abcdef"}),
        (TLS + "ssl.keystore.type=PKCS12\nssl.keystore.location=/me.p12\nssl.keystore.password=changeit", {
            "security.protocol": "SSL", "ssl.keystore.location": "/me.p12",
            "ssl.keystore.password": "changeit"}),
        (TLS + "ssl.keystore.key=KEY\nssl.keystore.certificate.chain=CHAIN", {
            "security.protocol": "SSL", "ssl.key.pem": "KEY", "ssl.certificate.pem": "CHAIN"}),
        (TLS + "ssl.endpoint.identification.algorithm=", {
            "security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"}),
        (SASL + "sasl.mechanism=SCRAM-SHA-256\n"
         f'sasl.jaas.config={SCRAM} required username="u" password="p1";', {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "u",
            "sasl.password": "p1"}),
        (SASL + "sasl.mechanism=PLAIN\n"
         "sasl.jaas.config=x.PlainLoginModule REQUIRED username=u password=p1;", {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u",
            "sasl.password": "p1"}),
        (SASL + "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://id/token\n"
         f'sasl.jaas.config={OAUTH} required clientId="me" clientSecret="s1" scope="k" extension_pool="p";', {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": "https://id/token", "sasl.oauthbearer.client.id": "me",
            "sasl.oauthbearer.client.secret": "s1", "sasl.oauthbearer.scope": "k",
            "sasl.oauthbearer.extensions": "pool=p"}),
        (SASL + "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://id/token\n"
         "sasl.oauthbearer.client.credentials.client.id=me\nsasl.oauthbearer.scope=k\n"
         "sasl.oauthbearer.client.credentials.client.secret=s1", {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": "https://id/token", "sasl.oauthbearer.client.id": "me",
            "sasl.oauthbearer.client.secret": "s1", "sasl.oauthbearer.scope": "k"}),
    ],
)  # fmt: skip
def test_each_key_has_its_name_in_librdkafka(tmp_path: Path, text: str, expected: dict[str, object]) -> None:
    assert loaded(tmp_path, text).librdkafka == expected


def test_spark_gets_the_file_as_it_is_and_finds_secrets_by_itself(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("changeit\n", encoding="utf-8")
    text = (
        "bootstrap.servers=one:9092,two:9092\ncompression.type=gzip\nsecurity.protocol=SASL_SSL\n"
        "sasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=${env:LOGIN}\n"
        "ssl.keystore.type=PKCS12\nssl.keystore.location=/me.p12\n"
        f"ssl.keystore.password=${{file:{tmp_path}/secret}}\n"
    )
    line = f'{SCRAM} required username="u" password="not-to-be-seen";'
    found = loaded(tmp_path, text, LOGIN=line)
    assert found.librdkafka["sasl.password"] == "not-to-be-seen"
    assert found.librdkafka["ssl.keystore.password"] == "changeit"
    assert found.spark["kafka.sasl.jaas.config"] == "${env:LOGIN}"
    assert found.spark["kafka.ssl.keystore.password"] == f"${{file:{tmp_path}:secret}}"
    assert found.spark["kafka.config.providers"] == "env,file"
    assert found.spark["kafka.config.providers.env.param.allowlist.pattern"] == "LOGIN"
    assert "not-to-be-seen" not in f"{found}{found.spark}"
    assert redacted(f"it is not-to-be-seen or {line}") == "it is [redacted] or [redacted]"
    brokers = Brokers("one:9092").reached_by(found)
    assert (compression_of(brokers), compression_of("one:9092")) == ("gzip", "lz4")
    assert (secret_names_of(brokers), secret_names_of("one:9092")) == (frozenset({"LOGIN"}), frozenset())
    assert connection(brokers)["bootstrap.servers"] == "one:9092"
    assert spark_connection(brokers)["kafka.bootstrap.servers"] == "one:9092"


def test_the_address_of_tokens_is_no_secret(tmp_path: Path) -> None:
    text = (
        SASL
        + "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://id.example.org/token\n"
        f'sasl.jaas.config={OAUTH} required clientId="me" clientSecret="whispered-1";'
    )
    loaded(tmp_path, text)
    said = redacted("whispered-1 to https://id.example.org/token")
    assert said == "[redacted] to https://id.example.org/token"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("security.protokol=SSL", "unknown key; did you mean 'security.protocol'"),
        ("acks=0", "is set by flagstream"),
        ("isolation.level=read_uncommitted", "is set by flagstream"),
        ("security.protocol=TLS", "no protocol 'TLS'; expected one of: PLAINTEXT"),
        (TLS + "ssl.truststore.location=/store.jks", "keytool -list -rfc"),
        (TLS + "ssl.keystore.location=/store.jks", "-deststoretype PKCS12"),
        (SASL + "sasl.mechanism=GSSAPI", "GSSAPI cannot be used"),
        ("enable.idempotence=false", "is set by flagstream"),
        (SASL + "sasl.mechanism=PLAIN", "has no username"),
        (SASL + "sasl.mechanism=PLAIN\nsasl.jaas.config=nonsense", "one login module that ends with"),
        (SASL + "sasl.mechanism=PLAIN\nsasl.jaas.config=${env:ABSENT}", "the environment has no ABSENT"),
        (SASL + "sasl.mechanism=PLAIN\nsasl.jaas.config=${file:/nowhere/at/all}", "no file that can be read"),
        (
            SASL + "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://id",
            "needs clientId",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        loaded(tmp_path, text)


def test_the_file_is_one_of_the_settings(tmp_path: Path) -> None:
    path = written(tmp_path, "bootstrap.servers=one:9092\nclient.id=me")
    settings = Settings.load(tmp_path, {"FLAGSTREAM_KAFKA_CONFIG": str(path)})
    assert (settings.kafka, connection(settings.kafka)["client.id"]) == ("one:9092", "me")
    both = {"FLAGSTREAM_KAFKA_CONFIG": str(path), "FLAGSTREAM_KAFKA": "two:9092"}
    assert Settings.load(tmp_path, both).kafka == "two:9092"
    with pytest.raises(ConfigurationError, match="embedded is reached without it"):
        Settings.load(tmp_path, {**both, "FLAGSTREAM_KAFKA": "embedded"})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings.load(tmp_path, {"FLAGSTREAM_KAFKA_CONFIG": str(tmp_path / "absent")})
    nameless = written(tmp_path, "client.id=me")
    with pytest.raises(ConfigurationError, match="expected embedded, docker or host:port"):
        Settings.load(tmp_path, {"FLAGSTREAM_KAFKA_CONFIG": str(nameless)})


def examples() -> list[str]:
    page = (Path(__file__).parents[4] / "docs" / "kafka.md").read_text(encoding="utf-8")
    return re.findall(r"```properties\n(.*?)```", page, re.DOTALL)


class AnyVariable(dict[str, str]):
    """An environment in which every variable is set."""

    def __missing__(self, name: str) -> str:
        return f"{SCRAM} required username=u password=p;" if name == "KAFKA_LOGIN" else f"value-of-{name}"


def test_the_page_has_an_example_of_every_vendor() -> None:
    assert len(examples()) >= 9


@pytest.mark.parametrize("text", examples(), ids=lambda text: re.search(r"servers=([^:]+)", text)[1])
def test_every_example_of_the_page_can_be_used(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", SimpleNamespace(MSKAuthTokenProvider=None))
    for place in re.findall(r"\$\{file:([^}]+)\}", text):
        (tmp_path / Path(place).name).write_text("whispered-2", encoding="utf-8")
        text = text.replace(place, str(tmp_path / Path(place).name))
    found = load_properties(written(tmp_path, text), AnyVariable())
    assert found.bootstrap is not None
    assert found.librdkafka["security.protocol"] in ("SSL", "SASL_SSL")
    assert "value-of-" not in str(found.spark)
    assert "whispered-2" not in str(found.spark)


def test_lines_that_ask_for_what_is_done_anyway_may_stay(tmp_path: Path) -> None:
    same = "acks=all\nenable.idempotence=true\nisolation.level=read_committed\nsession.timeout.ms=45000\n"
    found = loaded(tmp_path, f"{same}client.id=me")
    assert (found.librdkafka, found.spark) == ({"client.id": "me"}, {"kafka.client.id": "me"})


def test_tokens_are_fetched_by_spark_as_by_librdkafka(tmp_path: Path) -> None:
    text = (
        "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\n"
        "sasl.oauthbearer.token.endpoint.url=https://id/token\nsasl.oauthbearer.scope=k\n"
        "sasl.oauthbearer.client.credentials.client.id=me\n"
        "sasl.oauthbearer.client.credentials.client.secret=${env:SECRET}"
    )
    found = loaded(tmp_path, text, SECRET="whispered-3")
    assert found.spark["kafka.sasl.jaas.config"] == (
        f'{OAUTH} required clientId="me" clientSecret="${{env:SECRET}}" scope="k";'
    )
    assert found.spark["kafka.sasl.login.callback.handler.class"].endswith("OAuthBearerLoginCallbackHandler")
    assert not [key for key in found.spark if "credentials" in key]
    options = java_options_of(Brokers("one:9092").reached_by(found))
    assert options == ("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=https://id/token",)
    assert java_options_of("one:9092") == ()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_an_option_in_single_quotes_is_read_as_java_reads_it(password: str) -> None:
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    assert jaas_options(f"x.Module required username='u' password='{escaped}';")["password"] == password


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_quoted_option_of_a_login_is_read_as_java_reads_it(password: str) -> None:
    escaped = password.replace("\\", "\\\\").replace('"', '\\"')
    assert jaas_options(f'x.Module required username="u" password="{escaped}";')["password"] == password


@given(
    st.dictionaries(st.sampled_from(KNOWN), st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    st.sampled_from(["=", ":", " = ", " "]),
)
def test_what_java_writes_is_read(known: dict[str, str], between: str) -> None:
    assert (
        parse_properties("\n".join(f"{key}{between}{_escaped(value)}" for key, value in known.items()))
        == known
    )


def _escaped(value: str) -> str:
    """As Java's Properties.store writes a value."""
    return "".join(
        f"\\{each}" if each in "\\=:#! " else each if " " < each < "\x7f" else _as_units(each)
        for each in value
    )


def _as_units(each: str) -> str:
    units = each.encode("utf-16-be")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
