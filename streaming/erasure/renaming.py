"""Puts tokens in the place of ids: in ids, in ids that are made of several, and where a text mentions one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise

from schemas.id_fields import escaped_part, joined, parted
from streaming.arrays.columns import BETWEEN
from streaming.erasure.naming import Naming, Subject

_LETTER = r"[^\W_]"
_MARKS = (" ", "=", ": ", ':"', ': "', '":"', '": "', " #", "#")


class Renaming:
    """What becomes of ids and texts. The same id always becomes the same one, and no two become alike.

    Args:
        subjects: whom to erase.
        naming: where their ids may stand.
        aliases: further names of theirs → what stands in their place, such as the pseudonyms that a model
            knew them by.
    """

    def __init__(
        self, subjects: Sequence[Subject], naming: Naming, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.naming, self._aliases = naming, dict(aliases or {})
        self._whole: dict[str, dict[str, str]] = {}
        self._parts: dict[str, list[tuple[int, str, str]]] = {}
        for each in subjects:
            for name in naming.alike[each.entity]:
                self._whole.setdefault(name, {})[each.id] = each.token
            for column, parts in naming.parts[each.entity].items():
                said = [(part.place, part.field.normalised(each.id), each.token) for part in parts]
                self._parts.setdefault(column, []).extend(said)
        self._tokens = self._aliases | {form: s.token for s in subjects for form in _forms(s.id)}
        self._folded = {name.casefold(): token for name, token in self._tokens.items()}
        within = _words(self._aliases, subjects)
        named = [_named(s.entity, s.id) for s in subjects if not s.is_telling]
        self._in_ids = _either(within)
        # Another id of the same kind that only holds one, as acme-2 holds acme, is somebody else's.
        self._in_ids_of = {
            name: _either(_words(self._aliases, [s for s in subjects if name not in naming.alike[s.entity]]))
            for name in self._whole
        }
        self._in_texts = _either([*within, *named], re.IGNORECASE)
        self.needles = tuple(self._tokens | {escaped_part(s.id): "" for s in subjects})

    def id(self, column: str, text: str) -> str:
        """Return what an id becomes that stands in a column of this name."""
        whole = self._whole.get(column, {}).get(text)
        if whole is not None:
            return whole
        within = self._in_ids_of.get(column, self._in_ids)
        return within.sub(self._token, _with_parts(text, self._parts.get(column, ())))

    def of_kind(self, entities: Sequence[str], text: str) -> str:
        """Return what an id becomes of a kind that has profiles; several entities share one."""
        named = [self._joined(entities, ids) for ids in _splits(text, len(entities))]
        return next((each for each in named if each != text), text) if named else self.of_somebody(text)

    def _joined(self, entities: Sequence[str], ids: Sequence[str]) -> str:
        return BETWEEN.join(self.id(name, each) for name, each in zip(entities, ids, strict=True))

    def of_somebody(self, text: str) -> str:
        """Return what an id becomes where nothing says of which kind it is."""
        found = next((names[text] for names in self._whole.values() if text in names), None)
        return self._in_ids.sub(self._token, text) if found is None else found

    def text(self, text: str) -> str:
        """Return a text in which tokens stand for the ids that it mentions."""
        return self._in_texts.sub(self._token, text)

    def is_mentioned(self, text: str) -> bool:
        """Return whether a text mentions an id."""
        return self._in_texts.search(text) is not None

    def is_named(self, column: str, text: str) -> bool:
        """Return whether the id of an entity is one that is erased, or holds it as a part."""
        known = self._parts.get(column, ())
        return text in self._whole.get(column, {}) or _with_parts(text, known) != text

    def _token(self, match: re.Match[str]) -> str:
        return self._tokens.get(match[0]) or self._folded.get(match[0].casefold(), match[0])


def _splits(text: str, count: int) -> Iterator[list[str]]:
    """Yield each way in which an id is made of so many: one of them may hold what stands between them."""
    pieces = text.split(BETWEEN)
    for cuts in combinations(range(1, len(pieces)), count - 1):
        bounds = pairwise((0, *cuts, len(pieces)))
        yield [BETWEEN.join(pieces[first:last]) for first, last in bounds]


def _words(aliases: Iterable[str], subjects: Iterable[Subject]) -> list[str]:
    """Return patterns for names within others, the longest first."""
    names = [*aliases, *(form for s in subjects if s.is_telling for form in _forms(s.id))]
    return [_word(name) for name in sorted(names, key=len, reverse=True)]


def _either(patterns: Sequence[str], flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(patterns) or r"(?!)", flags)


def _forms(name: str) -> tuple[str, ...]:
    """Return how a text may hold a name: as it is, and as JSON writes it."""
    quoted = (json.dumps(name), json.dumps(name, ensure_ascii=False))
    return tuple(dict.fromkeys([name, *(each[1:-1] for each in quoted)]))


def _word(name: str) -> str:
    """Match a name that is no part of a longer word."""
    before = rf"(?<!{_LETTER})" if name[:1].isalnum() else ""
    after = rf"(?!{_LETTER})" if name[-1:].isalnum() else ""
    return f"{before}{re.escape(name)}{after}"


def _named(entity: str, name: str) -> str:
    """Match a short id where a text says whose it is: `customer 7`, `customer=7`, `"customer": "7"`."""
    begin = "|".join(rf"(?<={re.escape(entity + mark)})" for mark in _MARKS)
    return rf"(?:{begin}){re.escape(name)}(?!{_LETTER})"


def _with_parts(text: str, known: Iterable[tuple[int, str, str]]) -> str:
    parts = parted(text) if known else []
    for place, name, token in known:
        if place < len(parts) > 1 and parts[place] == name:
            parts[place] = token
    return joined(parts) if len(parts) > 1 else text
