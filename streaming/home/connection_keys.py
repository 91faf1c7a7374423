"""Which keys a connection file may have, and what is said of others; never what stands on their lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from schemas.errors import ConfigurationError, nearest
from streaming.home.java_properties import PropertyLine
from streaming.home.kafka_login import KERBEROS
from streaming.home.librdkafka_names import LIBRDKAFKA

SECRET_KEY = re.compile(r"(password|secret|jaas|token)(?!.*\.url$)|\.key$", re.IGNORECASE)
# What may be shown though it comes from a place of secrets.
OPEN_KEY = re.compile(
    r"(bootstrap\.servers|security\.protocol|client\..*|.*\.(type|location|mechanism|algorithm|class|url|ms))$"
)
# The same name and meaning for both clients.
SAME = (
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
KNOWN = ("bootstrap.servers", "security.protocol", "compression.type", *SAME, *_TLS, *_SASL)
# What decides that nothing is lost or doubled is not for a file of connections to say.
OURS = (
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
_OF_KERBEROS = (
    "sasl.kerberos.keytab",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.kerberos.ticket.renew.jitter",
    "sasl.kerberos.ticket.renew.window.factor",
)
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def check_known(lines: Iterable[PropertyLine]) -> None:
    """Check that each line begins with a key that is known here.

    Raises:
        ConfigurationError: one does not; naming its number alone, since it may be a part of a secret.
    """
    known = {*KNOWN, *LIBRDKAFKA, *OURS, *_NOT_OURS, *_OF_KERBEROS}
    for line in lines:
        if line.key not in known:
            raise ConfigurationError(_unknown(line), key=f"line {line.number}")


def _unknown(line: PropertyLine) -> str:
    hint = nearest(line.key, (*KNOWN, *LIBRDKAFKA))
    if hint.startswith("did you mean"):
        return f"unknown key; {hint}"
    if line.key.startswith("-----") or not line.value:
        return (
            "unknown key; a value that goes on in the next line ends each line with a backslash, and one "
            r"of several lines, such as a certificate, has \n for each of their ends"
        )
    strange = next((each for each in line.key if not "!" <= each <= "~"), None)
    if strange is not None:
        return f"unknown key; it holds the character U+{ord(strange):04X}, as web pages have it: type it anew"
    return f"unknown key; {hint}"


def is_idle(key: str, value: str) -> bool:
    """Say whether a line asks for what is done anyway."""
    return key in _NOT_OURS or value in _AGREED.get(key, ())


def check_ours(properties: Mapping[str, str]) -> None:
    """Check that nothing is set that is flagstream's to set or that cannot be used.

    Raises:
        ConfigurationError: naming the key.
    """
    for key in properties:
        if key in OURS:
            problem = "is set by flagstream, so that nothing is lost or sent twice: remove the line"
            raise ConfigurationError(problem, key=key)
        if key in _OF_KERBEROS:
            raise ConfigurationError(KERBEROS, key=key)
    if properties.get("security.protocol", "PLAINTEXT") not in _PROTOCOLS:
        problem = f"no such protocol; expected one of: {', '.join(_PROTOCOLS)}"
        raise ConfigurationError(problem, key="security.protocol")
