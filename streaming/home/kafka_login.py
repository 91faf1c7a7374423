"""How a client proves who it is to a broker: SASL in librdkafka's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from streaming.home.jaas import jaas_module, jaas_options, quoted
from streaming.home.msk_login import HANDLER, MODULE, Token, msk_tokens
from streaming.home.pem_stores import of_the_machine, trusted

_ENDPOINT = "sasl.oauthbearer.token.endpoint.url"
_CREDENTIALS = "sasl.oauthbearer.client.credentials.client."
_EXTENSION, _EXTENSIONS = "extension_", "sasl.oauthbearer.extensions"
# What Kafka's clients take for the name of an extension.
_NAME = re.compile(r"(?:extension_)?[A-Za-z.]+")
_LOGIN_HANDLER = "sasl.login.callback.handler.class"
_CLIENT_HANDLER = "sasl.client.callback.handler.class"
_MECHANISMS = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER with a token endpoint, and AWS_MSK_IAM"
KERBEROS = (
    "Kerberos (GSSAPI) cannot be used, since the Kafka client for Python is built without it: have the "
    "brokers offer SCRAM-SHA-512, OAUTHBEARER or client certificates beside it, and name that"
)
_SECURITY = "org.apache.kafka.common.security"
_BY_PASSWORD = {
    "PLAIN": f"{_SECURITY}.plain.PlainLoginModule",
    "SCRAM-SHA-256": f"{_SECURITY}.scram.ScramLoginModule",
    "SCRAM-SHA-512": f"{_SECURITY}.scram.ScramLoginModule",
}
_USER = ("sasl.username", "sasl.password")
_AUTHORITY = {"https.ca.location": "location", "https.ca.pem": "certificates"}
_LOGIN = f"{_SECURITY}.oauthbearer"
_BY_TOKEN = f"{_LOGIN}.OAuthBearerLoginModule"
# A class of Java that a file names is run by Spark's JVM, so no others may be named. Clients before 3.4 have
# the handler elsewhere, and platforms put a word of theirs before the names.
_MODULES = {**_BY_PASSWORD, "OAUTHBEARER": _BY_TOKEN, "AWS_MSK_IAM": MODULE}
_FETCHES = "OAuthBearerLoginCallbackHandler"
_HANDLERS = {
    ("OAUTHBEARER", _LOGIN_HANDLER): (f"{_LOGIN}.{_FETCHES}", f"{_LOGIN}.secured.{_FETCHES}"),
    ("AWS_MSK_IAM", _CLIENT_HANDLER): (HANDLER,),
}
_PLATFORMS = re.compile(r"^(?:kafkashaded|shadedmskiam)\.")
# What `completed_for_java` puts between quotes.
QUOTED = (
    *_USER,
    f"{_CREDENTIALS}id",
    f"{_CREDENTIALS}secret",
    "sasl.oauthbearer.scope",
    _EXTENSIONS,
    *_AUTHORITY,
)
Setting = str | int | bool | Callable[[str], Token]


def login_settings(known: Mapping[str, str]) -> dict[str, Setting]:
    """Return librdkafka's settings for the mechanism that Java's properties name.

    Raises:
        ValueError: a mechanism or a class that cannot be used, or a login without user or password.
    """
    mechanism, options = known.get("sasl.mechanism", "GSSAPI"), jaas_options(known.get("sasl.jaas.config"))
    _check_classes(known, mechanism)
    if mechanism in _BY_PASSWORD:
        return {"sasl.mechanism": mechanism, **_by_password(known, options)}
    if mechanism == "AWS_MSK_IAM":
        tokens = msk_tokens(known.get("bootstrap.servers", ""), options)
        return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": tokens}
    if mechanism == "OAUTHBEARER" and _ENDPOINT in known:
        return _by_token(known, options)
    if mechanism == "OAUTHBEARER" and "unsecuredLoginStringClaim_sub" in options:
        principal = options["unsecuredLoginStringClaim_sub"]
        return {
            "sasl.mechanism": mechanism,
            "enable.sasl.oauthbearer.unsecure.jwt": True,
            "sasl.oauthbearer.config": f"principal={principal}",
        }
    if mechanism == "GSSAPI":
        said = "sasl.mechanism: " if "sasl.mechanism" in known else "no sasl.mechanism, which means GSSAPI: "
        raise ValueError(f"{said}{KERBEROS}")
    raise ValueError(f"sasl.mechanism: no such one can be used; {_MECHANISMS} can")


def _check_classes(known: Mapping[str, str], mechanism: str) -> None:
    """Check that the classes of Java that are named are those of the mechanism; they are not shown."""
    module, line = _MODULES.get(mechanism), known.get("sasl.jaas.config")
    if module and line and _PLATFORMS.sub("", jaas_module(line)) != module:
        raise ValueError(f"sasl.jaas.config: the login module of {mechanism} is {module}")
    for name in (_LOGIN_HANDLER, _CLIENT_HANDLER):
        handlers = _HANDLERS.get((mechanism, name), ())
        if name in known and _PLATFORMS.sub("", known[name]) not in handlers:
            few = f"that of {mechanism} is {handlers[0]}" if handlers else f"{mechanism} needs none"
            raise ValueError(f"{name}: {few}")


def _by_password(known: Mapping[str, str], options: Mapping[str, str]) -> dict[str, str]:
    beside = {name: known[name] for name in _USER if name in known}
    found = beside or {f"sasl.{name}": value for name, value in options.items()}
    for name in _USER:
        if name not in found:
            short = name.removeprefix("sasl.")
            raise ValueError(f"there is no {name}" if beside else f'sasl.jaas.config has no {short}="..."')
    return {name: found[name] for name in _USER}


def completed_for_java(written: Mapping[str, str]) -> dict[str, str]:
    """Return properties with what Spark's client wants said besides: how to log in, and by what.

    Args:
        written: as they stand in the file, secrets by their places.

    Raises:
        ValueError: an extension has a name that no client sends.
    """
    properties, mechanism = dict(written), written.get("sasl.mechanism", "")
    user, password = (properties.pop(name, None) for name in _USER)
    if user is not None and password is not None and mechanism in _BY_PASSWORD:
        login = f'username="{quoted(user)}" password="{quoted(password)}"'
        return {"sasl.jaas.config": f"{_BY_PASSWORD[mechanism]} required {login};", **properties}
    if mechanism == "AWS_MSK_IAM":
        return {"sasl.jaas.config": f"{MODULE} required;", _CLIENT_HANDLER: HANDLER, **properties}
    if mechanism != "OAUTHBEARER" or _ENDPOINT not in written:
        return properties
    client, secret = (properties.pop(f"{_CREDENTIALS}{each}", "") for each in ("id", "secret"))
    scope = properties.pop("sasl.oauthbearer.scope", None)
    options = {"clientId": client, "clientSecret": secret, **({} if scope is None else {"scope": scope})}
    options |= {f"{_EXTENSION}{name}": value for name, value in _extensions(properties.pop(_EXTENSIONS, ""))}
    for name, kind in _AUTHORITY.items():
        if name in properties:
            options |= {"ssl.truststore.type": "PEM", f"ssl.truststore.{kind}": properties.pop(name)}
    line = " ".join(f'{name}="{quoted(value)}"' for name, value in options.items())
    if any(not _NAME.fullmatch(name) for name in options):
        raise ValueError(
            f"{_EXTENSIONS}: expected name=value with commas between them, names of letters alone"
        )
    login = f"{_BY_TOKEN} required {line};"
    handler = f"{_LOGIN}.OAuthBearerLoginCallbackHandler"
    return {"sasl.jaas.config": login, _LOGIN_HANDLER: handler, **properties}


def _by_token(known: Mapping[str, str], options: Mapping[str, str]) -> dict[str, Setting]:
    client = options.get("clientId") or known.get(f"{_CREDENTIALS}id")
    secret = options.get("clientSecret") or known.get(f"{_CREDENTIALS}secret")
    if not client or not secret:
        raise ValueError("OAUTHBEARER needs clientId and clientSecret, in sasl.jaas.config")
    scope = options.get("scope") or known.get("sasl.oauthbearer.scope")
    extensions = [
        f"{name.removeprefix(_EXTENSION)}={value}"
        for name, value in options.items()
        if name.startswith(_EXTENSION)
    ] or [f"{name}={value}" for name, value in _extensions(known.get(_EXTENSIONS, ""))]
    return {
        **_authority(known, options),
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        _ENDPOINT: known[_ENDPOINT],
        "sasl.oauthbearer.client.id": client,
        "sasl.oauthbearer.client.secret": secret,
        **({"sasl.oauthbearer.scope": scope} if scope else {}),
        **({_EXTENSIONS: ",".join(extensions)} if extensions else {}),
    }


def _extensions(listed: str) -> list[tuple[str, str]]:
    """Return the pairs of librdkafka's `name=value,name=value`."""
    parts = (each.strip().partition("=") for each in listed.split(",") if each.strip())
    return [(name, value) for name, _, value in parts]


def _authority(known: Mapping[str, str], options: Mapping[str, str]) -> dict[str, str]:
    """Return who vouches for the issuer of tokens; Java's client reads that from the login alone."""
    beside = {name: known[name] for name in _AUTHORITY if name in known}
    if beside and "sasl.jaas.config" in known:
        raise ValueError(
            f"{next(iter(beside))} stands beside sasl.jaas.config, where Java's client would not see it: "
            'write ssl.truststore.type="PEM" ssl.truststore.location="/path/to/ca.pem" into that line'
        )
    named = beside or trusted(options, "https")
    if named or not known[_ENDPOINT].lower().startswith("https:"):
        return named
    return of_the_machine("https")
