"""One file that says how to reach a secured Kafka, translated for the two clients that are used.

The file is a Java `client.properties`, as every vendor prints it, or has librdkafka's names. Secrets stand in
it as `${env:NAME}` or `${file:/path}`. Spark's client, which is Java, gets Java's names and finds the secrets
by itself, so that they are in no option, log or checkpoint; librdkafka gets its own, secrets filled in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import ConfigurationError
from streaming.home.connection_keys import OPEN_KEY, SAME, SECRET_KEY, check_known, check_ours, is_idle
from streaming.home.connection_values import check_values
from streaming.home.jaas import jaas_options
from streaming.home.java_places import check_places, check_quotable, check_usable, trimmed
from streaming.home.java_properties import check_continued, property_lines
from streaming.home.kafka_login import QUOTED, Setting, completed_for_java, login_settings
from streaming.home.librdkafka_names import in_one_form
from streaming.home.msk_login import AWS_VARIABLES
from streaming.home.pem_stores import as_pem, check_form, text_of, trusted
from streaming.home.secret_places import SECRET_PLACE, looked_up
from streaming.output.redaction import keep_secret

Properties = Mapping[str, str]
RdKafka = Mapping[str, Setting]

_LOGIN = "sasl.jaas.config"
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
    spark: Properties = field(repr=False)
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
    try:
        check(properties)
        resolved, in_login = _resolved(properties, environ, str(path))
        check_usable(resolved)
        check_values(resolved)
        check_quotable(properties, resolved, in_login)
        known = as_pem(resolved)
        settings, spark = _librdkafka(known), _spark(_with_trust(properties, known))
        check_usable(settings)
    except ConfigurationError as fault:
        raise fault.within(str(path)) from None
    except ValueError as fault:
        raise ConfigurationError(str(fault), where=str(path)) from None
    _keep_secrets(settings)
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
        text = _text(path)
        check_continued(text)
        lines = property_lines(text)
        check_known(lines)
        found = in_one_form({line.key: trimmed(line.value) for line in lines})
        properties = {key: value for key, value in found.items() if not is_idle(key, value)}
        check_ours(properties)
        check_places(properties)
    except ConfigurationError as fault:
        raise fault.within(str(path)) from None
    return properties


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as fault:
        raise ConfigurationError(f"cannot be read: {fault}") from None
    except UnicodeDecodeError as fault:
        problem = f"cannot be read: it is no UTF-8 from byte {fault.start + 1} on; save it anew as UTF-8"
        raise ConfigurationError(problem) from None


def _resolved(
    properties: Properties, environ: Mapping[str, str], where: str
) -> tuple[dict[str, str], list[str]]:
    """Return the values with their secrets, and the secrets of the login one by one."""

    def found(value: str, key: str) -> str:
        said = looked_up(value, environ, where, key, is_secret=OPEN_KEY.match(key) is None)
        return said if key in QUOTED else trimmed(said)

    resolved = {key: found(value, key) for key, value in properties.items()}
    _keep_secrets(resolved)
    places = SECRET_PLACE.finditer(properties.get(_LOGIN, ""))
    return resolved, [looked_up(place[0], environ, where, _LOGIN) for place in places]


def _keep_secrets(settings: Mapping[str, Setting]) -> None:
    """Have them hidden, those of a login one by one, too."""
    for key, value in settings.items():
        if isinstance(value, str) and SECRET_KEY.search(key):
            keep_secret(value)
        if isinstance(value, str) and key == _LOGIN:
            with suppress(ValueError):
                _keep_secrets(jaas_options(value))


def secrets_in(properties: Properties) -> frozenset[str]:
    """Return what a file takes from elsewhere: `env:NAME`, `file:/path`, and `aws` for AWS's own login."""
    places = (place for value in properties.values() for place in SECRET_PLACE.findall(value))
    aws = {"aws"} if properties.get("sasl.mechanism") == "AWS_MSK_IAM" else set()
    return frozenset(f"{kind}:{name}" for kind, name in places) | aws


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
    settings: dict[str, Setting] = {key: known[key] for key in SAME if key in known}
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
        "ssl.keystore.type: PEM or PKCS12 is needed, and none named means JKS: convert it once with `keytool "
        "-importkeystore -srckeystore STORE -destkeystore store.p12 -deststoretype PKCS12`, then name that"
    )
