"""Bytes that outsiders sent, as people read them: as text where they are text, else as hex beside letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.triage.untrusted_text import shows

_MOST_TEXT, _MOST_HEX, _HEX_ROW = 8_000, 2_048, 16
_MOST_UNSEEN = 0.1
_BREAKS = "\t\r\n"


@dataclass(frozen=True)
class ShownBytes:
    """What is shown of some bytes.

    Attributes:
        size: of all of them.
        text: where they are UTF-8 of which most is seen, None elsewhere.
        rows: where they are not: offset, hex and ASCII of 16 bytes each.
        more: how many bytes or, of text, characters follow those that are shown.
    """

    size: int
    text: str | None
    rows: Sequence[tuple[str, str, str]]
    more: int


def shown_bytes(content: bytes | None) -> ShownBytes | None:
    """Return what is shown of bytes, None for a field that was not sent."""
    if content is None:
        return None
    text = _text(content)
    if text is not None:
        return ShownBytes(len(content), text[:_MOST_TEXT], (), max(0, len(text) - _MOST_TEXT))
    part = content[:_MOST_HEX]
    rows = [_row(part, at) for at in range(0, len(part), _HEX_ROW)]
    return ShownBytes(len(content), None, rows, len(content) - len(part))


def _text(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    part = text[:_MOST_TEXT]
    unseen = sum(not shows(each) and each not in _BREAKS for each in part)
    return None if unseen > _MOST_UNSEEN * len(part) else text


def _row(part: bytes, at: int) -> tuple[str, str, str]:
    own = part[at : at + _HEX_ROW]
    letters = "".join(each if each.isascii() and each.isprintable() else "." for each in map(chr, own))
    return f"{at:06x}", own.hex(" "), letters
