"""Which fields hold a label, texts of outsiders, and what else may be of use."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.drafting.field_facts import FieldFacts
from streaming.drafting.guess import Guess, named_score
from streaming.drafting.id_guess import column_name
from streaming.labels.label_parsing import FRAUD_WORDS, GENUINE_WORDS

_LABELS = {"is_fraud": 3.0, "fraud": 2.5, "isfraud": 3.0, "is_laundering": 3.0, "class": 1.6, "label": 2.0}
_YES_AND_NO = frozenset({*FRAUD_WORDS, *GENUINE_WORDS})
_TWO = 2
_KINDS = {"fraud_type": 2.0, "fraud_scenario": 2.0, "scenario": 1.5}
_TEXTS = {
    "memo": 3.0,
    "note": 2.5,
    "description": 2.5,
    "message": 2.5,
    "comment": 2.5,
    "narrative": 2.5,
    "remittance": 2.5,
    "reference": 2.0,
    "subject": 2.0,
    "text": 2.0,
    "verwendungszweck": 3.0,
}
_PERSONAL = frozenset(
    {"first", "last", "firstname", "lastname", "street", "dob", "phone", "birth", "gender", "job", "ssn"}
)
_FREE_TEXT_BLANKS, _FREE_TEXT_LENGTH = 2, 20
_MOST_EXTRAS, _MOST_DIFFERENT = 8, 0.5
_TYPES = {"string": "string", "integer": "integer", "float": "float", "boolean": "boolean"}


def guess_label(fields: Sequence[FieldFacts]) -> Guess | None:
    """Return the likeliest field of the label, None where none says fraud or genuine."""
    found = [
        facts
        for facts in fields
        if named_score(facts, _LABELS) >= 1
        and {str(each).strip().lower() for each in facts.counts} <= _YES_AND_NO
    ]
    if not found or not (label := max(found, key=lambda facts: named_score(facts, _LABELS))).held:
        return None
    kind = next((each for each in fields if named_score(each, _KINDS) and each.kinds <= {"integer"}), None)
    value = {"field": label.path, **({"kind": kind.path} if kind else {})}
    read = (label.path, *([kind.path] if kind else []))
    return Guess("label", value, label.share, "for evaluate alone; never decoded into transactions", read)


def possible_labels(fields: Sequence[FieldFacts]) -> tuple[str, ...]:
    """Return fields that say yes or no of each event: one may be a label, under a name unknown here."""
    return tuple(
        facts.path
        for facts in fields
        if len(said := {str(each).strip().lower() for each in facts.counts}) == _TWO and said <= _YES_AND_NO
    )


def guess_texts(fields: Sequence[FieldFacts], taken: set[str]) -> list[Guess]:
    """Return fields of free text, which people outside write."""
    return [
        Guess(
            f"untrusted_text.{column_name(facts.path, taken)}",
            {"field": facts.path},
            facts.share,
            "free text, written by people outside",
            (facts.path,),
        )
        for facts in fields
        if facts.kinds == {"string"} and (named_score(facts, _TEXTS) > 1 or _is_free(facts))
    ]


def _is_free(facts: FieldFacts) -> bool:
    blanks = sum(value.strip().count(" ") for value in facts.held) / len(facts.held)
    length = sum(map(len, facts.held)) / len(facts.held)
    return (
        blanks >= _FREE_TEXT_BLANKS and length >= _FREE_TEXT_LENGTH and facts.distinct_share > _MOST_DIFFERENT
    )


def guess_extras(fields: Sequence[FieldFacts], taken: set[str]) -> list[Guess]:
    """Return a few further fields that rules could use: of one type, and with values that come again."""
    useful = [facts for facts in fields if _is_useful(facts)]
    useful.sort(key=lambda facts: -facts.share)
    return [
        Guess(
            f"extra.{column_name(facts.path, taken)}",
            {"field": facts.path, **({} if kind == "string" else {"type": kind})},
            facts.share,
            f"{len(facts.counts):,} different values; null where absent",
            (facts.path,),
        )
        for facts in useful[:_MOST_EXTRAS]
        for kind in [_type(facts)]
    ]


def _is_useful(facts: FieldFacts) -> bool:
    if not facts.held or "fraud" in facts.words or _PERSONAL & set(facts.words) or not facts.name:
        return False
    one_type = len(facts.kinds) == 1 or facts.is_number
    return one_type and (
        facts.is_number or 1 < len(facts.counts) <= max(2, _MOST_DIFFERENT * len(facts.held))
    )


def _type(facts: FieldFacts) -> str:
    if facts.is_number:
        return "integer" if facts.kinds == {"integer"} and max(map(abs, facts.held)) < 2**63 else "float"
    return _TYPES[next(iter(facts.kinds))]
