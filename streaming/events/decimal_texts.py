"""Decimal numbers as people write them, read to the digit."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from schemas.money_fields import AmountField

# A longer text is no amount, and not worth reading.
LONGEST_TEXT = 100
_GROUPS = {"": None, " ": "[ \u00a0\u2009\u202f]", "'": "['\u2019]"}
_MINUS = "-\u2212"
_SIGNS = re.compile(rf"[+{re.escape(_MINUS)}]")
_LONGEST_WORD_BEFORE_SIGN = 3


class DecimalTexts:
    """Reads decimal numbers as people write them: `1,234.56`, `€ -5`, `(12.50)`, `7,5-`.

    There is one decimal mark at most. Groups of digits have three digits, those between the first and the
    last may have two, as in India: so a mark that is mistaken for the other one makes no number. A minus
    stands before or behind, or brackets around; a currency sign may too. Blanks do not count, but between
    digits. Digits follow a mark, since `5,-` is no negative number, and a mark that comes before all digits
    follows no letter, since `Rs.5` is not a half.
    """

    def __init__(self, amount: AmountField) -> None:
        self._signs = frozenset(amount.signs)
        mark = re.escape(amount.decimal)
        group = _GROUPS.get(amount.thousands, re.escape(amount.thousands))
        grouped = rf"[0-9]{{1,3}}(?:{group}[0-9]{{2,3}})*{group}[0-9]{{3}}|"
        whole = f"{grouped if group else ''}[0-9]+"
        number = rf"(?:(?P<whole>{whole})(?:{mark}(?P<part>[0-9]+))?|(?<!\w){mark}(?P<bare>[0-9]+))"
        exponent = r"(?:[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
        self._pattern = re.compile(rf"(?P<before>[^0-9]*?){number}{exponent}(?P<after>[^0-9]*)")

    def read(self, text: str) -> Decimal | None:
        """Return the number, None for a text that is none."""
        found = self._pattern.fullmatch(text) if len(text) <= LONGEST_TEXT else None
        negative = None if found is None else self._negative(found["before"], found["after"])
        if found is None or negative is None:
            return None
        whole = re.sub("[^0-9]", "", found["whole"] or "")
        part = found["part"] or found["bare"] or ""
        exponent = int(found["exponent"] or 0) - len(part)
        digits = tuple(map(int, whole + part))
        return Decimal((int(negative), digits, exponent))

    def _negative(self, before: str, after: str) -> bool | None:
        """Tell by what stands around the digits whether they are below zero; None if it does not fit them."""
        before, after = _solid(before), _solid(after)
        minuses, pluses = (sum(map((before + after).count, each)) for each in (_MINUS, "+"))
        opened, closed = before.count("("), after.count(")")
        if minuses + pluses + opened > 1 or opened != closed:
            return None
        left = [_SIGNS.sub("", each) for each in (before.replace("(", ""), after.replace(")", ""))]
        if all(left) or not self._is_sign(left[0] or left[1]):
            return None
        return bool(minuses or opened)

    def _is_sign(self, text: str) -> bool:
        """Whether a text may stand there: nothing, a given sign, or a usual one after up to three letters."""
        if not text or text in self._signs:
            return True
        letters = text[:-1]
        word = not letters or (letters.isascii() and letters.isalpha())
        return word and len(letters) <= _LONGEST_WORD_BEFORE_SIGN and unicodedata.category(text[-1]) == "Sc"


def _solid(text: str) -> str:
    return "".join(text.split())
