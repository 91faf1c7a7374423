"""The login module of `sasl.jaas.config`, read as Kafka's Java client reads it.

Java splits the line by its StreamTokenizer; what differs from it here would be a login that one client has
and the other one has not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from streaming.home.secret_places import SECRET_PLACE
from streaming.output.redaction import JAVA_ESCAPES

# What Java's tokenizer takes for a word: it begins with no digit, and letters are all from U+00A0 on.
_FIRST = r"A-Za-z_$\u00a0-\U0010ffff"
_TOKEN = re.compile(
    rf"""
    (?P<blank>[\x00-\x20]+ | /\*.*?(?:\*/|\Z) | //[^\r\n]* | /.?[^\r\n]*)
    | "(?P<double>(?:\\.?|[^"\\\r\n])*)"?
    | '(?P<single>(?:\\.?|[^'\\\r\n])*)'?
    | (?P<word>[{_FIRST}][{_FIRST}0-9.\-]*)
    | (?P<number>-?(?=[.0-9])[0-9]*\.?[0-9]*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# A path without quotes: Java takes its slash for the beginning of a remark, to the line's end.
_REMARK = re.compile(r"=\s*/")
_ESCAPE = re.compile(r"\\([0-3][0-7]{0,2}|[4-7][0-7]?|.)", re.DOTALL)
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_FLAGS = ("required", "requisite", "sufficient", "optional")
_NO_MODULE = "sasl.jaas.config: expected one login module that ends with a semicolon"
_NO_VALUE = (
    "sasl.jaas.config: expected NAME=\"VALUE\" after `required`, with plain quotes: what is not letters, "
    "digits, dots and hyphens, or begins with a digit, stands between them"
)  # fmt: skip


class _JaasToken(NamedTuple):
    """A sign, or the text of a word or of what stands between quotes."""

    sign: str
    text: str | None


_END, _NOTHING = _JaasToken(";", None), _JaasToken("", None)


def jaas_options(line: str | None) -> dict[str, str]:
    """Return the options of a login module, as Java's client reads them.

    Raises:
        ValueError: it is not one login module that ends with a semicolon; without what stands there.
    """
    if not line:
        return {}
    tokens = _tokens(line)
    module, flag = next(tokens, _NOTHING), next(tokens, _NOTHING)
    if module.text is None or (flag.text or "").lower() not in _FLAGS:
        raise ValueError(_NO_MODULE)
    found = dict(_options(tokens, _NO_VALUE if _REMARK.search(line) else _NO_MODULE))
    if next(tokens, _NOTHING) != _NOTHING:
        raise ValueError(_NO_MODULE)
    return found


def jaas_module(line: str) -> str:
    """Return the class of a line's login module, empty where none is named."""
    return next(_tokens(line), _NOTHING).text or ""


def _options(tokens: Iterator[_JaasToken], no_end: str) -> Iterator[tuple[str, str]]:
    while (name := next(tokens, _NOTHING)) != _END:
        equals, value = next(tokens, _NOTHING), next(tokens, _NOTHING)
        if name.text is None or value.text is None or equals.sign != "=":
            raise ValueError(no_end if name == _NOTHING else _NO_VALUE)
        yield name.text, value.text


def options_with_places(line: str, values: Sequence[str] | None = None) -> dict[str, str]:
    """Return the options of a line in which secrets stand as places, wherever they stand.

    Args:
        line: as written.
        values: what is at its places, to be filled in; they stay as they are unless given.

    Raises:
        ValueError: see `jaas_options`.
    """
    places = [match[0] for match in SECRET_PLACE.finditer(line)]
    filled = places if values is None else values
    # Of the private use area, whose characters Java takes for letters.
    marks = iter(f"\ue000{number}\ue001" for number in range(len(places)))
    marked = SECRET_PLACE.sub(lambda _: next(marks), line)
    return {
        name: re.sub("\ue000([0-9]+)\ue001", lambda match: filled[int(match[1])], value)
        for name, value in jaas_options(marked).items()
    }


def quoted(value: str) -> str:
    """Return a value as it stands between double quotes."""
    return value.translate(JAVA_ESCAPES)


def _tokens(line: str) -> Iterator[_JaasToken]:
    for match in _TOKEN.finditer(line):
        kind = match.lastgroup
        if kind in ("double", "single"):
            yield _JaasToken("", _unescaped(match[kind]))
        elif kind == "word":
            yield _JaasToken("", match["word"])
        elif kind != "blank":
            yield _JaasToken(match[0], None)


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        said = match[1]
        return chr(int(said, 8)) if said[0] in "01234567" else _CONTROLS.get(said, said)

    return _ESCAPE.sub(one, text)
