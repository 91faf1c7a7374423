"""Ids that only several fields make: of payments, and of accounts numbered by their bank or user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from streaming.drafting.field_facts import FieldFacts
from streaming.drafting.guess import Guess
from streaming.drafting.id_guess import is_id, names_entity

_NUMBERS = frozenset(
    {
        *("no", "nr", "num", "number", "seq", "sequence", "line", "receipt", "batch", "order", "trace"),
        *("stan", "rrn", "invoice", "document", "beleg", "bon", "item", "index"),
    }
)
_SCOPES = frozenset({"bank", "bic", "blz", "user", "tenant", "issuer", "institution", "organisation"})
_NUMBERED = frozenset({"account", "acct", "konto", "card", "customer", "client", "member"})
_ENOUGH_ROWS = 20
_UNIQUE, _MOST_CANDIDATES = 0.999, 12
_BY_CHANCE = 5.0
_CLASHES, _REPEATS = 1.05, 0.95


def guess_composed_id(fields: Sequence[FieldFacts]) -> Guess | None:
    """Return two fields that together come once, though neither does; None where no two do.

    Fields whose values repeat may differ together by chance alone, so they count only where chance would have
    repeated some of them.
    """
    parts = [facts for facts in fields if _is_part(facts)]
    found = sorted(_pairs(parts[:_MOST_CANDIDATES]), key=lambda each: -each[0])
    if not found:
        return None
    expected, pair = found[0]
    why = (
        f"neither comes once by itself, both together do; by chance some {expected:.0f} would have come again"
    )
    read = tuple(facts.path for facts in pair if not names_entity(facts))
    return Guess("transaction_id", {"fields": [facts.path for facts in pair]}, 1.0, why, read)


def _is_part(facts: FieldFacts) -> bool:
    is_named = bool(_NUMBERS & set(facts.words)) or names_entity(facts)
    return is_named and is_id(facts) and facts.share == 1.0 and "" not in facts.counts


def _pairs(parts: Sequence[FieldFacts]) -> Iterator[tuple[float, tuple[FieldFacts, FieldFacts]]]:
    for one, other in combinations(parts, 2):
        rows = len(one.values)
        numbered = _NUMBERS & {*one.words, *other.words}
        expected = rows * rows / (2.0 * len(one.counts) * len(other.counts))
        if rows < _ENOUGH_ROWS or not numbered or expected < _BY_CHANCE:
            continue
        if len(set(zip(one.values, other.values, strict=True))) >= _UNIQUE * rows:
            yield expected, (one, other)


def scoped(entities: Sequence[Guess], fields: Sequence[FieldFacts]) -> list[Guess]:
    """Return the guesses of entities, with the field before it where the same number is given out twice.

    Args:
        fields: all of the sample, in their order.
    """
    places = {facts.path: place for place, facts in enumerate(fields)}
    return [
        _scoped(guess, fields[: places[guess.fields[0]]][::-1], fields[places[guess.fields[0]]])
        for guess in entities
    ]


def _scoped(guess: Guess, before: Sequence[FieldFacts], own: FieldFacts) -> Guess:
    scope = next((facts for facts in before if _SCOPES & set(facts.words) and is_id(facts)), None)
    if scope is None or not _NUMBERED & set(own.words) or _SCOPES & set(own.words):
        return guess
    pairs = [pair for pair in zip(scope.values, own.values, strict=True) if None not in pair]
    different = len(set(pairs))
    clash = different >= _CLASHES * len(own.counts) and different < _REPEATS * len(pairs)
    if len(pairs) < _ENOUGH_ROWS or not clash:
        return guess
    value = {name: each for name, each in guess.value.items() if name not in ("field", "type")}
    share = 1.0 if value.get("required") is False else len(pairs) / len(own.values)
    why = f"{len(own.counts):,} different numbers, which are {different:,} with the field before them"
    fields = (scope.path, own.path)
    return replace(guess, value={"fields": list(fields), **value}, share=share, why=why, fields=fields)
