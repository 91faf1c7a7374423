"""Rejected records of somebody are known by what they mention, and by ids as the contract makes them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.id_fields import joined
from schemas.tables import QUARANTINE
from streaming.erasure.decided import DecidedUnder
from streaming.erasure.naming import Naming, Subject
from streaming.erasure.records import RecordSearch
from streaming.erasure.renaming import Renaming
from tests.unit.streaming.erasure.test_renaming import CONTRACT, TOKEN

ODD = EventContract.model_validate(
    {
        "name": "odd",
        "transaction_id": {"field": "number"},
        "event_time": {"field": "at", "format": "iso8601"},
        "amount": {"field": "amount"},
        "currency": {"field": "currency"},
        "entities": {
            "payer": {"field": "from.id", "normalise": ["trim", "upper", "nfc"]},
            "card": {"fields": ["bank", "cards[0].no"]},
            "shop": {"field": "header:shop", "required": False},
            "desk": {"field": "key:", "required": False},
            "till": {"field": "value:till", "required": False},
        },
        "aliases": {"from.id": ["payer_id"]},
    }
)
PUT_TOGETHER = joined(["b|1", "4711"])


def raw(value: object = None, key: bytes | None = None, **headers: bytes) -> dict[str, Any]:
    said = value if isinstance(value, bytes) else json.dumps(value).encode()
    named = [{"key": name, "value": each} for name, each in headers.items()]
    return {"key": key, "value": said, "headers": named, "detail": None}


@pytest.mark.parametrize(
    ("entity", "name", "record"),
    [
        ("payer", "Q7", raw({"from": {"id": "q7"}})),
        ("payer", "Q7", raw({"from": {"id": " Q7 "}})),
        ("payer", "Q7", raw({"payer_id": "q7"})),
        ("payer", "42", raw({"from.id": 42})),
        ("payer", "KÄUFER-77", raw({"from": {"id": "ka\u0308ufer-77"}})),
        ("payer", "KÄUFER-77", raw("paid by ka\u0308ufer-77;broken".encode())),
        ("payer", "KÄUFER-77", raw(b'{"other": ["k\\u00c4ufer\\u002d77"]}')),
        ("card", PUT_TOGETHER, raw({"bank": "b|1", "cards": [{"no": "4711"}]})),
        ("card", PUT_TOGETHER, raw({"bank": "b|1", "cards": [{"no": 4711}]})),
        ("shop", "s1", raw({}, shop=b"s1")),
        ("desk", "d1", raw({}, key=b"d1")),
        ("till", "t1", raw({"till": "t1"})),
    ],
)
def test_records_are_known_by_ids_however_a_contract_makes_them(
    entity: str, name: str, record: dict[str, Any]
) -> None:
    other = raw({"from": {"id": "q8"}, "bank": "b|1", "cards": [{"no": "4712"}]}, key=b"d2", shop=b"s2")
    shape = pa.schema([QUARANTINE.field(each) for each in ("key", "value", "headers", "detail")])
    rows = pa.Table.from_pylist([record, other], shape)
    subject = Subject(entity, name, TOKEN)
    found = Renaming([subject], Naming.of([], [ODD]))
    assert RecordSearch([subject], found, [ODD]).of_somebody(rows).tolist() == [True, False]


def test_an_id_is_named_as_the_lake_has_it() -> None:
    decided = DecidedUnder((), (ODD,), frozenset(), has_asked=False)
    for entity, name in (("payer", "KÄUFER-77"), ("card", PUT_TOGETHER), ("shop", " s1 ")):
        decided.check(entity, name)
    with pytest.raises(ConfigurationError, match=r"normalised \(trim, upper, nfc\): enter this one as"):
        decided.check("payer", "käufer-77")
    plain = DecidedUnder((), (ODD, CONTRACT), frozenset(), has_asked=False)
    plain.check("payer", "käufer-77")


def test_a_document_that_nests_without_end_is_searched_all_the_same() -> None:
    deep = b'{"a":' * 900 + b'"k\\u00e4ufer\\u002d77"' + b"}" * 900
    rows = pa.Table.from_pylist([raw(deep)], pa.schema([QUARANTINE.field(each) for each in raw()]))
    subject = Subject("payer", "KÄUFER-77", TOKEN)
    found = Renaming([subject], Naming.of([], [ODD]))
    assert RecordSearch([subject], found, [ODD]).of_somebody(rows).tolist() == [True]
