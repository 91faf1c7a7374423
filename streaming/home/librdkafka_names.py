"""A connection that is written in librdkafka's names, under the names that are used here: Java's.

Where Java has a login module instead of a name, librdkafka's own stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from schemas.errors import ConfigurationError

_CREDENTIALS = "sasl.oauthbearer.client.credentials.client."
_LOGIN, _TRUST, _OWN = "sasl.jaas.config", "ssl.truststore.", "ssl.keystore."
# Ends of two names for one thing: as it is, and where it lies.
_TEXT, _FILE = ".pem", ".location"
# Name here, and what of Java's says the same, by the beginnings of its names.
LIBRDKAFKA: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "metadata.broker.list": ("bootstrap.servers", ("bootstrap.servers",)),
    "compression.codec": ("compression.type", ("compression.type",)),
    "request.required.acks": ("acks", ("acks",)),
    "sasl.mechanisms": ("sasl.mechanism", ("sasl.mechanism",)),
    "sasl.username": ("sasl.username", (_LOGIN,)),
    "sasl.password": ("sasl.password", (_LOGIN,)),
    "sasl.oauthbearer.method": ("sasl.oauthbearer.method", ()),
    "sasl.oauthbearer.client.id": (f"{_CREDENTIALS}id", (f"{_CREDENTIALS}id", _LOGIN)),
    "sasl.oauthbearer.client.secret": (f"{_CREDENTIALS}secret", (f"{_CREDENTIALS}secret", _LOGIN)),
    "sasl.oauthbearer.extensions": ("sasl.oauthbearer.extensions", (_LOGIN,)),
    "enable.ssl.certificate.verification": ("enable.ssl.certificate.verification", ()),
    "ssl.ca.location": (f"{_TRUST}location", (_TRUST,)),
    "ssl.ca.pem": (f"{_TRUST}certificates", (_TRUST,)),
    "ssl.certificate.location": ("ssl.certificate.location", (_OWN,)),
    "ssl.certificate.pem": (f"{_OWN}certificate.chain", (_OWN,)),
    "ssl.key.location": ("ssl.key.location", (_OWN,)),
    "ssl.key.pem": (f"{_OWN}key", (_OWN,)),
}
# Templates leave these empty where there is nothing to name; clients would look for a file without a name.
_NAMED_BY_NOTHING = re.compile(r"(ssl|https)\..*(location|pem|type|certificates|chain|key|key\.password)$")
_CAPITALS = ("security.protocol", "sasl.mechanism", f"{_TRUST}type", f"{_OWN}type")
# What agrees with what is done anyway, and what to do about all else.
_ONLY = {
    "enable.ssl.certificate.verification": (
        "true",
        "may not be switched off, since whoever answers could be anybody: name who vouches for the "
        "brokers in ssl.ca.location",
    ),
    "sasl.oauthbearer.method": ("oidc", "only oidc can be used"),
}


def in_one_form(written: Mapping[str, str]) -> dict[str, str]:
    """Return what stands in a file of either form, each setting under its one name.

    Args:
        written: secrets by their places.

    Raises:
        ConfigurationError: naming the key: a line says again what another one says, cannot be used, or
            lacks another one.
    """
    written = {key: value for key, value in written.items() if value or not _NAMED_BY_NOTHING.match(key)}
    _check_once(written)
    found = {LIBRDKAFKA.get(key, (key,))[0]: value for key, value in written.items()}
    if written.get("ssl.ca.location") == "probe":
        del found[f"{_TRUST}location"]  # what both do where nothing is named
    elif "ssl.ca.location" in written:
        found |= {f"{_TRUST}type": "PEM"}
    # Java's clients take this in any case, librdkafka's examples have it in small letters.
    found |= {key: value.upper() for key, value in found.items() if key in _CAPITALS}
    found |= {key: value.lower() for key, value in found.items() if key == "compression.type"}
    if found.get("ssl.endpoint.identification.algorithm") == "none":
        found["ssl.endpoint.identification.algorithm"] = ""
    if any(key in LIBRDKAFKA for key in written) and f"{_OWN}location" in found:
        found.setdefault(f"{_OWN}type", "PKCS12")  # of stores librdkafka knows no other
    return _with_types(_with_own_key(_without_agreed(found)))


def _check_once(written: Mapping[str, str]) -> None:
    java = [key for key in written if key not in LIBRDKAFKA]
    for key in written:
        for same in LIBRDKAFKA.get(key, ("", ()))[1]:
            twice = [each for each in java if each == same or (same[-1] == "." and each.startswith(same))]
            _refuse_beside(key, twice)
        in_a_file = f"{key.removesuffix(_TEXT)}{_FILE}"
        _refuse_beside(key, [in_a_file] if key.endswith(_TEXT) and in_a_file in written else [])


def _refuse_beside(key: str, twice: Sequence[str]) -> None:
    if twice:
        raise ConfigurationError(f"says what {twice[0]} says, too: keep one of them", key=key)


def _without_agreed(found: dict[str, str]) -> dict[str, str]:
    for key, (agreed, problem) in _ONLY.items():
        if found.pop(key, agreed).lower() != agreed:
            raise ConfigurationError(problem, key=key)
    return found


def _with_own_key(found: dict[str, str]) -> dict[str, str]:
    """Java's clients want certificate and key in one file, or the texts of both."""
    places = {"certificate.chain": "ssl.certificate.location", "key": "ssl.key.location"}
    chain, key = (found.get(each) for each in places.values())
    if chain is not None and chain == key:
        del found["ssl.certificate.location"], found["ssl.key.location"]
        return {**found, f"{_OWN}type": "PEM", f"{_OWN}location": chain}
    for kind, name in places.items():
        if name in found:
            found[f"{_OWN}{kind}"] = _text_at(name, found.pop(name))
    for kind, other in (("certificate.chain", "key"), ("key", "certificate.chain")):
        if f"{_OWN}{kind}" in found and f"{_OWN}{other}" not in found:
            raise ConfigurationError(
                f"stands without {'a key' if other == 'key' else 'its certificate'}", key=f"{_OWN}{kind}"
            )
    return found


def _text_at(name: str, path: str) -> str:
    if "${" in path or "}" in path:
        raise ConfigurationError("certificate and key are two files: name each as it is", key=name)
    return f"${{file:{path}}}"


def _with_types(found: dict[str, str]) -> dict[str, str]:
    for store, text in ((_TRUST, "certificates"), (_OWN, "key")):
        if f"{store}{text}" in found:
            found.setdefault(f"{store}type", "PEM")
    return found
