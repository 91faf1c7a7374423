"""Pseudonyms: what identifies somebody leaves the machine as a keyed token, and comes back resolved.

A token is the kind of thing, and a keyed hash of its value: `customer_3fa91c07`. The same value always has
the same token under one key, so like requests stay alike and two mentions of one account can be seen to be
one; without the key nobody can try which value a token stands for.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.triage.untrusted_text import cleaned, visible

_HEX_DIGITS = 8
_SHOWN_CHARACTERS = 40
_LONG_ID = 6
_CARD_DIGITS = range(13, 20)
_TOKEN = re.compile(rf"[A-Za-z_][A-Za-z0-9_]*_[0-9a-f]{{{_HEX_DIGITS}}}(?![A-Za-z0-9_])")
# Bounded, as otherwise a long text without blanks would be looked through once for each of its characters.
_EMAIL = r"(?P<email>[^\s@<>(),;:\"]{1,254}@[^\s@<>(),;:\"]+)"
_IBAN = r"(?P<iban>(?-i:(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)))"
_NUMBER = r"(?P<number>\d(?:[\W_]{0,3}\d){8,})"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?Z?)?")
_IDENTIFYING = re.compile(
    r"(?:^|_)(?:name|holder|cardholder|owner|payer|payee|sender|recipient|beneficiary|"
    r"email|mail|card|pan|iban|account|phone|address)(?:$|_)",
    re.IGNORECASE,
)


class Pseudonyms:
    """Gives out tokens.

    Args:
        key: secret, at least 16 bytes; whoever lacks it cannot link a token to a value.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        """Say nothing of the key."""
        return "Pseudonyms()"

    def token(self, kind: str, value: str, originals: dict[str, str]) -> str:
        """Return the token of `value`; what it stands for is noted in `originals`."""
        digest = hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        token = f"{kind}_{digest[:_HEX_DIGITS]}"
        originals[token] = value
        return token

    def text(self, field: str, text: str, identifiers: Mapping[str, str], originals: dict[str, str]) -> str:
        """Return a free text as one visible line in which tokens stand for what identifies somebody.

        Args:
            field: the text's name; one such as `holder` or `customer_name` is replaced as a whole.
            text: as received.
            identifiers: value → kind of what is known to identify somebody: ids of entities, names.
            originals: where the tokens given out are noted, token → value.
        """
        line = visible(text)
        if is_identifying(field):
            return self.token(field, line, originals) if line else ""
        known = {visible(value): kind for value, kind in identifiers.items() if visible(value)}
        by_folded = {value.casefold(): value for value in known}

        def replaced(match: re.Match[str]) -> str:
            value = by_folded.get(match[0].casefold())
            kind, found = _kind_and_value(match) if value is None else (known[value], value)
            return self.token(kind, found, originals)

        return _identifiers(tuple(known)).sub(replaced, line)


class TokenBook:
    """The tokens of one run of the planning agent, and what they stand for.

    Args:
        pseudonyms: gives them out.
    """

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._originals: dict[str, str] = {}

    def token(self, kind: str, value: str) -> str:
        """Return the token of `value`."""
        return self._pseudonyms.token(kind, value, self._originals)

    def goal(self, goal: str, kinds: Sequence[str]) -> str:
        """Return a goal in which tokens stand for addresses, long numbers, and ids of entities.

        Args:
            goal: in a person's words.
            kinds: of entities; what follows the name of one and holds a digit is taken for its id.
        """
        named = re.compile(
            rf"\b({'|'.join(map(re.escape, kinds))})s?[ :=#]+([^\s,;?!]*\d[^\s,;?!]*)", re.IGNORECASE
        )
        kind_of = {kind.lower(): kind for kind in kinds}
        ids = {found[2]: kind_of[found[1].lower()] for found in named.finditer(goal)} if kinds else {}
        parts = _MOMENT.split(goal)  # a date is no account's number
        moments = [*_MOMENT.findall(goal), ""]
        texts = (self._pseudonyms.text("goal", part, ids, self._originals) for part in parts)
        return " ".join(each for pair in zip(texts, moments, strict=True) for each in pair if each)

    def exact(self, value: Any) -> Any:
        """Return parameters in which every token is again what it stands for."""
        if isinstance(value, str):
            return _TOKEN.sub(lambda match: self._originals.get(match[0], match[0]), value)
        if isinstance(value, Mapping):
            return {name: self.exact(each) for name, each in value.items()}
        return [self.exact(each) for each in value] if isinstance(value, list | tuple) else value

    def readable(self, text: str) -> str:
        """Return a text for people: what tokens stand for, cleaned and shortened."""
        return resolved(text, self._originals)


def is_identifying(field: str) -> bool:
    """Return whether a field of this name holds a name, an address or a number of somebody."""
    return _IDENTIFYING.search(field) is not None


def resolved(text: str, tokens: Mapping[str, str]) -> str:
    """Put what tokens stand for back into a text, cleaned and shortened; unknown tokens stay."""
    return _TOKEN.sub(
        lambda match: cleaned(tokens[match[0]], _SHOWN_CHARACTERS) if match[0] in tokens else match[0], text
    )


def _identifiers(known: tuple[str, ...]) -> re.Pattern[str]:
    """Match whatever identifies somebody, in one pass, so that no token is taken for text again."""
    mentions = [_mention_of(value) for value in sorted(known, key=len, reverse=True)]
    return re.compile("|".join([_EMAIL, *mentions, _IBAN, _NUMBER]), re.IGNORECASE)


def _mention_of(value: str) -> str:
    """Match a long identifier anywhere, a short one only as a word: `17` is no mention of customer 7."""
    return re.escape(value) if len(value) >= _LONG_ID else rf"(?<!\w){re.escape(value)}(?!\w)"


def _kind_and_value(match: re.Match[str]) -> tuple[str, str]:
    if match.lastgroup != "number":
        return match.lastgroup or "id", match[0]
    digits = re.sub(r"\D", "", match[0])
    return "card" if len(digits) in _CARD_DIGITS and _passes_luhn(digits) else "number", digits


def _passes_luhn(digits: str) -> bool:
    """Check the last digit as ISO/IEC 7812-1, annex B, has it."""
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(map(int, odd)) + sum(sum(divmod(2 * int(each), 10)) for each in even)) % 10 == 0
