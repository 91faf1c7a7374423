"""Whatever stands in a connection file, and wherever its secrets lie: no error shows any of it."""

from __future__ import annotations

import subprocess
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.home.client_properties import load_properties
from streaming.home.connection_keys import KNOWN, OURS
from streaming.home.jaas import quoted
from streaming.home.librdkafka_names import LIBRDKAFKA
from streaming.output.redaction import redacted
from tests.java_reading import read_by_java

CANARY = "canary-5d1f"
_KAFKA = "org.apache.kafka.common.security"
PLAIN, OAUTH = f"{_KAFKA}.plain.PlainLoginModule", f"{_KAFKA}.oauthbearer.OAuthBearerLoginModule"
KEYS = (*KNOWN, *LIBRDKAFKA, *OURS, "session.timeout.ms", "sasl.kerberos.keytab")
MISSPELT = (
    "sasl.pasword",
    "schema.registry.url",
    "sasl.kerberos.canary-5d1f",
    f"ssl.truststore.{CANARY}",
    CANARY,
)
VALUES = (
    "", CANARY, f"{CANARY} ", f"C:\\u{CANARY}", f"x.Module required {CANARY}", "${env:SECRET}", "false",
    f'x.Module required username="u" password="{CANARY}";', f"x.M required username=u password={CANARY} ;",
    'x.M required username="u" password="${env:SECRET}";', f"-----BEGIN RSA PRIVATE KEY-----\\n{CANARY}",
    "SASL_SSL", "SSL", "PLAIN", "OAUTHBEARER", "AWS_MSK_IAM", "PEM", "PKCS12", f"${{vault:{CANARY}}}",
    f"https://{CANARY}@[id/token", "/etc/passwd", f"x\\\n{CANARY}", f"\\\n{CANARY}", f"\n{CANARY}",
    f"-----BEGIN PRIVATE KEY-----\n{CANARY}+/=\n-----END",
)  # fmt: skip
SECRETS = (CANARY, f'{CANARY}"', f"\\{CANARY}", f"{CANARY}\n{CANARY}", f"{CANARY}\0", f"{CANARY}\udce9", "")
LINES = st.tuples(
    st.sampled_from((*KEYS, *MISSPELT)), st.sampled_from(("=", " : ", " ", "")), st.sampled_from(VALUES)
).map("".join)
IN_A_FIXTURE = [HealthCheck.function_scoped_fixture]


@pytest.fixture(autouse=True)
def hides_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that stand as secrets here are none in other tests."""
    monkeypatch.setattr("streaming.output.redaction._known", {})


def said_of(folder: Path, text: str, secret: str = CANARY) -> str:
    """All that a traceback of the refusal would show, nothing where the file is taken."""
    path = folder / "client.properties"
    path.write_text(text, encoding="utf-8")
    try:
        load_properties(path, {"SECRET": secret})
    except ConfigurationError as refused:
        return f"{refused!r} {''.join(traceback.format_exception(refused))}"
    return ""


@given(st.lists(LINES, min_size=1, max_size=5), st.sampled_from(SECRETS))
@example([f"sasl.password=\n{CANARY}"], CANARY)
@example([f"ssl.key.pem=-----BEGIN PRIVATE KEY-----\n{CANARY}"], CANARY)
@example(["security.protocol=SSL", "ssl.truststore.type=PKCS12", "ssl.truststore.location=/etc/passwd",
          "ssl.truststore.password=${env:SECRET}"], f"{CANARY}\0")  # fmt: skip
@properties(max_examples=500, suppress_health_check=IN_A_FIXTURE)
def test_no_part_of_a_line_stands_in_an_error(tmp_path: Path, lines: list[str], secret: str) -> None:
    assert CANARY not in said_of(tmp_path, "\n".join(lines), secret)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@properties(suppress_health_check=IN_A_FIXTURE)
def test_any_text_is_taken_or_refused(tmp_path: Path, text: str) -> None:
    assert CANARY not in said_of(tmp_path, text.replace("${", "$"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"client.id=me\n# c\nsasl.password=\n{CANARY}", "line 4: unknown key; a value that goes on"),
        ("client.id=me\n\nsasl.pasword=x", "line 3: unknown key; did you mean 'sasl.password'?"),
        ("\u00a0client.id=me", "line 1: unknown key; did you mean 'client.id'"),
        ("\u200bx=me", "line 1: unknown key; it holds the character U\\+200B"),
        ("client.id=\\user", r"line 1: \\u stands without four hexadecimal digits"),
        ("client.id=${KAFKA_ID}", "client.id: variables are written as"),
        ("client.id=${vault:x}", "client.id: holds a place that is looked up nowhere"),
    ],
)
def test_a_line_is_named_by_its_number(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "f").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        load_properties(tmp_path / "f", {})


@given(st.text('ab"\\\n\r;= \t/n1', max_size=8), st.sampled_from(['"{}"', "'{}'", "{}"]))
@properties(suppress_health_check=IN_A_FIXTURE)
def test_a_login_with_places_is_what_java_reads_or_refused(tmp_path: Path, secret: str, around: str) -> None:
    line = f"{PLAIN} required username=u password={around};"
    text = (
        f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config={line.format('${env:SECRET}')}"
    )
    refused = said_of(tmp_path, text, secret)
    if refused:
        assert "would misread it" in refused
        assert set(secret) - {"a", "b", "n"} or not secret
    else:
        found = load_properties(tmp_path / "client.properties", {"SECRET": secret})
        assert found.librdkafka["sasl.password"] == secret


@pytest.mark.parametrize("secret", ['a"b', "a\\b", "a\nb", 'x" username="root'])
def test_a_secret_within_a_login_that_java_would_misread_is_refused(tmp_path: Path, secret: str) -> None:
    line = f'sasl.jaas.config={PLAIN} required username="u" password="${{env:SECRET}}";'
    said = said_of(tmp_path, f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n{line}", f"{CANARY}{secret}")
    assert "sasl.jaas.config: what its place holds" in said
    assert CANARY not in said


def test_every_secret_is_hidden_from_the_moment_it_was_looked_up(tmp_path: Path) -> None:
    """Also one of a login of a mechanism that hands librdkafka no password, and of a file that is refused."""
    line = 'sasl.jaas.config=x.Module required a="${env:SECRET}" password="whispered-21";'
    assert said_of(tmp_path, f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n{line}", "whispered-22")
    assert redacted("whispered-21 whispered-22") == "[redacted] [redacted]"


def test_an_address_from_a_variable_is_shown(tmp_path: Path) -> None:
    assert said_of(tmp_path, "bootstrap.servers=${env:SECRET}", "shown.example.org:9092") == ""
    assert redacted("shown.example.org:9092") == "shown.example.org:9092"


@pytest.mark.parametrize("name", ["a:b/key", "key:a", ":", "a.properties:key", "a:b:c/d:e", 'a"b', "a\\b"])
def test_a_path_that_java_would_read_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    """Kafka's own provider splits there: it would look for another file, or for a key within one."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("whispered-23", encoding="utf-8")
    place = f"${{file:{path}}}".replace("\\", "\\\\")
    assert "ssl.key.password: holds a place with a second colon" in said_of(
        tmp_path, f"ssl.key.password={place}"
    )


def test_spark_finds_the_files_that_are_taken(tmp_path: Path) -> None:
    names, places = ("password", "a b", "ä.txt", "x=y", "{", "$"), []
    for name in names:
        (tmp_path / name).write_text(f"in {name}", encoding="utf-8")
        assert said_of(tmp_path, f"ssl.key.password=${{file:{tmp_path}/{name}}}") == ""
        found = load_properties(tmp_path / "client.properties", {})
        places.append(found.spark["kafka.ssl.key.password"])
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "key").write_text("split", encoding="utf-8")
    *read, split = read_by_java("place", [*places, f"${{file:{tmp_path}/a:b:key}}"], tmp_path)
    assert read == [{"key": f"in {name}"} for name in names]
    assert split != {"key": "split"}


@pytest.fixture(scope="module")
def own_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PKCS12 store of a key and its own certificate, as `keytool -genkeypair` makes it."""
    store = tmp_path_factory.mktemp("own") / "own.p12"
    options = f"-alias me -keyalg RSA -dname CN=x -storetype PKCS12 -storepass changeit -keystore {store}"
    subprocess.run(["keytool", "-genkeypair", *options.split()], check=True, capture_output=True)
    return store


def of_store(store: Path, kind: str = "PKCS12") -> str:
    where = f"ssl.truststore.location={store}\nssl.truststore.password=${{env:SECRET}}"
    return f"security.protocol=SSL\nssl.truststore.type={kind}\n{where}"


def test_a_store_of_ones_own_key_is_refused_with_the_command_that_makes_the_right_one(
    tmp_path: Path, own_key: Path
) -> None:
    said = said_of(tmp_path, of_store(own_key), "changeit")
    assert "holds a key with its certificate, and none to trust" in said
    assert "`keytool -list -rfc -keystore STORE > ca.pem`" in said
    command = ["keytool", "-list", "-rfc", "-keystore", str(own_key)]
    done = subprocess.run(command, input="changeit\n", check=True, capture_output=True, text=True)
    (tmp_path / "ca.pem").write_text(done.stdout, encoding="utf-8")
    pem = f"security.protocol=SSL\nssl.truststore.type=pem\nssl.truststore.location={tmp_path}/ca.pem"
    assert said_of(tmp_path, pem) == ""
    assert done.stdout.count("BEGIN CERTIFICATE") == 1


@given(st.text(max_size=20))
@example("a\0b")
@example("\udce9")
@properties(suppress_health_check=IN_A_FIXTURE, max_examples=60)
def test_no_password_of_a_store_raises_what_nobody_catches(
    tmp_path: Path, own_key: Path, capfd: pytest.CaptureFixture[str], password: str
) -> None:
    said = said_of(tmp_path, of_store(own_key), f"{CANARY}{password}")
    assert "ssl.truststore" in said
    assert CANARY not in said + "".join(capfd.readouterr())


@given(st.text(max_size=8).map(lambda text: f"canary-{text}\0"))
@properties(suppress_health_check=IN_A_FIXTURE, max_examples=20)
def test_a_password_of_a_store_within_a_login_neither(tmp_path: Path, own_key: Path, password: str) -> None:
    options = f'ssl.truststore.type="PKCS12" ssl.truststore.location="{own_key}" ssl.truststore.password='
    line = f'{OAUTH} required clientId=a clientSecret=b {options}"{quoted(password)}";'.replace("\0", "\\000")
    text = "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://i\n"
    said = said_of(tmp_path, f"{text}sasl.jaas.config=${{env:SECRET}}", line)
    assert "is no PKCS12 store that ssl.truststore.password opens" in said


TOKENS = "sasl.oauthbearer.token.endpoint.url"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bootstrap.servers", CANARY, "expected host:port"),
        ("bootstrap.servers", f"a:1,{CANARY} b:2", "expected host:port"),
        ("metadata.max.age.ms", CANARY, "expected a number of milliseconds"),
        ("client.dns.lookup", CANARY, "expected one of: use_all_dns_ips"),
        ("ssl.endpoint.identification.algorithm", CANARY, "expected one of: https"),
        (TOKENS, f"https://me:{CANARY}@id.example.org/token", "expected an address such as"),
        (TOKENS, f"https://{CANARY}@[id/token", "expected an address such as"),
        (TOKENS, f"file:///{CANARY}", "expected an address such as"),
    ],
)
def test_a_value_that_a_client_would_refuse_later_is_refused_by_its_key(
    tmp_path: Path, key: str, value: str, said: str
) -> None:
    found = said_of(tmp_path, f"{key}={value}")
    assert f"{key}: {said}" in found
    assert CANARY not in found


@pytest.mark.parametrize("server", ["a:1", "SASL_SSL://a.b-c_d.example:9093", "[::1]:9092", "a:1, b:2 ,c:3,"])
def test_brokers_are_named_as_java_s_client_takes_them(tmp_path: Path, server: str) -> None:
    assert said_of(tmp_path, f"bootstrap.servers={server}") == ""


@pytest.mark.parametrize("listed", ["a b=c", 'a" clientSecret="x=b', "=c", "a1=c", f"a={CANARY},b;=c"])
def test_a_name_of_an_extension_adds_nothing_to_a_login(tmp_path: Path, listed: str) -> None:
    """Its names stand in the login's line without quotes."""
    login = "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc\n"
    client = "sasl.oauthbearer.client.id=me\nsasl.oauthbearer.client.secret=whispered-24"
    text = f"{login}{TOKENS}=https://id/token\n{client}\nsasl.oauthbearer.extensions={listed}"
    said = said_of(tmp_path, text)
    assert "sasl.oauthbearer.extensions: expected name=value" in said
    assert CANARY not in said


HANDLER = "callback.handler.class"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f"sasl.mechanism=PLAIN\nsasl.jaas.config=com.sun.{CANARY} required username=u password=p;",
         f"sasl.jaas.config: the login module of PLAIN is {PLAIN}"),
        (f"sasl.mechanism=PLAIN\nsasl.jaas.config={PLAIN}2 required username=u password=p;",
         "the login module of PLAIN"),
        (f"sasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=p\nsasl.login.{HANDLER}=a.{CANARY}",
         f"sasl.login.{HANDLER}: PLAIN needs none"),
        (f"sasl.mechanism=OAUTHBEARER\n{{tokens}}\nsasl.login.{HANDLER}=a.{CANARY}\n"
         f"sasl.jaas.config={OAUTH} required clientId=a clientSecret=b;",
         f"sasl.login.{HANDLER}: that of OAUTHBEARER is "),
        (f"sasl.mechanism=AWS_MSK_IAM\nsasl.jaas.config={PLAIN} required;",
         "the login module of AWS_MSK_IAM is software"),
    ],
)  # fmt: skip
def test_a_file_names_no_class_but_those_of_its_mechanism(tmp_path: Path, lines: str, said: str) -> None:
    told = said_of(tmp_path, f"security.protocol=SASL_SSL\n{lines.format(tokens=f'{TOKENS}=https://i')}", "s")
    assert said in told
    assert CANARY not in told


def test_a_platform_s_word_before_the_class_of_a_login_is_taken(tmp_path: Path) -> None:
    line = f"sasl.jaas.config=kafkashaded.{PLAIN} required username=u password=p;"
    assert said_of(tmp_path, f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n{line}", "s") == ""
