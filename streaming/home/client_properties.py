"""One file that says how to reach a secured Kafka, translated for the two clients that are used.

The file is a Java `client.properties`, as every vendor prints it, or has librdkafka's names. Secrets stand in
it as `${env:NAME}` or `${file:/path}`. Spark's client, which is Java, gets Java's names and finds the secrets
by itself, so that they are in no option, log or checkpoint; librdkafka gets its own, secrets filled in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import ConfigurationError, nearest
from streaming.home.kafka_login import KERBEROS, QUOTED, Setting, completed_for_java, login_settings
from streaming.home.librdkafka_names import LIBRDKAFKA, in_one_form
from streaming.home.msk_login import AWS_VARIABLES
from streaming.home.pem_stores import as_pem, check_form, text_of, trusted
from streaming.home.secret_places import SECRET_PLACE, looked_up
from streaming.output.redaction import keep_secret

Properties = Mapping[str, str]
RdKafka = Mapping[str, Setting]

_KEY = re.compile(r"((?:\\.|[^\\=:\s])*)(?:\s*[=:]\s*|\s+|$)(.*)", re.DOTALL)
_GOES_ON = re.compile(r"(?<!\\)(?:\\\\)*\\$")
_UNQUOTABLE = re.compile(r'["\\\r\n]')
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
SECRET_KEY = re.compile(r"(password|secret|jaas|token)(?!.*\.url$)|\.key$", re.IGNORECASE)
# The same name and meaning for both clients.
_SAME = (
    "client.id",
    "client.rack",
    "client.dns.lookup",
    "metadata.max.age.ms",
    "reconnect.backoff.ms",
    "reconnect.backoff.max.ms",
    "socket.connection.setup.timeout.ms",
)
_TLS = (
    "ssl.truststore.type",
    "ssl.truststore.location",
    "ssl.truststore.certificates",
    "ssl.truststore.password",
    "ssl.keystore.type",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.key",
    "ssl.keystore.certificate.chain",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
)
_SASL = (
    "sasl.mechanism",
    "sasl.jaas.config",
    "sasl.username",
    "sasl.password",
    "sasl.login.callback.handler.class",
    "sasl.client.callback.handler.class",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.extensions",
    "https.ca.location",
    "https.ca.pem",
)
KNOWN = ("bootstrap.servers", "security.protocol", "compression.type", *_SAME, *_TLS, *_SASL)
# What decides that nothing is lost or doubled is not for a file of connections to say.
_OURS = (
    "acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "key.deserializer",
    "key.serializer",
    "transactional.id",
    "value.deserializer",
    "value.serializer",
)
# Vendors print these; they agree with what is done anyway, or concern groups that share out partitions.
_AGREED = {
    "acks": ("all", "-1"),
    "enable.auto.commit": ("false",),
    "enable.idempotence": ("true",),
    "isolation.level": ("read_committed",),
}
_NOT_OURS = ("session.timeout.ms",)
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_PROVIDERS = "org.apache.kafka.common.config.provider"


@dataclass(frozen=True)
class ClientProperties:
    """How brokers are reached.

    Attributes:
        bootstrap: their addresses, None where the file names none.
        compression: of what is sent, None for the default.
        spark: options of Spark's Kafka source; secrets stand as places that the JVM looks up.
        secret_names: environment variables that secrets come from: Spark's JVM needs them, too.
        token_url: where tokens are fetched, which a JVM has to be allowed; None for other logins.
        msk: the login is AWS's own, for which Spark needs a jar more.
        librdkafka: settings of librdkafka, secrets included.
    """

    bootstrap: str | None
    compression: str | None
    spark: Properties
    secret_names: frozenset[str]
    librdkafka: RdKafka = field(repr=False)
    token_url: str | None = None
    msk: bool = False


def load_properties(
    path: Path, environ: Mapping[str, str], check: Callable[[Properties], None] = lambda _: None
) -> ClientProperties:
    """Read a `client.properties`.

    Args:
        environ: where `${env:NAME}` is looked up.
        check: raises where the file, its secrets not looked up yet, is not to be used.

    Raises:
        ConfigurationError: it cannot be read, holds a key that is unknown or ours to set, or a store or a
            mechanism that cannot be used; naming file and key, and never a secret.
    """
    properties = written_properties(path)
    check(properties)
    where = str(path)
    resolved = {key: looked_up(value, environ, where, key) for key, value in properties.items()}
    try:
        _check_quotable(properties, resolved)
        known = as_pem(resolved)
        settings, spark = _librdkafka(known), _spark(_with_trust(properties, known))
    except ValueError as fault:
        raise ConfigurationError(str(fault), where=str(path)) from None
    for key, value in (*resolved.items(), *settings.items()):
        if SECRET_KEY.search(key) and isinstance(value, str):
            keep_secret(value)
    msk = resolved.get("sasl.mechanism") == "AWS_MSK_IAM"
    return ClientProperties(
        bootstrap=resolved.get("bootstrap.servers"),
        compression=resolved.get("compression.type"),
        spark=spark,
        secret_names=_names(properties) | (AWS_VARIABLES if msk else frozenset()),
        librdkafka=settings,
        token_url=resolved.get("sasl.oauthbearer.token.endpoint.url"),
        msk=msk,
    )


def written_properties(path: Path) -> Properties:
    """Return what stands in a `client.properties`, secrets by their places.

    Raises:
        ConfigurationError: it cannot be read, or holds a key that is unknown or ours to set.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from None
    try:
        known = in_one_form(parse_properties(text))
    except ConfigurationError as fault:
        raise fault.within(str(path)) from None
    properties = {key: value for key, value in known.items() if not _is_idle(key, value)}
    _check_keys(properties, path)
    return properties


def secrets_in(properties: Properties) -> frozenset[str]:
    """Return what a file takes from elsewhere: `env:NAME`, `file:/path`, and `aws` for AWS's own login."""
    places = (place for value in properties.values() for place in SECRET_PLACE.findall(value))
    aws = {"aws"} if properties.get("sasl.mechanism") == "AWS_MSK_IAM" else set()
    return frozenset(f"{kind}:{name}" for kind, name in places) | aws


def parse_properties(text: str) -> dict[str, str]:
    """Parse Java's properties format: escapes, continued lines, `=`, `:` or blanks after the key."""
    found = {}
    for line in _logical_lines(text):
        match = _KEY.match(line)
        assert match is not None, "every part of the pattern may be empty"
        found[_unescaped(match[1])] = _unescaped(match[2])
    return found


def _logical_lines(text: str) -> Iterator[str]:
    lines = iter(_LINE_ENDS.split(text))
    for each in lines:
        line = each.lstrip()
        if not line or line[0] in "#!":
            continue
        while _GOES_ON.search(line):
            line = line[:-1] + next(lines, "").lstrip()
        yield line


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        said = match[1]
        return chr(int(said[1:], 16)) if len(said) > 1 else _CONTROLS.get(said, said)

    # Java escapes a character beyond 16 bits as two.
    return _ESCAPE.sub(one, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_idle(key: str, value: str) -> bool:
    return key in _NOT_OURS or value in _AGREED.get(key, ())


def _check_keys(properties: Properties, path: Path) -> None:
    for key in properties:
        if key in _OURS:
            problem = "is set by flagstream, so that nothing is lost or sent twice: remove the line"
            raise ConfigurationError(problem, where=str(path), key=key)
        if key.startswith("sasl.kerberos."):
            raise ConfigurationError(KERBEROS, where=str(path), key=key)
        if key not in KNOWN:
            problem = f"unknown key; {nearest(key, (*KNOWN, *LIBRDKAFKA))}"
            raise ConfigurationError(problem, where=str(path), key=key)
    protocol = properties.get("security.protocol", "PLAINTEXT")
    if protocol not in _PROTOCOLS:
        problem = f"no protocol {protocol!r}; {nearest(protocol, _PROTOCOLS)}"
        raise ConfigurationError(problem, where=str(path), key="security.protocol")


def _check_quotable(written: Properties, resolved: Properties) -> None:
    """The JVM fills secrets into a line that is escaped already, as they are; whole values it strips."""
    for key, value in written.items():
        if key in QUOTED and value != resolved[key] and _UNQUOTABLE.search(resolved[key]):
            raise ValueError(
                f"{key}: what its place holds has a quote, a backslash or a second line, and Spark's client "
                "would misread it: put the whole login, escaped as Java wants it, into a variable, and write "
                "sasl.jaas.config=${env:NAME}"
            )
        for kind, name in SECRET_PLACE.findall(value):
            part = key in QUOTED or SECRET_PLACE.fullmatch(value) is None
            if kind == "file" and part and _ends_in_blanks(Path(name)):
                raise ValueError(
                    f"{key}: {name} begins or ends with a blank or a line's end, which Spark's client takes "
                    "for a part of the secret: write the file without, as `printf %s` does"
                )


def _ends_in_blanks(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return text != text.strip()


def _with_trust(written: Properties, resolved: Properties) -> Properties:
    """Return what Spark's client gets: certificates of a PKCS12 store as their text, which is no secret."""
    if "ssl.truststore.certificates" in written or "ssl.truststore.certificates" not in resolved:
        return written
    trust = {key: value for key, value in resolved.items() if key.startswith("ssl.truststore.")}
    return {
        **{key: value for key, value in written.items() if not key.startswith("ssl.truststore.")},
        **trust,
    }


def _spark(properties: Properties) -> dict[str, str]:
    """Name the places of secrets as Kafka's own providers do; a whole file is `${file:DIRECTORY:NAME}`."""
    names = _names(properties)
    files = any(kind == "file" for value in properties.values() for kind, _ in SECRET_PLACE.findall(value))
    options = {
        f"kafka.{key}": SECRET_PLACE.sub(_java_place, value)
        for key, value in completed_for_java(properties).items()
        if key not in ("bootstrap.servers", "compression.type")
    }
    providers = [*(["env"] if names else []), *(["file"] if files else [])]
    if providers:
        options["kafka.config.providers"] = ",".join(providers)
    if names:
        options["kafka.config.providers.env.class"] = f"{_PROVIDERS}.EnvVarConfigProvider"
        options["kafka.config.providers.env.param.allowlist.pattern"] = "|".join(sorted(names))
    if files:
        options["kafka.config.providers.file.class"] = f"{_PROVIDERS}.DirectoryConfigProvider"
    return options


def _java_place(match: re.Match[str]) -> str:
    if match[1] == "env":
        return match[0]
    path = Path(match[2])
    return f"${{file:{path.parent}:{path.name}}}"


def _names(properties: Properties) -> frozenset[str]:
    return frozenset(
        name for value in properties.values() for kind, name in SECRET_PLACE.findall(value) if kind == "env"
    )


def _librdkafka(known: Properties) -> dict[str, Setting]:
    settings: dict[str, Setting] = {key: known[key] for key in _SAME if key in known}
    protocol = known.get("security.protocol", "PLAINTEXT")
    if "security.protocol" in known:
        settings["security.protocol"] = protocol
    if protocol.endswith("SSL"):
        settings |= _tls(known)
    if protocol.startswith("SASL"):
        settings |= login_settings(known)
    return settings


def _tls(known: Properties) -> dict[str, str]:
    settings = {**trusted(known), **_own_key(known)}
    if "ssl.key.password" in known:
        settings["ssl.key.password"] = known["ssl.key.password"]
    name = "ssl.endpoint.identification.algorithm"
    return {**settings, name: known[name] or "none"} if name in known else settings


def _own_key(known: Properties) -> dict[str, str]:
    if "ssl.keystore.key" in known:
        check_form("ssl.keystore.key", known["ssl.keystore.key"])
        chain = known.get("ssl.keystore.certificate.chain", "")
        return {"ssl.key.pem": known["ssl.keystore.key"], "ssl.certificate.pem": chain}
    if "ssl.keystore.location" not in known:
        return {}
    kind, place = known.get("ssl.keystore.type", "JKS"), known["ssl.keystore.location"]
    if kind == "PEM" and "ssl.keystore.password" in known:
        raise ValueError(
            "ssl.keystore.password stands beside a store of type PEM, which has none: the key's own is "
            "ssl.key.password"
        )
    if kind == "PEM":
        check_form("ssl.keystore.location", text_of(place))
        return {"ssl.certificate.location": place, "ssl.key.location": place}
    if kind == "PKCS12":
        password = known.get("ssl.keystore.password", "")
        return {"ssl.keystore.location": place, "ssl.keystore.password": password}
    raise ValueError(
        f"ssl.keystore.type is {kind}, and PEM or PKCS12 is needed: convert it once with `keytool "
        "-importkeystore -srckeystore STORE -destkeystore store.p12 -deststoretype PKCS12`, then name that"
    )
