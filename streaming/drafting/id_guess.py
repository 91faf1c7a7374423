"""Which fields hold ids: of the transaction, and of entities that come again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from schemas.contract import RESERVED
from schemas.event_columns import DIRECTION
from schemas.event_paths import steps_of
from streaming.drafting.field_facts import FieldFacts, words_in
from streaming.drafting.guess import Guess, named_score

_IDS = {
    "transaction_id": 3.0,
    "tx_id": 3.0,
    "txn_id": 3.0,
    "trans_num": 2.8,
    "payment_id": 2.6,
    "event_id": 2.4,
    "id": 2.2,
    "uuid": 2.0,
    "reference": 1.0,
    "end_to_end_id": 1.6,
}
_PAYERS = {
    "customer": 3.0,
    "customer_id": 3.2,
    "card": 2.9,
    "cc_num": 3.0,
    "card_number": 3.0,
    "name_orig": 3.0,
    "account": 2.6,
    "account_id": 2.8,
    "client": 2.6,
    "user": 2.5,
    "user_id": 2.8,
    "payer": 2.9,
    "sender": 2.9,
    "debtor": 2.9,
    "source": 1.4,
    "pan": 2.4,
    "iban": 2.4,
    "token": 2.0,
    **dict.fromkeys(("cust", "cust_id", "cust_no", "buyer", "cardholder", "holder", "member", "wallet"), 2.6),
    # German, French and Spanish, as words_in spells them: without accents, umlauts in two letters
    **dict.fromkeys(("kunde", "kunden", "kundennummer", "kundennr", "kdnr"), 2.9),
    **dict.fromkeys(("karte", "karten", "kartennummer", "kartennr", "carte", "numcarte", "tarjeta"), 2.8),
    **dict.fromkeys(("konto", "kontonummer", "kontonr", "compte", "cuenta"), 2.6),
    **dict.fromkeys(("cliente", "auftraggeber", "zahler", "absender", "karteninhaber"), 2.7),
    **dict.fromkeys(("payeur", "acheteur", "porteur", "titulaire", "utilisateur", "emetteur"), 2.5),
    **dict.fromkeys(("pagador", "ordenante", "titular", "usuario", "comprador", "remitente"), 2.5),
}
_OTHERS = {
    "merchant": 2.4,
    "merchant_id": 2.5,
    "merchant_name": 2.4,
    "terminal": 2.4,
    "terminal_id": 2.5,
    "shop": 2.2,
    "payee": 2.4,
    "receiver": 2.4,
    "creditor": 2.4,
    "beneficiary": 2.4,
    "name_dest": 2.5,
    "target": 1.2,
    "device": 2.0,
    "device_id": 2.2,
    "ip": 1.8,
    "email": 1.6,
    **dict.fromkeys(("store", "vendor", "seller", "retailer", "supplier", "recipient", "atm"), 2.2),
    **dict.fromkeys(("haendler", "haendlernummer", "haendlernr", "empfaenger", "verkaeufer"), 2.4),
    **dict.fromkeys(("filiale", "laden", "kasse", "geraet"), 2.0),
    **dict.fromkeys(("commercant", "marchand", "beneficiaire", "destinataire", "vendeur"), 2.4),
    **dict.fromkeys(("magasin", "boutique", "appareil"), 2.0),
    **dict.fromkeys(("comercio", "comerciante", "beneficiario", "destinatario", "vendedor"), 2.4),
    **dict.fromkeys(("tienda", "dispositivo"), 2.0),
}
_NOT_ENTITIES = frozenset({
    "currency", "lat", "long", "type", "status", "country", "state", "city", "zip", "mcc", "category",
    "waehrung", "devise", "moneda", "divisa", "land", "pays", "pais", "ort", "stadt", "ville", "ciudad",
    "plz", "typ", "tipo", "kategorie", "categorie", "categoria", "statut", "estado",
})  # fmt: skip
_PLACEHOLDERS = (
    "UNKNOWN",
    "unknown",
    "N/A",
    "n/a",
    "NONE",
    "none",
    "null",
    "NULL",
    "0",
    "-1",
    "",
    "guest",
    "-",
)
_OF_SOMETHING = frozenset({"id", "no", "number", "acct", "ref", "code", "key"})
_MOST_ENTITIES = 3
_UNIQUE, _NEARLY = 0.999, 0.9
_OFTEN = 0.2
_FEW_IDS, _MANY_IDS, _DIFFERENT = 0.02, 0.95, 3
_NUMBERED = re.compile(r"(?=.*[0-9])[A-Za-z0-9_/:-]{4,}")
_UNNAMED = 0.5
_ENOUGH_ROWS = 20
_WHERE_ABSENT = "; some have none and are refused: add from: coordinates to take them"


def guess_id(fields: Sequence[FieldFacts]) -> Guess | None:
    """Return the likeliest field of the transaction's id, None where none comes once."""
    ranked = sorted((each for facts in fields for each in _ids(facts)), key=lambda each: -each[0])
    return ranked[0][1] if ranked else None


def id_of_coordinates() -> Guess:
    """Return that the id is made of the record's place."""
    why = "no field looks like an id of the payment: each record is a payment of its own"
    return Guess("transaction_id", {"from": "coordinates"}, 1.0, why)


def _ids(facts: FieldFacts) -> Iterator[tuple[float, Guess]]:
    named = named_score(facts, _IDS) or _UNNAMED * _is_numbered(facts)
    if not is_id(facts) or facts.share < _NEARLY or not named:
        return
    unique = len(facts.counts) / len(facts.values)
    if unique >= (_NEARLY if named > 1 else _UNIQUE * facts.share):
        value = {"field": facts.path, **_type(facts)}
        why = "a value of its own" + ("" if facts.share == 1.0 else _WHERE_ABSENT)
        yield named + unique + facts.share, Guess("transaction_id", value, unique, why, (facts.path,))


def _is_numbered(facts: FieldFacts) -> bool:
    """Whether it is text as numbers of documents are, by which no entity goes."""
    texts = len(facts.held) >= _ENOUGH_ROWS and facts.kinds == {"string"} and not _name(facts)
    return texts and all(_NUMBERED.fullmatch(each) for each in facts.held)


def guess_entities(fields: Sequence[FieldFacts]) -> list[Guess]:
    """Return up to three fields of entities, one that all events have first; none where nothing repeats."""
    found = [(_name(facts), merit, facts) for facts in fields for merit in _merits(facts)]
    named = [each for each in found if each[0]] or sorted(found, key=lambda each: -each[1])[:1]
    chosen = [facts for _, _, facts in sorted(named, key=lambda each: -each[1])[:_MOST_ENTITIES]]
    chosen.sort(key=_first_rank, reverse=True)
    taken = {DIRECTION}
    return [_entity(facts, place == 0, taken) for place, facts in enumerate(chosen)]


def names_entity(facts: FieldFacts) -> bool:
    """Whether it is called as entities are."""
    return bool(_name(facts))


def _name(facts: FieldFacts) -> float:
    return max(named_score(facts, _PAYERS), named_score(facts, _OTHERS))


def _merits(facts: FieldFacts) -> Iterator[float]:
    if not is_id(facts) or _NOT_ENTITIES & set(facts.words):
        return
    repeats = _FEW_IDS < facts.distinct_share < _MANY_IDS and len(facts.counts) >= _DIFFERENT
    if _name(facts) or (repeats and facts.kinds == {"string"} and " " not in str(facts.held[0])):
        yield _name(facts) + 0.5 * repeats + facts.share


def _first_rank(facts: FieldFacts) -> tuple[bool, float]:
    return facts.share == 1.0, max(named_score(facts, _PAYERS), 0.5 * named_score(facts, _OTHERS))


def _entity(facts: FieldFacts, first: bool, taken: set[str]) -> Guess:
    placeholders = [each for each in _PLACEHOLDERS if facts.counts.get(each, 0) > 1]
    missing = facts.share < 1.0 or bool(placeholders)
    value: dict[str, Any] = {"field": facts.path, **_type(facts)}
    if placeholders:
        value["null_values"] = placeholders
    if missing and not first:
        value["required"] = False
    filled = sum(often for each, often in facts.counts.items() if each not in placeholders)
    top, often = facts.counts.most_common(1)[0]
    why = f"{len(facts.counts):,} different ids"
    telling = len(facts.values) >= _ENOUGH_ROWS and top not in placeholders
    if telling and often > _OFTEN * len(facts.values):
        why += f", one of them in {often / len(facts.values):.0%} of the records: is that one customer?"
    share = 1.0 if missing and not first else filled / len(facts.values)
    return Guess(f"entities.{_entity_name(facts.path, taken)}", value, share, why, (facts.path,))


def is_id(facts: FieldFacts) -> bool:
    """Whether ids may be of this type: text, or whole numbers."""
    return bool(facts.kinds) and facts.kinds <= {"string", "integer"}


def _type(facts: FieldFacts) -> Mapping[str, str]:
    return {"type": "integer"} if facts.kinds == {"integer"} else {}


def _entity_name(path: str, taken: set[str]) -> str:
    """Return a name for an entity, and take it: of `shop.no` the shop, as any entity may have a `no`."""
    own = _step_names(path)
    return column_name(path, taken, own[-2:-1] if own[-1] in _OF_SOMETHING else ())


def _step_names(path: str) -> list[str]:
    return ["_".join(words_in(step)) for step in steps_of(path) if isinstance(step, str)]


def column_name(path: str, taken: set[str], best: Sequence[str] = ()) -> str:
    """Return a name for a column of a field, and take it.

    Args:
        taken: names that others have.
        best: of which it is made where that can be; empty for the field's own.
    """
    words = _step_names(path)
    for parts in (best, words[-1:], words[-2:], words):
        name = "_".join(part for part in parts if part)
        if name.isidentifier() and name not in taken | RESERVED:
            break
    else:
        name = next(each for each in map("field_{}".format, count(1)) if each not in taken)
    taken.add(name)
    return name
