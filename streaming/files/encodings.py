"""In which encoding a file's text is written: said by its first bytes, or found in the whole of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import charset_normalizer

from schemas.errors import ConfigurationError
from streaming.files.opening import open_bytes

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UTF8 = ("utf-8", "utf-8-sig")
_PIECE = 1 << 20
_MANY_LINES = 2_000
_WESTERN = frozenset(
    "äöüßÄÖÜẞéèêëÉÈÊËàâÀÂçÇîïÎÏôÔùûÙÛœŒæÆåÅøØñÑáíóúÁÍÓÚãõÃÕìòÌÒýþðÞÐÿ€£§°«»„“”\u2018\u2019\u2013—…·ªº©®™¡¿\u00a0"
)
_FAR_FROM_WESTERN = 0.25
_OTHERS = [
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp932",
    "gb18030",
    "cp949",
    "big5",
    "koi8_r",
]
_INSIDE_WORD = re.compile(r"[A-Za-z][¿¡°ªº§£]+[a-z]")


class Encoding(NamedTuple):
    """How a text is encoded.

    Attributes:
        codec: name of the codec.
        broken: whether it is UTF-8 in which some characters are broken.
    """

    codec: str
    broken: bool = False


def encoding_of(path: Path, named: str | None = None) -> Encoding:
    """Return how a text file is encoded: as it is named, by its mark, as UTF-8 if it is that, or likeliest.

    A file of which most lines beyond ASCII are UTF-8 counts as UTF-8 that is broken in places.

    Raises:
        ConfigurationError: it is no text in the encoding that is left.
    """
    codec = _marked(path) if named is None else codecs.lookup(named).name
    if codec is not None and codec not in _UTF8:
        return _whole(path, codec)
    beyond = _beyond_ascii(path)
    if codec is None and beyond.broken > beyond.whole:
        return _whole(path, _likeliest(b"\n".join(beyond.lines)))
    return Encoding(codec or "utf-8", beyond.broken > 0)


def marked_codec(head: bytes) -> str | None:
    """Return the codec that the first bytes of a text name by their mark, None without one."""
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), None)


def _whole(path: Path, codec: str) -> Encoding:
    decoder, done = codecs.getincrementaldecoder(codec)(), 0
    try:
        for piece in _pieces(path):
            decoder.decode(piece)
            done += len(piece)
        decoder.decode(b"", final=True)
    except UnicodeError as fault:
        near = done + getattr(fault, "start", 0)
        raise ConfigurationError(
            f"is no text in {codec} near byte {near:,}: it holds binary data, or text in an "
            "encoding that --encoding can name",
            where=str(path),
        ) from None
    return Encoding(codec)


def _marked(path: Path) -> str | None:
    with open_bytes(path) as file:
        head = file.read(4096)
    marked = marked_codec(head)
    return _wide(head) if marked is None and b"\0" in head else marked


def _wide(head: bytes) -> str | None:
    first, second = head[::2].count(0), head[1::2].count(0)
    if max(first, second) < len(head) // 8:
        return None
    return "utf-16-be" if first > second else "utf-16-le"


@dataclass
class _Beyond:
    """Lines beyond ASCII: how many are whole UTF-8 and how many broken, and the first of the broken ones."""

    whole: int = 0
    broken: int = 0
    lines: list[bytes] = field(default_factory=list)

    def count(self, line: bytes) -> None:
        try:
            line.decode()
            self.whole += 1
        except UnicodeDecodeError:
            self.broken += 1
            self.lines += [line] * (self.broken <= _MANY_LINES)


def _beyond_ascii(path: Path) -> _Beyond:
    found = _Beyond()
    for piece in _pieces(path):
        if not piece.isascii():
            for line in piece.splitlines():
                if not line.isascii():
                    found.count(line)
    return found


def _pieces(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        while piece := file.read(_PIECE):
            yield piece + file.readline()


def _likeliest(text: bytes) -> str:
    if _is_western(text):
        return "cp1252"
    best = charset_normalizer.from_bytes(text, cp_isolation=_OTHERS).best()
    return "cp1252" if best is None else best.encoding


def _is_western(text: bytes) -> bool:
    """Return whether Windows' Western code page gives words: its letters, and not one after the other."""
    try:
        written = text.decode("cp1252")
    except UnicodeDecodeError:
        return False
    beyond = [each for each in written if not each.isascii()]
    pairs = sum(not one.isascii() and not other.isascii() for one, other in pairwise(written))
    return (
        _WESTERN.issuperset(beyond)
        and pairs <= _FAR_FROM_WESTERN * len(beyond)
        and not _INSIDE_WORD.search(written)
    )
