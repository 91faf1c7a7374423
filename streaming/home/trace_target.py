"""Where traces go: to the collector that FLAGSTREAM_TRACES names, or the standard variables of OpenTelemetry.

Without either none are made. What else the standard variables say (headers, certificates, sampling, the
name of the service) is read by OpenTelemetry's own library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from schemas.errors import ConfigurationError
from streaming.output.redaction import keep_secret

_STANDARD = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_LOGIN = re.compile("auth|key|token|secret", re.IGNORECASE)
_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+")
_OFF = ("", "off", "none")
_PATH = "/v1/traces"


@dataclass(frozen=True)
class TraceTarget:
    """A collector that takes OTLP over HTTP.

    Attributes:
        url: of its traces; None: as the standard variables say.
    """

    url: str | None = None


def trace_target(environ: Mapping[str, str]) -> TraceTarget | None:
    """Return where traces go, None where none are made; what logs in there is a secret from now on.

    Raises:
        ConfigurationError: FLAGSTREAM_TRACES is no address.
    """
    for name in _HEADERS:
        _keep_logins(environ.get(name, ""))
    given = environ.get("FLAGSTREAM_TRACES")
    if given is not None:
        return None if given.strip().lower() in _OFF else TraceTarget(_url(given.strip()))
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    return TraceTarget() if any(environ.get(name) for name in _STANDARD) else None


def _keep_logins(headers: str) -> None:
    """Have hidden what logs in, such as the last word of `authorization=Basic%20…`.

    What is no `name=value` the library quotes in its warning, whatever it holds.
    """
    for header in headers.split(","):
        name, sign, value = header.partition("=")
        is_named = bool(sign) and _NAME.fullmatch(unquote(name).strip()) is not None
        if not is_named or _LOGIN.search(name):
            for word in unquote(value if is_named else header).split():
                keep_secret(word)


def _url(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ConfigurationError(
            "expected the address of an OTLP collector such as http://127.0.0.1:4318, or off; what logs in "
            "goes into OTEL_EXPORTER_OTLP_HEADERS",
            where="FLAGSTREAM_TRACES",
        )
    return address if parts.path.endswith(_PATH) else f"{address.rstrip('/')}{_PATH}"
