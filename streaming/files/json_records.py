"""Records of a JSON file: one object a line, or an array or a sequence of objects over any lines."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from schemas.errors import ConfigurationError
from streaming.files.encodings import marked_codec
from streaming.files.opening import open_bytes

_PIECE = 1 << 20
_LONGEST_LINE = 1 << 20
_LONGEST_MARK = 4
_BLANK = " \t\r\n"
# Characters that are merely written unescaped, such as tabs, do no harm.
_DECODER = json.JSONDecoder(strict=False)


class Record(NamedTuple):
    """The bytes of one record.

    Attributes:
        line: the line that it begins in.
        number: the same in a file of lines, else its place from 1 on.
    """

    line: int
    number: int
    value: bytes


def json_records(path: Path) -> Iterator[Record]:
    """Read the records of a file one by one; those of lines that are no JSON are left to who reads them.

    Raises:
        ConfigurationError: text that is neither lines nor an array; file, line and column are named. Or its
            mark says that it is not UTF-8.
    """
    _check_is_utf8(path)
    with open_bytes(path) as file:
        of_lines = _is_of_lines(file)
    with open_bytes(path) as file:
        yield from _lines(file) if of_lines else _sequence(file, path)


def _check_is_utf8(path: Path) -> None:
    """What a mark says can be said better than what a parser makes of the text."""
    with open_bytes(path) as file:
        codec = marked_codec(file.read(_LONGEST_MARK))
    if codec not in (None, "utf-8-sig"):
        problem = f"is text in {codec}, and JSON is UTF-8: convert it, as by iconv -f {codec} -t utf-8"
        raise ConfigurationError(problem, where=str(path))


def _is_of_lines(file: BinaryIO) -> bool:
    """Tell by two lines: an array begins with a bracket, and what one leaves open the other goes on."""
    first, second = _next_line(file), _next_line(file)
    return not first.startswith(b"[") and (not _is_open(first) or _is_object(second))


def _next_line(file: BinaryIO) -> bytes:
    while line := file.readline(_LONGEST_LINE):
        if value := line.removeprefix(codecs.BOM_UTF8).strip():
            return value
    return b""


def _is_open(line: bytes) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError as fault:
        return bool(line) and (fault.pos >= len(fault.doc) or fault.msg.startswith("Unterminated"))
    except (ValueError, RecursionError):
        return False
    return False


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(file: BinaryIO) -> Iterator[Record]:
    for number, line in enumerate(file, 1):
        if value := line.removeprefix(codecs.BOM_UTF8).strip():
            yield Record(number, number, value)


class _Sequence:
    """The text of a file that is read piece by piece, and how far it is understood."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._text, self._place, self._ended = "", 0, False
        self._line, self._column, self._values = 1, 1, 0

    def more(self) -> bool:
        """Read on; return False at the end."""
        if self._ended:
            return False
        piece = self._file.read(max(_PIECE, len(self._text) - self._place))
        self._ended = not piece
        self._text, self._place = self._text[self._place :] + self._decode(piece, not piece), 0
        return True

    def next_mark(self) -> str:
        """Pass over blanks; return the character that follows, none at the end."""
        while True:
            end = self._place
            while end < len(self._text) and self._text[end] in _BLANK:
                end += 1
            self.pass_to(end)
            if end < len(self._text) or not self.more():
                return self._text[self._place : self._place + 1]

    def pass_to(self, end: int) -> None:
        """Count what is passed over."""
        passed = self._text[self._place : end]
        lines = passed.count("\n")
        self._column = len(passed) - passed.rfind("\n") if lines else self._column + len(passed)
        self._line, self._place = self._line + lines, end

    def skip(self) -> None:
        """Pass over one character."""
        self.pass_to(self._place + 1)

    def value(self) -> Record:
        """Read one value."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._place)
                # A number may go on in the next piece.
                if end < len(self._text) or not self.more():
                    break
            except json.JSONDecodeError as fault:
                if not self.more():
                    self.pass_to(fault.pos)
                    raise self.refused(f"not JSON: {fault.msg}") from None
            except RecursionError:
                raise self.refused("not JSON: nested too deep") from None
        self._values += 1
        found = Record(
            self._line, self._values, self._text[self._place : end].encode("utf-8", "surrogateescape")
        )
        self.pass_to(end)
        return found

    def refused(self, problem: str) -> ConfigurationError:
        """Return the error of what stands here."""
        return ConfigurationError(f"column {self._column}: {problem}", where=f"{self._path}:{self._line}")


def _sequence(file: BinaryIO, path: Path) -> Iterator[Record]:
    text = _Sequence(file, path)
    if text.next_mark() != "[":
        while text.next_mark():
            yield text.value()
        return
    text.skip()
    mark = text.next_mark()
    while mark != "]":
        yield text.value()
        mark = text.next_mark()
        if mark not in (",", "]"):
            raise text.refused("expected , or ] after a record of the array")
        if mark == ",":
            text.skip()
            text.next_mark()
    text.skip()
    if text.next_mark():
        raise text.refused("expected nothing after the array")
