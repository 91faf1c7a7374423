"""Makes a text of outsiders fit to send and to show: one bounded line without anything invisible."""

from __future__ import annotations

import re
import unicodedata

from agent.triage.rule_classifier import clip

TEXT_CHARACTERS = 80
# Letters, marks or symbols to Unicode, yet invisible: fillers, and selectors in which bytes can be hidden.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def visible(text: str) -> str:
    """Return `text` on one line in Unicode's compatibility form (NFKC), without what cannot be seen.

    Control, format, surrogate, private and unassigned characters go, and every run of white space is one
    space. Letters dressed up as other characters become the letters they look like.
    """
    spaced = "".join(" " if each.isspace() else each for each in text)
    return " ".join(_seen(unicodedata.normalize("NFKC", _seen(spaced))).split())


def _seen(text: str) -> str:
    shown = "".join(each for each in text if not unicodedata.category(each).startswith("C"))
    return _INVISIBLE.sub("", shown)


def cleaned(text: str, characters: int = TEXT_CHARACTERS) -> str:
    """Return `visible` text, shortened to at most `characters`."""
    return clip(visible(text), characters)


def escaped(text: str, *, lines: bool = False) -> str:
    """Return `text` for people to see, with everything that is not to be seen written out as an escape.

    Args:
        text: as it is; nothing else in it changes.
        lines: whether line breaks stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if shows(each) or (lines and each == "\n") else ascii(each)[1:-1] for each in text)


def shows(character: str) -> bool:
    """Return whether a character is seen where it is shown, and turns nothing around."""
    return character.isprintable() and _INVISIBLE.match(character) is None
