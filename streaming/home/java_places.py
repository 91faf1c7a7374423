"""What Kafka's Java client would make of places of secrets and of what lies there, before it is asked to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.errors import ConfigurationError
from streaming.home.jaas import jaas_options, options_with_places
from streaming.home.kafka_login import QUOTED
from streaming.home.secret_places import SECRET_PLACE

_UNQUOTABLE = re.compile(r'["\\\r\n]')
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
# What Java's client takes for a place: provider, perhaps a path, and a key.
_JAVA_PLACE = re.compile(r"\$\{[^}]*?:[^}]*?\}")
_SPLIT = re.compile(r'[:"\\]')
_FORGOTTEN = re.compile(r"\$\{[A-Za-z_]\w*\}")
_LOGIN = "sasl.jaas.config"
# Java's String.trim, which its client does to every value.
_TRIMMED = "".join(map(chr, range(0x21)))


def trimmed(value: str) -> str:
    """Return a value without the blanks and control characters at its ends, as Java's client takes it."""
    return value.strip(_TRIMMED)


def check_places(written: Mapping[str, str]) -> None:
    """Check that both clients find the same places in each value.

    Raises:
        ConfigurationError: naming the key: another provider than `env` and `file`, or a colon in a place.
    """
    for key, value in written.items():
        for found in _JAVA_PLACE.findall(value):
            place = SECRET_PLACE.fullmatch(found)
            if place is None:
                problem = "holds a place that is looked up nowhere: ${env:NAME} and ${file:/path} are"
                raise ConfigurationError(problem, key=key)
            if _SPLIT.search(place[2]):
                raise ConfigurationError(
                    "holds a place with a second colon, a quote or a backslash, which Spark's client would "
                    "look for elsewhere: ${file:/path} names a file that holds one secret and nothing else",
                    key=key,
                )
        if _FORGOTTEN.fullmatch(value):
            raise ConfigurationError("variables are written as ${env:NAME} here", key=key)


def check_usable(resolved: Mapping[str, object]) -> None:
    """Check that each value can be handed to a client.

    Raises:
        ConfigurationError: naming the key: NUL, where librdkafka would end, or what no text can hold.
    """
    for key, value in resolved.items():
        if isinstance(value, str) and _UNUSABLE.search(value):
            raise ConfigurationError("is or finds no text: it holds NUL, or bytes that are no UTF-8", key=key)


def check_quotable(written: Mapping[str, str], resolved: Mapping[str, str], in_login: Sequence[str]) -> None:
    """Check that the JVM, which fills secrets into lines as they are and strips whole values, reads the same.

    Args:
        written: secrets by their places.
        resolved: secrets filled in.
        in_login: what lies at the places of `sasl.jaas.config`, in their order.

    Raises:
        ValueError: naming the key, never a secret.
    """
    for key, value in written.items():
        is_part = key in QUOTED or SECRET_PLACE.fullmatch(value) is None
        if key in QUOTED and value != resolved[key] and _UNQUOTABLE.search(resolved[key]):
            raise ValueError(_misread(key))
        if key == _LOGIN and is_part and in_login and not _is_read(value, resolved[key], in_login):
            raise ValueError(_misread(key))
        for kind, name in SECRET_PLACE.findall(value):
            if kind == "file" and is_part and _ends_in_blanks(Path(name)):
                raise ValueError(
                    f"{key}: {name} begins or ends with a blank or a line's end, which Spark's client takes "
                    "for a part of the secret: write the file without, as `printf %s` does"
                )


def _misread(key: str) -> str:
    return (
        f"{key}: what its place holds has a quote, a backslash, a second line or what else may not stand "
        "there, and Spark's client would misread it: put the whole login, escaped as Java wants it, into a "
        "variable, and write sasl.jaas.config=${env:NAME}"
    )


def _is_read(line: str, filled: str, values: Sequence[str]) -> bool:
    meant = options_with_places(line, values)
    try:
        return jaas_options(filled) == meant
    except ValueError:
        return False


def _ends_in_blanks(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return text != text.strip()
