"""One file that says how to reach a secured Kafka, translated for the two clients that are used.

The file is a Java `client.properties`, as every vendor prints it. Secrets stand in it as `${env:NAME}` or
`${file:/path}`. Spark's client, which is Java, gets it as it is and finds the secrets by itself, so that they
are in no option, log or checkpoint; librdkafka gets its own names, with the secrets filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import ConfigurationError, nearest
from streaming.home.kafka_login import Setting, completed_for_java, login_settings
from streaming.home.msk_login import AWS_VARIABLES
from streaming.output.redaction import keep_secret

Properties = Mapping[str, str]
RdKafka = Mapping[str, Setting]

_PLACE = re.compile(r"\$\{(env|file):([^}]+)\}")
_KEY = re.compile(r"((?:\\.|[^\\=:\s])*)(?:\s*[=:]\s*|\s+|$)(.*)", re.DOTALL)
_GOES_ON = re.compile(r"(?<!\\)(?:\\\\)*\\$")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_SECRET = re.compile(r"(password|secret|jaas|token)(?!.*\.url$)|\.key$", re.IGNORECASE)
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
    "sasl.login.callback.handler.class",
    "sasl.client.callback.handler.class",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
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


def load_properties(path: Path, environ: Mapping[str, str]) -> ClientProperties:
    """Read a `client.properties`.

    Raises:
        ConfigurationError: it cannot be read, holds a key that is unknown or ours to set, or a store or a
            mechanism that cannot be used; naming file and key, and never a secret.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from None
    properties = {key: value for key, value in parse_properties(text).items() if not _is_idle(key, value)}
    _check_keys(properties, path)
    resolved = {key: _resolved(value, environ, path, key) for key, value in properties.items()}
    try:
        settings = _librdkafka(resolved)
    except ValueError as fault:
        raise ConfigurationError(str(fault), where=str(path)) from None
    for key, value in (*resolved.items(), *settings.items()):
        if _SECRET.search(key) and isinstance(value, str):
            keep_secret(value)
    msk = resolved.get("sasl.mechanism") == "AWS_MSK_IAM"
    return ClientProperties(
        bootstrap=resolved.get("bootstrap.servers"),
        compression=resolved.get("compression.type"),
        spark=_spark(properties),
        secret_names=_names(properties) | (AWS_VARIABLES if msk else frozenset()),
        librdkafka=settings,
        token_url=resolved.get("sasl.oauthbearer.token.endpoint.url"),
        msk=msk,
    )


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
        if key not in KNOWN:
            raise ConfigurationError(f"unknown key; {nearest(key, KNOWN)}", where=str(path), key=key)
    protocol = properties.get("security.protocol", "PLAINTEXT")
    if protocol not in _PROTOCOLS:
        problem = f"no protocol {protocol!r}; {nearest(protocol, _PROTOCOLS)}"
        raise ConfigurationError(problem, where=str(path), key="security.protocol")


def _resolved(value: str, environ: Mapping[str, str], path: Path, key: str) -> str:
    def one(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        try:
            return environ[name] if kind == "env" else Path(name).read_text(encoding="utf-8").strip()
        except KeyError:
            problem = f"the environment has no {name}"
        except (OSError, UnicodeDecodeError):
            problem = f"no file that can be read at {name}"
        raise ConfigurationError(problem, where=str(path), key=key)

    return _PLACE.sub(one, value)


def _spark(properties: Properties) -> dict[str, str]:
    """Name the places of secrets as Kafka's own providers do; a whole file is `${file:DIRECTORY:NAME}`."""
    names = _names(properties)
    files = any(kind == "file" for value in properties.values() for kind, _ in _PLACE.findall(value))
    options = {
        f"kafka.{key}": _PLACE.sub(_java_place, value)
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
        name for value in properties.values() for kind, name in _PLACE.findall(value) if kind == "env"
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
    settings = {**_trusted(known), **_own_key(known)}
    if "ssl.key.password" in known:
        settings["ssl.key.password"] = known["ssl.key.password"]
    name = "ssl.endpoint.identification.algorithm"
    return {**settings, name: known[name] or "none"} if name in known else settings


def _trusted(known: Properties) -> dict[str, str]:
    if "ssl.truststore.certificates" in known:
        return {"ssl.ca.pem": known["ssl.truststore.certificates"]}
    if "ssl.truststore.location" not in known:
        return {}
    kind = known.get("ssl.truststore.type", "JKS")
    if kind != "PEM":
        raise ValueError(
            f"ssl.truststore.type is {kind}, and PEM is needed: write the certificates out once with "
            "`keytool -list -rfc -keystore STORE > ca.pem`, then name ca.pem and the type PEM"
        )
    return {"ssl.ca.location": known["ssl.truststore.location"]}


def _own_key(known: Properties) -> dict[str, str]:
    if "ssl.keystore.key" in known:
        chain = known.get("ssl.keystore.certificate.chain", "")
        return {"ssl.key.pem": known["ssl.keystore.key"], "ssl.certificate.pem": chain}
    if "ssl.keystore.location" not in known:
        return {}
    kind, place = known.get("ssl.keystore.type", "JKS"), known["ssl.keystore.location"]
    if kind == "PEM":
        return {"ssl.certificate.location": place, "ssl.key.location": place}
    if kind == "PKCS12":
        password = known.get("ssl.keystore.password", "")
        return {"ssl.keystore.location": place, "ssl.keystore.password": password}
    raise ValueError(
        f"ssl.keystore.type is {kind}, and PEM or PKCS12 is needed: convert it once with `keytool "
        "-importkeystore -srckeystore STORE -destkeystore store.p12 -deststoretype PKCS12`, then name that"
    )
