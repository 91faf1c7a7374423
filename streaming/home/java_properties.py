"""Java's properties format, read as `java.util.Properties` reads it, with the lines on which keys stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from schemas.errors import ConfigurationError

# What Java takes for blank here; others, such as U+00A0, are part of a key or a value.
_BLANKS = " \t\f"
_KEY = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_COMMENT = "#!"
_BYTE_ORDER_MARK = "\ufeff"


class PropertyLine(NamedTuple):
    """A key with its value.

    Attributes:
        number: of the line on which the key stands, from 1.
        key: without its escapes.
        value: likewise, with what stands in continued lines.
    """

    number: int
    key: str
    value: str


def property_lines(text: str) -> list[PropertyLine]:
    """Parse Java's properties format: escapes, continued lines, `=`, `:` or blanks after the key.

    Of a key that stands there twice the last one counts, as in Java.

    Raises:
        ConfigurationError: `\\u` without four hexadecimal digits, which Java refuses; naming the line.
    """
    return [_property(number, line) for number, line in _logical_lines(text.removeprefix(_BYTE_ORDER_MARK))]


def check_continued(text: str) -> None:
    """Check that no line was to be continued that is not: editors and web pages leave blanks at its end.

    Raises:
        ConfigurationError: blanks stand behind a line's last backslash; naming the line.
    """
    for number, line in enumerate(_LINE_ENDS.split(text), start=1):
        shorter = line.rstrip(_BLANKS)
        if shorter != line and _is_continued(shorter) and line.lstrip(_BLANKS)[0] not in _COMMENT:
            problem = "blanks stand behind its last backslash, which continues a line only where it ends it"
            raise ConfigurationError(problem, key=f"line {number}")


def _is_continued(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _property(number: int, line: str) -> PropertyLine:
    match = _KEY.match(line)
    assert match is not None, "every part of the pattern may be empty"
    return PropertyLine(number, _unescaped(match[1], number), _unescaped(match[2], number))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    parts: list[str] = []
    first = 0
    for number, each in enumerate(_LINE_ENDS.split(text), start=1):
        line = each.lstrip(_BLANKS)
        if not parts:
            if not line or line[0] in _COMMENT or line == "\\":
                continue
            first = number
        # Joined once: continued lines are many where a certificate stands in the file.
        goes_on = _is_continued(line)
        parts.append(line[:-1] if goes_on else line)
        if not goes_on:
            yield first, "".join(parts)
            parts = []
    if parts:
        yield first, "".join(parts)


def _unescaped(text: str, number: int) -> str:
    def one(match: re.Match[str]) -> str:
        said = match[1]
        if said == "u":
            problem = r"\u stands without four hexadecimal digits: a backslash is written as two"
            raise ConfigurationError(problem, key=f"line {number}")
        return chr(int(said[1:], 16)) if len(said) > 1 else _CONTROLS.get(said, said)

    if "\\" not in text:
        return text
    # Java escapes a character beyond 16 bits as two.
    return _ESCAPE.sub(one, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
