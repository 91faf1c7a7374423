"""How a client proves who it is to a broker: SASL in librdkafka's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from streaming.home.msk_login import HANDLER, MODULE, Token, msk_tokens

_MODULE = re.compile(
    r"\s*([\w.$]+)\s+(?:required|requisite|sufficient|optional)\b(.*);\s*\Z", re.DOTALL | re.IGNORECASE
)
_OPTION = re.compile(r"""\s*([\w.-]+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|([^\s;"']+))""")
_ENDPOINT = "sasl.oauthbearer.token.endpoint.url"
_CREDENTIALS = "sasl.oauthbearer.client.credentials.client."
_EXTENSION = "extension_"
_LOGIN_HANDLER = "sasl.login.callback.handler.class"
_CLIENT_HANDLER = "sasl.client.callback.handler.class"
_MECHANISMS = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER with a token endpoint, and AWS_MSK_IAM"
_LOGIN = "org.apache.kafka.common.security.oauthbearer"
Setting = str | int | bool | Callable[[str], Token]


def login_settings(known: Mapping[str, str]) -> dict[str, Setting]:
    """Return librdkafka's settings for the mechanism that Java's properties name.

    Raises:
        ValueError: a mechanism that cannot be used, or a login without user or password.
    """
    mechanism, options = known.get("sasl.mechanism", "GSSAPI"), jaas_options(known.get("sasl.jaas.config"))
    if mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        for name in ("username", "password"):
            if name not in options:
                raise ValueError(f'sasl.jaas.config has no {name}="..."')
        login = {"sasl.username": options["username"], "sasl.password": options["password"]}
        return {"sasl.mechanism": mechanism, **login}
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
    raise ValueError(f"sasl.mechanism {mechanism} cannot be used; {_MECHANISMS} can")


def completed_for_java(written: Mapping[str, str]) -> dict[str, str]:
    """Return properties with what Spark's client wants said besides: how to log in, and by what.

    Args:
        written: as they stand in the file, secrets by their places.
    """
    properties, mechanism = dict(written), written.get("sasl.mechanism")
    if mechanism == "AWS_MSK_IAM":
        return {"sasl.jaas.config": f"{MODULE} required;", _CLIENT_HANDLER: HANDLER, **properties}
    if mechanism != "OAUTHBEARER" or _ENDPOINT not in written:
        return properties
    client, secret = (properties.pop(f"{_CREDENTIALS}{each}", "") for each in ("id", "secret"))
    scope = properties.pop("sasl.oauthbearer.scope", None)
    options = {"clientId": client, "clientSecret": secret, **({} if scope is None else {"scope": scope})}
    line = " ".join(f'{name}="{_quoted(value)}"' for name, value in options.items())
    login = f"{_LOGIN}.OAuthBearerLoginModule required {line};"
    handler = f"{_LOGIN}.OAuthBearerLoginCallbackHandler"
    return {"sasl.jaas.config": login, _LOGIN_HANDLER: handler, **properties}


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def jaas_options(line: str | None) -> dict[str, str]:
    """Return the options of a login module, as Java's `sasl.jaas.config` writes them.

    Raises:
        ValueError: it is not one login module that ends with a semicolon.
    """
    if not line:
        return {}
    match = _MODULE.match(line)
    if match is None:
        raise ValueError("sasl.jaas.config: expected one login module that ends with a semicolon")
    return {
        name: re.sub(r"\\(.)", r"\1", double or single) or plain
        for name, double, single, plain in _OPTION.findall(match[2])
    }


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
    ]
    return {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        _ENDPOINT: known[_ENDPOINT],
        "sasl.oauthbearer.client.id": client,
        "sasl.oauthbearer.client.secret": secret,
        **({"sasl.oauthbearer.scope": scope} if scope else {}),
        **({"sasl.oauthbearer.extensions": ",".join(extensions)} if extensions else {}),
    }
