"""A client.properties means the same to both Kafka clients, and no secret of it is ever shown."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
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
from streaming.home.client_properties import ClientProperties, load_properties
from streaming.home.connection_keys import KNOWN
from streaming.home.jaas import jaas_options
from streaming.home.librdkafka_names import LIBRDKAFKA
from streaming.home.pem_stores import of_the_machine
from streaming.home.settings import Settings
from streaming.output.redaction import redacted
from tests.properties_text import parse_properties
from tests.secured_broker import STORE_PASSWORD, make_certificates

PASSWORD = 'pass"word; \\1='
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


def written(folder: Path, text: str) -> Path:
    path = folder / "client.properties"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str, **environ: str) -> ClientProperties:
    return load_properties(written(folder, text), environ)


TLS = "security.protocol=SSL\n"
SASL = "security.protocol=SASL_SSL\n"
TOKENS = "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://id/token\n"


P12 = f"ssl.truststore.type=PKCS12\nssl.truststore.location=STORE\nssl.truststore.password={STORE_PASSWORD}"
ISSUED = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "OAUTHBEARER",
    "sasl.oauthbearer.method": "oidc",
    "sasl.oauthbearer.token.endpoint.url": "https://id/token",
    "sasl.oauthbearer.client.id": "me",
    "sasl.oauthbearer.client.secret": "s1",
}
FETCHED = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "OAUTHBEARER",
    "sasl.oauthbearer.token.endpoint.url": "https://id/token",
    "sasl.login.callback.handler.class": f"{OAUTH.rpartition('.')[0]}.OAuthBearerLoginCallbackHandler",
}
BY_ID = (
    f"{SASL}{TOKENS}sasl.oauthbearer.client.credentials.client.id=me\n"
    "sasl.oauthbearer.client.credentials.client.secret=s1\n"
)
# A file, what librdkafka makes of it, and what Java's client gets; None for what stands there.
TRANSLATED: list[tuple[str, dict[str, object], dict[str, str] | None]] = [
    ("bootstrap.servers=a:1\ncompression.type=gzip\nclient.id=me\nclient.rack: r1\n"
     "client.dns.lookup use_all_dns_ips",
     {"client.id": "me", "client.rack": "r1", "client.dns.lookup": "use_all_dns_ips"},
     {"client.id": "me", "client.rack": "r1", "client.dns.lookup": "use_all_dns_ips"}),
    ("metadata.max.age.ms=7\nreconnect.backoff.ms=8\nreconnect.backoff.max.ms=9",
     {"metadata.max.age.ms": "7", "reconnect.backoff.ms": "8", "reconnect.backoff.max.ms": "9"}, None),
    ("socket.connection.setup.timeout.ms=6", {"socket.connection.setup.timeout.ms": "6"}, None),
    (TLS + "ssl.truststore.type=PEM\nssl.truststore.location=/ca.pem",
     {"security.protocol": "SSL", "ssl.ca.location": "/ca.pem"}, None),
    (TLS + "ssl.truststore.type=PEM\nssl.truststore.certificates=-----BEGIN\\nx",
     {"security.protocol": "SSL", "ssl.ca.pem": "-----BEGIN\nx"}, None),
    (TLS + P12, {"security.protocol": "SSL", "ssl.ca.pem": "AUTHORITY"},
     {"security.protocol": "SSL", "ssl.truststore.type": "PEM", "ssl.truststore.certificates": "AUTHORITY"}),
    (TLS + "ssl.keystore.type=PEM\nssl.keystore.location=/me.pem\nssl.key.password=abcdef",
     {"security.protocol": "SSL", "ssl.certificate.location": "/me.pem", "ssl.key.location": "/me.pem",
      "ssl.key.password": "abcdef"}, None),
    (TLS + "ssl.keystore.type=PKCS12\nssl.keystore.location=/me.p12\nssl.keystore.password=changeit",
     {"security.protocol": "SSL", "ssl.keystore.location": "/me.p12", "ssl.keystore.password": "changeit"},
     None),
    (TLS + "ssl.keystore.key=KEY\nssl.keystore.certificate.chain=CHAIN",
     {"security.protocol": "SSL", "ssl.key.pem": "KEY", "ssl.certificate.pem": "CHAIN"},
     {"security.protocol": "SSL", "ssl.keystore.key": "KEY", "ssl.keystore.certificate.chain": "CHAIN",
      "ssl.keystore.type": "PEM"}),
    (TLS + "ssl.endpoint.identification.algorithm=",
     {"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"}, None),
    (SASL + "sasl.mechanism=SCRAM-SHA-256\n"
     f'sasl.jaas.config={SCRAM} required username="u" password="p1";',
     {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "u",
      "sasl.password": "p1"}, None),
    (SASL + "sasl.mechanism=PLAIN\n"
     f"sasl.jaas.config={PLAIN} REQUIRED username=u password=p1;",
     {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u",
      "sasl.password": "p1"}, None),
    (f"{SASL}{TOKENS}"
     f"sasl.login.callback.handler.class={OAUTH.rpartition('.')[0]}.OAuthBearerLoginCallbackHandler\n"
     f'sasl.jaas.config={OAUTH} required clientId="me" clientSecret="s1" scope="k" extension_pool="p";',
     {**ISSUED, **of_the_machine("https"), "sasl.oauthbearer.scope": "k",
      "sasl.oauthbearer.extensions": "pool=p"},
     {**FETCHED, "sasl.jaas.config":
      f'{OAUTH} required clientId="me" clientSecret="s1" scope="k" extension_pool="p";'}),
    (BY_ID + "sasl.oauthbearer.scope=k",
     {**ISSUED, **of_the_machine("https"), "sasl.oauthbearer.scope": "k"},
     {**FETCHED, "sasl.jaas.config": f'{OAUTH} required clientId="me" clientSecret="s1" scope="k";'}),
    (f"{SASL}{TOKENS}"
     f'sasl.jaas.config={OAUTH} required clientId="me" clientSecret="s1" ssl.truststore.type="PEM" '
     'ssl.truststore.location="/id.pem";', {**ISSUED, "https.ca.location": "/id.pem"},
     {**FETCHED, "sasl.jaas.config": f'{OAUTH} required clientId="me" clientSecret="s1" '
      'ssl.truststore.type="PEM" ssl.truststore.location="/id.pem";'}),
    (BY_ID + "https.ca.location=/id ca.pem", {**ISSUED, "https.ca.location": "/id ca.pem"},
     {**FETCHED, "sasl.jaas.config": f'{OAUTH} required clientId="me" clientSecret="s1" '
      'ssl.truststore.type="PEM" ssl.truststore.location="/id ca.pem";'}),
    (BY_ID + "https.ca.pem=-----BEGIN\\nx", {**ISSUED, "https.ca.pem": "-----BEGIN\nx"},
     {**FETCHED, "sasl.jaas.config": f'{OAUTH} required clientId="me" clientSecret="s1" '
      'ssl.truststore.type="PEM" ssl.truststore.certificates="-----BEGIN\\nx";'}),
    # From here on in librdkafka's names.
    ("metadata.broker.list=a:1\ncompression.codec=gzip\nrequest.required.acks=-1", {}, {}),
    ("security.protocol=sasl_ssl\nsasl.mechanisms=SCRAM-SHA-256\nsasl.username=u\nsasl.password=p\\\"1",
     {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "u",
      "sasl.password": 'p"1'},
     {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256",
      "sasl.jaas.config": f'{SCRAM} required username="u" password="p\\"1";'}),
    (SASL + "sasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=p1",
     {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u",
      "sasl.password": "p1"},
     {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN",
      "sasl.jaas.config": f'{PLAIN} required username="u" password="p1";'}),
    (f"{SASL}{TOKENS}sasl.oauthbearer.method=OIDC\nsasl.oauthbearer.client.id=me\n"
     "sasl.oauthbearer.client.secret=s1\nsasl.oauthbearer.extensions=logicalCluster=lkc-1,pool=p",
     {**ISSUED, **of_the_machine("https"),
      "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,pool=p"},
     {**FETCHED, "sasl.jaas.config": f'{OAUTH} required clientId="me" clientSecret="s1" '
      'extension_logicalCluster="lkc-1" extension_pool="p";'}),
    (TLS + "ssl.ca.location=/ca.pem\nenable.ssl.certificate.verification=true\n"
     "ssl.endpoint.identification.algorithm=none",
     {"security.protocol": "SSL", "ssl.ca.location": "/ca.pem",
      "ssl.endpoint.identification.algorithm": "none"},
     {"security.protocol": "SSL", "ssl.truststore.type": "PEM", "ssl.truststore.location": "/ca.pem",
      "ssl.endpoint.identification.algorithm": ""}),
    (TLS + "ssl.ca.location=probe", {"security.protocol": "SSL"}, {"security.protocol": "SSL"}),
    (TLS + "ssl.ca.pem=CA\nssl.certificate.pem=CHAIN\nssl.key.pem=KEY",
     {"security.protocol": "SSL", "ssl.ca.pem": "CA", "ssl.certificate.pem": "CHAIN", "ssl.key.pem": "KEY"},
     {"security.protocol": "SSL", "ssl.truststore.type": "PEM", "ssl.truststore.certificates": "CA",
      "ssl.keystore.type": "PEM", "ssl.keystore.certificate.chain": "CHAIN", "ssl.keystore.key": "KEY"}),
    (TLS + "ssl.certificate.location=/me.pem\nssl.key.location=/me.pem\nssl.key.password=abcdef",
     {"security.protocol": "SSL", "ssl.certificate.location": "/me.pem", "ssl.key.location": "/me.pem",
      "ssl.key.password": "abcdef"},
     {"security.protocol": "SSL", "ssl.keystore.type": "PEM", "ssl.keystore.location": "/me.pem",
      "ssl.key.password": "abcdef"}),
    (TLS + "ssl.ca.location=/ca.pem\nssl.keystore.location=/me.p12\nssl.keystore.password=changeit",
     {"security.protocol": "SSL", "ssl.ca.location": "/ca.pem", "ssl.keystore.location": "/me.p12",
      "ssl.keystore.password": "changeit"},
     {"security.protocol": "SSL", "ssl.truststore.type": "PEM", "ssl.truststore.location": "/ca.pem",
      "ssl.keystore.type": "PKCS12", "ssl.keystore.location": "/me.p12",
      "ssl.keystore.password": "changeit"}),
]  # fmt: skip


@pytest.fixture(scope="session")
def trust_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A PKCS12 store that holds an authority, and the authority as PEM."""
    folder = tmp_path_factory.mktemp("trust") / "certificates"
    make_certificates(folder)
    return folder / "ca.p12", (folder / "ca.pem").read_text(encoding="utf-8")


def filled(expected: Mapping[str, object], authority: str) -> dict[str, object]:
    return {key: authority if value == "AUTHORITY" else value for key, value in expected.items()}


@pytest.mark.parametrize(("text", "expected", "java"), TRANSLATED)
def test_each_key_means_the_same_to_both_clients(
    tmp_path: Path,
    trust_store: tuple[Path, str],
    text: str,
    expected: dict[str, object],
    java: dict[str, str] | None,
) -> None:
    store, authority = trust_store
    found = loaded(tmp_path, text.replace("STORE", str(store)))
    assert found.librdkafka == filled(expected, authority)
    wanted = parse_properties(text) if java is None else filled(java, authority)
    assert found.spark == {f"kafka.{key}": value for key, value in wanted.items()}
    if ":1\n" in text:
        assert (found.bootstrap, found.compression) == ("a:1", "gzip")


def test_every_key_that_is_known_is_in_the_table() -> None:
    used = {key for text, *_ in TRANSLATED for key in parse_properties(text)}
    of_msk_alone = "sasl.client.callback.handler.class"  # see test_msk_login
    assert used | {of_msk_alone} == {*KNOWN, *LIBRDKAFKA}


def test_certificate_and_key_in_two_files_reach_java_as_their_texts(tmp_path: Path) -> None:
    """Its client knows one file of both, or texts."""
    text = f"{TLS}ssl.certificate.location={tmp_path}/me.crt\nssl.key.location={tmp_path}/me.key"
    for name in ("crt", "key"):
        (tmp_path / f"me.{name}").write_text(f"whispered-{name}\n", encoding="utf-8")
    found = loaded(tmp_path, text)
    assert found.librdkafka == {
        "security.protocol": "SSL",
        "ssl.key.pem": "whispered-key",
        "ssl.certificate.pem": "whispered-crt",
    }
    assert found.spark["kafka.ssl.keystore.key"] == f"${{file:{tmp_path}:me.key}}"
    assert found.spark["kafka.ssl.keystore.certificate.chain"] == f"${{file:{tmp_path}:me.crt}}"
    assert found.spark["kafka.ssl.keystore.type"] == "PEM"
    assert "whispered-key" not in f"{found}{found.spark}"
    assert redacted("it is whispered-key") == "it is [redacted]"


def beginnings() -> list[tuple[str, str]]:
    """Each name of librdkafka's beside each name of Java's that says the same."""
    pairs = [(key, each) for key, (_, same) in LIBRDKAFKA.items() for each in same]
    return [
        (key, java)
        for key, each in pairs
        for java in (*KNOWN, "acks")
        if java == each or (each.endswith(".") and java.startswith(each))
    ]


@pytest.mark.parametrize("header", ["RSA ", "EC ", "", "ENCRYPTED "])
def test_a_key_that_java_does_not_read_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, header: str
) -> None:
    key = f"-----BEGIN {header}PRIVATE KEY-----\ncanary\n-----END {header}PRIVATE KEY-----\n"
    (tmp_path / "me.key").write_text(key, encoding="utf-8")
    one = f"ssl.keystore.type=PEM\nssl.keystore.location={tmp_path}/me.key"
    two = f"ssl.certificate.location={tmp_path}/me.key\nssl.key.pem={_escaped(key)}"
    for text in (one, two):
        if header in ("", "ENCRYPTED "):
            assert loaded(tmp_path, TLS + text).spark["kafka.ssl.keystore.type"] == "PEM"
            continue
        with pytest.raises(ConfigurationError, match="openssl pkcs8 -topk8") as refused:
            loaded(tmp_path, TLS + text)
        assert "canary" not in str(refused.value)


@pytest.mark.parametrize(("key", "java"), beginnings())
def test_a_setting_in_both_forms_is_refused_by_name(tmp_path: Path, key: str, java: str) -> None:
    for lines in ((key, java), (java, key)):
        text = "\n".join(f"{each}=x" for each in lines)
        with pytest.raises(ConfigurationError, match=f"{re.escape(key)}: says what {re.escape(java)} says"):
            loaded(tmp_path, text)


@pytest.mark.parametrize("name", ["https.ca", "ssl.ca", "ssl.certificate", "ssl.key"])
def test_what_stands_there_is_named_in_no_file_beside_it(tmp_path: Path, name: str) -> None:
    text, file = f"{name}.pem", f"{name}.location"
    for lines in ((text, file), (file, text)):
        with pytest.raises(ConfigurationError, match=f"{re.escape(text)}: says what {re.escape(file)} says"):
            loaded(tmp_path, "\n".join(f"{each}=x" for each in lines))


def test_each_name_of_librdkafkas_that_java_has_another_for_may_not_stand_beside_it() -> None:
    pairs = beginnings()
    renamed = {key for key, (name, _) in LIBRDKAFKA.items() if name != key}
    assert renamed <= {key for key, _ in pairs}
    assert {("ssl.key.location", "ssl.keystore.location"), ("sasl.password", "sasl.jaas.config")} <= set(
        pairs
    )


@pytest.mark.parametrize(
    "line", [
        "sasl.mechanisms=PLAIN\nsasl.username=u\nsasl.password=PLACE",
        f'sasl.mechanism=PLAIN\nsasl.jaas.config={PLAIN} required username="u" password="PLACE";',
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["canary-1\n", " canary-1", "canary-1\r\n"])
def test_a_line_s_end_that_java_would_log_in_with_is_refused(tmp_path: Path, line: str, text: str) -> None:
    """It strips a value that is a place, and leaves a place within a login as it is."""
    secret = tmp_path / "secret"
    secret.write_bytes(text.encode())
    with pytest.raises(ConfigurationError, match=r"secret begins or ends with .*printf %s") as refused:
        loaded(tmp_path, SASL + line.replace("PLACE", f"${{file:{secret}}}"))
    assert "canary" not in str(refused.value)
    secret.write_bytes(text.strip().encode())
    found = loaded(tmp_path, SASL + line.replace("PLACE", f"${{file:{secret}}}"))
    assert found.librdkafka["sasl.password"] == "canary-1"


@pytest.mark.parametrize("key", ["sasl.password", "sasl.oauthbearer.client.secret"])
@pytest.mark.parametrize("secret", ['a"b-canary', "a\\b-canary", "a\nb-canary"])
def test_a_secret_that_java_would_misread_is_refused_without_being_shown(
    tmp_path: Path, key: str, secret: str
) -> None:
    text = f"{SASL}sasl.mechanisms=PLAIN\nsasl.username=u\n{key}=${{env:SECRET}}"
    with pytest.raises(ConfigurationError, match=r"sasl\.jaas\.config=\$\{env:NAME\}") as refused:
        loaded(tmp_path, text, SECRET=secret)
    assert "canary" not in str(refused.value)


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
        ("security.protocol=TLS", "security.protocol: no such protocol; expected one of: PLAINTEXT"),
        (TLS + "ssl.truststore.location=/store.jks", "keytool -list -rfc"),
        (TLS + "ssl.keystore.location=/store.jks", "-deststoretype PKCS12"),
        (TLS + P12.replace("STORE", "/nowhere/at.all"), "ssl.truststore.location cannot be read"),
        (TLS + P12.replace("STORE", __file__), "is no PKCS12 store that ssl.truststore.password opens"),
        (
            TLS + P12.replace("PKCS12", "PEM"),
            "ssl.truststore.password stands beside a store of type PEM",
        ),
        (
            TLS + "ssl.keystore.type=PEM\nssl.keystore.location=/me.pem\nssl.keystore.password=changeit",
            "the key's own is ssl.key.password",
        ),
        (TLS + "ssl.ca.location=/etc", "ssl.truststore.location is a folder"),
        ("sasl.mechanizms=PLAIN", "unknown key; did you mean 'sasl.mechanisms'"),
        ("request.required.acks=0", "is set by flagstream"),
        ("enable.ssl.certificate.verification=false", "verification: may not be switched off"),
        ("sasl.oauthbearer.method=default", "sasl.oauthbearer.method: only oidc can be used"),
        ("ssl.key.location=/me.key", "ssl.keystore.key: stands without its certificate"),
        ("ssl.certificate.location=/me.crt", "ssl.keystore.certificate.chain: stands without a key"),
        (
            "ssl.certificate.location=/me.crt\nssl.key.location=${env:KEY}",
            "ssl.key.location: certificate and key are two files: name each as it is",
        ),
        (SASL + "sasl.mechanisms=GSSAPI", r"sasl.mechanism: Kerberos \(GSSAPI\) cannot be used"),
        (SASL + "sasl.mechanisms=PLAIN\nsasl.username=u", "there is no sasl.password"),
        (SASL + "sasl.mechanism=GSSAPI", r"sasl.mechanism: Kerberos \(GSSAPI\) cannot be used"),
        (SASL, r"no sasl.mechanism, which means GSSAPI: Kerberos \(GSSAPI\) cannot be used"),
        (
            SASL + "sasl.mechanism=PLAIN\nsasl.kerberos.service.name=kafka",
            r"sasl.kerberos.service.name: Kerberos .*SCRAM-SHA-512",
        ),
        (SASL + "sasl.mechanism=DIGEST-MD5", "sasl.mechanism: no such one can be used; PLAIN"),
        (
            f"{SASL}{TOKENS}sasl.jaas.config={OAUTH} required clientId=a clientSecret=b "
            'ssl.truststore.location="/a.jks";',
            "keytool -list -rfc",
        ),
        (
            f"{SASL}{TOKENS}sasl.jaas.config={OAUTH} required clientId=a clientSecret=b "
            "ssl.truststore.location=/a.jks;",
            "with plain quotes",
        ),
        (
            f"{SASL}{TOKENS}https.ca.location=/ca.pem\n"
            f"sasl.jaas.config={OAUTH} required clientId=a clientSecret=b;",
            "https.ca.location stands beside sasl.jaas.config",
        ),
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


@pytest.mark.parametrize("text", examples(), ids=lambda text: re.search(r"(?:servers|list)=([^:]+)", text)[1])
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


@pytest.mark.parametrize(
    ("key", "value", "java"),
    [
        ("https.ca.location", "/id ca.pem", 'ssl.truststore.location="/id ca.pem"'),
        ("https.ca.pem", "-----BEGIN\nx", 'ssl.truststore.certificates="-----BEGIN\\nx"'),
    ],
)
def test_an_issuer_of_an_authority_of_its_own_is_known_to_both_clients(
    tmp_path: Path, key: str, value: str, java: str
) -> None:
    text = (
        f"{SASL}{TOKENS}sasl.oauthbearer.client.credentials.client.id=me\n"
        "sasl.oauthbearer.client.credentials.client.secret=${env:SECRET}\n"
    )
    found = loaded(tmp_path, text + f"{key}={_escaped(value)}", SECRET="whispered-4")
    assert found.librdkafka[key] == value
    assert found.spark["kafka.sasl.jaas.config"] == (
        f'{OAUTH} required clientId="me" clientSecret="${{env:SECRET}}" ssl.truststore.type="PEM" {java};'
    )
    assert f"kafka.{key}" not in found.spark


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
