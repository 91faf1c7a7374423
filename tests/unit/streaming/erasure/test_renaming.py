"""Ids become tokens in ids, in parts of ids and in texts; whatever is somebody else's stays."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from schemas.alert import ALERTS
from schemas.contract import EventContract
from schemas.erasure import holds_token, is_token, new_token
from schemas.errors import ConfigurationError
from schemas.id_fields import joined, parted
from schemas.spec import AgentSpec
from schemas.tables import LEDGER, QUARANTINE
from streaming.arrays.columns import BETWEEN
from streaming.delta.erasure_plan import Erasable, PlanFile, check_none_under_way
from streaming.erasure.naming import Naming, Subject
from streaming.erasure.questions import AskedAbout
from streaming.erasure.records import RecordSearch
from streaming.erasure.renaming import Renaming
from streaming.erasure.rows import RowChange
from streaming.store.place import Place
from streaming.testing.small_lake import spec_of

CONTRACT = EventContract.model_validate(
    {
        "name": "accounts",
        "transaction_id": {"fields": ["payer", "number"]},
        "event_time": {"field": "at", "format": "iso8601"},
        "amount": {"field": "amount"},
        "currency": {"field": "currency"},
        "entities": {
            "payer": {"field": "payer"},
            "payee": {"field": "payee"},
            "card": {"fields": ["bank", "payer"]},
            "shop": {"field": "shop"},
        },
        "extra": {
            "holder_name": {"field": "holder", "type": "string"},
            "mcc": {"field": "mcc", "type": "string"},
        },
        "untrusted_text": {"memo": {"field": "memo"}},
    }
)
TOKEN = "erased-0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def spec() -> AgentSpec:
    both = {"counterparties": {"enabled": True, "entities": ["payer", "payee"]}}
    return spec_of(detectors=both, profiles={"pairs": [["payer", "shop"]]})


def renaming(*ids: str, entity: str = "payer", aliases: dict[str, str] | None = None) -> Renaming:
    subjects = [Subject(entity, each, TOKEN if not n else new_token()) for n, each in enumerate(ids)]
    return Renaming(subjects, Naming.of([spec()], [CONTRACT]), aliases)


IDS = st.text(min_size=1, max_size=20).filter(lambda text: BETWEEN not in text and text.strip() == text)
TELLING = IDS.filter(lambda text: Subject("payer", text, TOKEN).is_telling and not holds_token(text))


@given(st.lists(st.text(), min_size=2, max_size=4))
def test_ids_of_several_fields_can_be_read_again(parts: list[str]) -> None:
    assert parted(joined(parts)) == parts


@given(IDS, IDS)
@example("c42", "c421")
@example('a|"ä"\\', "b")
def test_an_id_becomes_the_token_wherever_its_kind_stands(one: str, other: str) -> None:
    assume(one != other)
    found = renaming(one)
    assert found.id("payer", one) == TOKEN
    assert found.id("payee", one) == TOKEN
    assert found.id("card", joined(["bank", one])) == joined(["bank", TOKEN])
    assert found.id("transaction_id", joined([one, "17"])) == joined([TOKEN, "17"])
    assert found.of_kind(("payer", "shop"), BETWEEN.join([one, "kiosk"])).split(BETWEEN)[0] == TOKEN


@given(TELLING, st.lists(TELLING, min_size=2, max_size=6, unique=True))
def test_no_two_ids_become_alike(one: str, others: list[str]) -> None:
    found = renaming(one)
    for column in ("payer", "card", "shop", "transaction_id"):
        after = [found.id(column, each) for each in others]
        assert len(set(after)) == len(others)
        assert [found.id(column, each) for each in after] == after


@given(TELLING, st.sampled_from(["{}", "pay {} now", "({})", "a,{};b", "{}\n{}", "zu {}.", 'says "{}"']))
@example("müller-7", "pay {} now")
def test_nothing_of_an_id_is_left_in_a_text(one: str, form: str) -> None:
    text = form.replace("{}", one)
    assert one not in renaming(one).text(text).replace(TOKEN, "")
    written = json.dumps({"said": text})
    assert text not in str(json.loads(renaming(one).text(written)))


@pytest.mark.parametrize(
    ("name", "text", "after"),
    [
        ("c42", "c421 and xc42", "c421 and xc42"),
        ("c42", "C42 paid", f"{TOKEN} paid"),
        ("7", "7 payments of 7 EUR", "7 payments of 7 EUR"),
        ("7", "payer 7, payer=7 and payer 77", f"payer {TOKEN}, payer={TOKEN} and payer 77"),
        ("7", '{"payer": "7", "shop": "7"}', f'{{"payer": "{TOKEN}", "shop": "7"}}'),
        ("424242", "1424242 EUR, 424242 and 424242.", f"1424242 EUR, {TOKEN} and {TOKEN}."),
    ],
)
def test_only_what_is_the_id_is_taken_for_it(name: str, text: str, after: str) -> None:
    assert renaming(name).text(text) == after


def test_a_shop_of_the_same_short_name_is_somebody_else() -> None:
    assert renaming("7").id("shop", "7") == "7"
    assert renaming("7").id("card", "7|7") == f"7|{TOKEN}"
    assert renaming("7").id("transaction_id", "17|7") == "17|7"


@pytest.mark.parametrize("other", ["acme-2", "acme.berlin", "to acme", "acme\x1fx"])
def test_another_id_that_only_holds_one_is_somebody_elses(other: str) -> None:
    found = renaming("acme")
    assert found.id("payer", other) == other
    assert found.id("payee", other) == other
    assert found.id("shop", other) == other.replace("acme", TOKEN), "of another kind"
    assert found.id("transaction_id", f"{other}-17") == f"{other}-17".replace("acme", TOKEN)


def test_rows_of_somebody_lose_their_texts_and_keep_all_else() -> None:
    rows = pa.table(
        {
            "sequence": [0, 1, 2],
            "transaction_id": ["c42|1", "c9|2", "c9|3"],
            "payer": ["c42", "c9", "c9"],
            "payee": ["c9", "c42", "c8"],
            "card": ["b|c42", "b|c9", "b|c9"],
            "shop": ["s", "s", "s"],
            "amount": [1.0, 2.0, 3.0],
            "memo": ["my memo", "a memo", "for c42"],
            "holder_name": ["Ada", "Bob", "Eve"],
            "mcc": ["5411", "5411", "c42"],
            "topic": ["c42", "c42", "c42"],
        }
    )
    found = renaming("c42")
    search = RecordSearch([Subject("payer", "c42", TOKEN)], found, [CONTRACT])
    change = RowChange(found, search, of_events=True)
    after = change(rows)
    assert after["transaction_id"].to_pylist() == [f"{TOKEN}|1", "c9|2", "c9|3"]
    assert after["payer"].to_pylist() == [TOKEN, "c9", "c9"]
    assert after["payee"].to_pylist() == ["c9", TOKEN, "c8"]
    assert after["card"].to_pylist() == [f"b|{TOKEN}", "b|c9", "b|c9"]
    assert after["memo"].to_pylist() == [None, None, f"for {TOKEN}"]
    assert after["holder_name"].to_pylist() == [None, None, "Eve"]
    assert after["mcc"].to_pylist() == ["5411", "5411", TOKEN]
    for name in ("sequence", "amount", "shop", "topic"):
        assert after[name].equals(rows[name])
    assert change.changed == 3
    assert change(after) is after


def test_records_of_somebody_lose_their_bytes() -> None:
    values = [b'{"payer": "c42"}', b'{"payer": "c421"}', b"c42;broken", b'{"at": {"payer": 42}}', b"\xff\xfe"]
    rows = pa.table(
        {
            "key": [b"c42", b"k", None, None, None],
            "value": values,
            "detail": ["payer c9"] * 5,
            "offset": range(5),
        }
    )
    rows = pa.table(
        [
            rows[n] if n in rows.column_names else pa.nulls(5, QUARANTINE.field(n).type)
            for n in QUARANTINE.names
        ],
        QUARANTINE.names,
    )
    found = renaming("c42")
    search = RecordSearch([Subject("payer", "c42", TOKEN)], found, [CONTRACT])
    after = RowChange(found, search)(rows)
    assert after["value"].to_pylist() == [None, values[1], None, values[3], values[4]]
    assert after["key"].to_pylist() == [None, b"k", None, None, None]
    assert after["offset"].equals(rows["offset"])
    short = renaming("42")
    by_field = RecordSearch([Subject("payer", "42", TOKEN)], short, [CONTRACT])
    one = rows.set_column(1, "value", pa.array([b'{"payer": 42}', *values[1:]]))
    assert by_field.of_somebody(one).tolist() == [True, False, False, False, False]


def test_questions_about_somebody_are_found_by_pseudonym_and_by_what_is_asked() -> None:
    named = {"examples": [{"entities": {"payer": "payer_3fa91c07"}, "texts": {"memo": "hello"}}]}
    unnamed = {
        "examples": [{"amount": 12.346, "event_time": "2026-05-01T10:00:00Z", "texts": {"memo": "hello"}}]
    }
    other = {
        "examples": [{"amount": 12.346, "event_time": "2026-05-01T10:00:01Z", "texts": {"memo": "hello"}}]
    }
    questions = [named, unnamed, other]
    rows = pa.Table.from_pylist(
        [
            *(
                {"key": f"k{n}", "kind": "intent", "canonical_input": json.dumps(q)}
                for n, q in enumerate(questions)
            ),
            *(
                {
                    "key": f"k{n}",
                    "kind": "answer",
                    "canonical_input": "",
                    "rationale": "said",
                    "evidence": ["a=b"],
                }
                for n in range(3)
            ),
        ],
        LEDGER,
    )
    found = renaming("c42", aliases={"payer_3fa91c07": "payer_00000000"})
    alerts = pa.table(
        {
            "event_time": pa.array([1777629600_000000], pa.timestamp("us", tz="UTC")),
            "amount": [12.3456],
            "score": [0.99],
        }
    )
    asked = AskedAbout(found, [alerts])
    assert sorted(asked.keys(rows)) == ["k0", "k1"]
    change = RowChange(found, RecordSearch([], found, []), asked.keys(rows))
    after = change(rows)
    assert after["canonical_input"].to_pylist() == ["", "", json.dumps(other), "", "", ""]
    assert after["rationale"].to_pylist() == [None, None, None, "", "", "said"]
    assert after["evidence"].to_pylist() == [None, None, None, [], [], ["a=b"]]
    assert after["key"].equals(rows["key"])
    assert change.changed == 4
    assert change(after) is after


def test_what_a_model_said_of_an_alert_goes_and_what_rules_said_stays() -> None:
    rows = pa.Table.from_pylist(
        [
            {
                "entities": [("payer", who)],
                "classification_source": source,
                "rationale": "said of c42",
                "evidence": ["a=b"],
            }
            for who, source in (("c42", "llm"), ("c42", "rules"), ("c9", "llm"))
        ],
        pa.schema(
            [
                ALERTS.field(name).with_nullable(True)
                for name in ("entities", "classification_source", "rationale", "evidence")
            ]
        ),
    )
    found = renaming("c42")
    after = RowChange(found, RecordSearch([], found, []))(rows)
    assert after["rationale"].to_pylist() == ["", "said of c42", f"said of {TOKEN}"]
    assert after["evidence"].to_pylist() == [[], ["a=b"], ["a=b"]]
    assert after["entities"].to_pylist() == [[("payer", TOKEN)], [("payer", TOKEN)], [("payer", "c9")]]


def draw(_: Erasable) -> str:
    return new_token()


def test_a_plan_knows_ids_again_and_holds_none(tmp_path: Path) -> None:
    plans = PlanFile(Place.local(tmp_path))
    wanted = [Erasable("payer", "k42"), Erasable("shop", "kiosk")]
    plan = plans.begin(wanted, "anna", "by letter", draw)
    written = (tmp_path / "erasure.json").read_text()
    assert "k42" not in written  # which no digest is by chance
    assert "kiosk" not in written
    assert plans.begin([Erasable("payer", "c9")], "bert", "by letter", draw) == plan
    found = plan.tokens_of(list(reversed(wanted)))
    assert [each[:2] for each in found] == list(reversed(wanted))
    assert all(is_token(token) for *_, token in found)
    for others in ([wanted[0]], [*wanted, Erasable("payer", "c9")], [wanted[0], Erasable("shop", "k42")]):
        with pytest.raises(ConfigurationError, match="with the same ids"):
            plan.tokens_of(others)
    with pytest.raises(ConfigurationError, match="is not finished"):
        check_none_under_way(Place.local(tmp_path))
    plans.remove()
    check_none_under_way(Place.local(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_random() -> None:
    drawn = [new_token() for _ in range(100)]
    assert all(one != other for one, other in pairwise(drawn))
    assert all(re.fullmatch(r"erased-[0-9a-f]{32}", each) for each in drawn)


@pytest.mark.parametrize(
    ("erased", "pair", "wanted"),
    [
        ("4711", "4711\x1fa\x1fb", f"{TOKEN}\x1fa\x1fb"),
        ("4711\x1fa", "4711\x1fa\x1fb", f"{TOKEN}\x1fb"),
        ("4711", "4712\x1fa\x1fb", "4712\x1fa\x1fb"),
    ],
)
def test_ids_of_a_pair_may_hold_what_stands_between_them(erased: str, pair: str, wanted: str) -> None:
    assert renaming(erased).of_kind(("payer", "shop"), pair) == wanted
