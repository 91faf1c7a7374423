"""Columns are taken for what they are in their table, whatever others call theirs."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from schemas.alert import ALERTS
from schemas.contract import EventContract
from streaming.detection.checkpoint_files import ScorerSnapshot
from streaming.detection.detectors import COUNTERPARTIES
from streaming.erasure.naming import Naming, Subject
from streaming.erasure.records import RecordSearch
from streaming.erasure.renaming import Renaming
from streaming.erasure.rows import RowChange
from streaming.erasure.states import StateChange
from tests.unit.streaming.erasure.test_renaming import CONTRACT, TOKEN, renaming


def test_columns_of_a_contract_may_be_called_as_those_of_other_tables_are() -> None:
    names = {"entities": {"agent": {"field": "a"}, "policy": {"field": "p"}}}
    texts = {"untrusted_text": {"reason": {"field": "r"}, "content": {"field": "c"}}}
    contract = EventContract.model_validate(CONTRACT.model_dump(mode="json") | names | texts | {"extra": {}}
                                            | {"transaction_id": {"field": "n"}})  # fmt: skip
    subject = Subject("agent", "c42", TOKEN)
    found = Renaming([subject], Naming.of([], [contract]))
    rows = pa.table(
        {
            "agent": ["c42", "c9"],
            "policy": ["p1", "p2"],
            "reason": ["mine", "for c42"],
            "content": ["mine", "by c42"],
        }
    )
    change = RowChange(found, RecordSearch([subject], found, [contract]), of_events=True)
    after = change(rows)
    assert after["agent"].to_pylist() == [TOKEN, "c9"]
    assert after["policy"].equals(rows["policy"])
    assert after["reason"].to_pylist() == [None, f"for {TOKEN}"]
    assert after["content"].to_pylist() == [None, f"by {TOKEN}"]
    assert change.changed == 2
    assert change(after) is after
    others = pa.table(
        {"entities": pa.array([[("agent", "c42")]], ALERTS.field("entities").type), "reason": ["closed"]}
    )
    after = RowChange(found, RecordSearch([subject], found, [contract]))(others)
    assert after["entities"].to_pylist() == [[("agent", TOKEN)]]
    assert after["reason"].to_pylist() == ["closed"], "a column of ours, not the contract's text"


def test_numbers_and_words_of_reasons_are_no_ids() -> None:
    reason = {"name": "amount.payer", "contribution": 1.5, "text": "150000.00 JPY is among the largest"}
    shape = [ALERTS.field(name) for name in ("entities", "classification_source", "rationale", "reasons")]
    rows = pa.Table.from_pylist(
        [
            {"entities": [("payer", who)], "classification_source": "rules", "rationale": reason["text"],
             "reasons": [reason]}
            for who in ("c9", "150000")
        ],
        pa.schema(shape),
    )  # fmt: skip
    found = renaming("150000")
    after = RowChange(found, RecordSearch([], found, []))(rows)
    assert after["entities"].to_pylist() == [[("payer", "c9")], [("payer", TOKEN)]]
    assert after["reasons"].equals(rows["reasons"])
    assert after["rationale"].equals(rows["rationale"])


def test_an_account_of_the_same_id_as_a_shop_stays_in_memory() -> None:
    def remembered(names: list[str]) -> ScorerSnapshot:
        accounts = pa.RecordBatch.from_pydict({"id": pa.array([each.encode() for each in names])})
        nothing: Any = None
        return ScorerSnapshot(
            0, "h", {}, nothing, {}, nothing, {COUNTERPARTIES: {"accounts": accounts}}, {}
        )  # fmt: skip

    def after(entity: str) -> list[bytes]:
        found = renaming("4711", entity=entity)
        changed = StateChange(found, RowChange(found, RecordSearch([], found, []), of_events=True))
        held: list[bytes] = (
            changed(remembered(["4711", "c9"])).detectors[COUNTERPARTIES]["accounts"]["id"].to_pylist()
        )
        return held

    assert after("shop") == [b"4711", b"c9"]
    assert after("payee") == [TOKEN.encode(), b"c9"]
