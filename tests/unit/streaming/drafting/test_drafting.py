"""What is drafted from a sample loads, and accepts of the sample what it says."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.cli.root import app
from streaming.drafting import id_guess, other_guesses
from streaming.drafting.checking import check_sample
from streaming.drafting.draft import ContractDraft, draft_of
from streaming.drafting.sample import FileSample, TopicSample
from streaming.testing.live_lake import events

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = st.sampled_from(
    ["id", "a", "b.c", "Änderung", "from", "x[0]", "value:z", "late", "e\u2028e", "is_fraud", "#"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["yes", "EUR", "2026-01-01", "1,50", "$3", "UNKNOWN", "0"])
)
spare = st.dictionaries(
    names, scalars | st.lists(scalars, max_size=2) | st.dictionaries(names, scalars), max_size=5
)
rows = st.fixed_dictionaries(
    {
        "created": st.integers(0, 10**6).map(lambda second: 1_764_331_200 + second) | scalars,
        "amount": st.decimals(0, 10**6, places=2).map(float) | scalars,
        "customer": st.sampled_from(["ann", "bob", "eve"]) | scalars,
    }
)


def drafted(path: Path, events: list[Any]) -> ContractDraft:
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return draft_of(FileSample(path, 1_000))


def of(guesses: ContractDraft) -> dict[str, Any]:
    return {guess.key: guess.value for guess in guesses.guesses}


@pytest.mark.long
@FEW
@given(st.lists(st.tuples(rows, spare), min_size=1, max_size=12))
def test_a_draft_loads_and_accepts_what_it_says(tmp_path: Path, events: list[Any]) -> None:
    path = tmp_path / "sample.jsonl"
    try:
        draft = drafted(path, [{**more, **event} for event, more in events])
    except ConfigurationError as fault:
        assert "no field reads as" in str(fault)
        return
    written = tmp_path / "drafted.yaml"
    written.write_text(draft.text(), encoding="utf-8")
    contract = load_contract(str(written))
    found = check_sample(FileSample(path, 1_000), contract)
    assert (found.accepted, found.records) == (draft.accepted, len(events))
    assert found.accepted + sum(found.rejected.values()) == found.records


def test_a_file_that_cannot_be_drafted_from_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes("id,memo\n1,déjà\n2,mañana\n".encode() + b"3,d\xe9\n")
    with pytest.raises(ConfigurationError, match=r"mixed\.csv:4: column 'memo' holds broken characters"):
        draft_of(FileSample(path, 10))
    far = pa.array([2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"at": far, "amount": [1], "card": ["a"]}), tmp_path / "far.parquet")
    with pytest.raises(ConfigurationError, match="no field reads as an event time"):
        draft_of(FileSample(tmp_path / "far.parquet", 10))
    (tmp_path / "none.csv").write_text("id,ts\n")
    with pytest.raises(ConfigurationError, match=r"none\.csv: the sample holds no rows"):
        draft_of(FileSample(tmp_path / "none.csv", 10))


def test_names_that_read_like_places_and_numbers_beyond_floats_end_no_draft(tmp_path: Path) -> None:
    odd = [{**each, "[0]": f"k{row % 3}", "n": 10**400 + row} for row, each in enumerate(payments())]
    draft = drafted(tmp_path / "odd.jsonl", odd)
    assert draft.accepted == len(odd)
    assert "[0]" not in draft.text()


def payments(count: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "payment_id": f"p{row}",
            "created_at": f"2026-11-{row % 28 + 1:02}T12:00:00+01:00",
            "amount": {"value": f"{row},50", "currency": "eur"},
            "card": {"token": f"c{row % 7}"},
            "merchant_id": None if row % 5 == 0 else row % 11,
            "description": f"invoice {row} for what was bought in town",
            "country": "DE" if row % 2 else "FR",
            "isFraud": "Yes" if row % 9 == 0 else "No",
        }
        for row in range(count)
    ]


def test_every_role_is_found_and_explained(tmp_path: Path) -> None:
    draft = drafted(tmp_path / "a.jsonl", payments())
    assert of(draft) == {
        "transaction_id": {"field": "payment_id"},
        "event_time": {"field": "created_at", "format": "iso8601"},
        "amount": {"field": "amount.value", "format": "decimal", "decimal": ","},
        "currency": {"field": "amount.currency", "codes": "iso4217"},
        "entities.token": {"field": "card.token"},
        "entities.merchant_id": {"field": "merchant_id", "type": "integer", "required": False},
        "extra.country": {"field": "country"},
        "untrusted_text.description": {"field": "description"},
        "label": {"field": "isFraud"},
    }
    assert draft.accepted == draft.records == 60
    assert all(guess.why for guess in draft.guesses)


@pytest.mark.parametrize(
    ("times", "form"),
    [
        ([1_764_331_200 + row for row in range(30)], {"format": "epoch", "unit": "s"}),
        ([1_764_331_200_000 + row for row in range(30)], {"format": "epoch", "unit": "ms"}),
        ([1_764_331_200_000_000 + row for row in range(30)], {"format": "epoch", "unit": "us"}),
        ([f"{row % 28 + 1:02}.11.2026 12:00:00" for row in range(30)], {"format": "%d.%m.%Y %H:%M:%S"}),
        ([f"11/{row % 28 + 1:02}/2026 12:00" for row in range(30)], {"format": "%m/%d/%Y %H:%M"}),
        ([f"2026/11/{row % 28 + 1:02} 12:00" for row in range(30)], {"format": "%Y/%m/%d %H:%M"}),
    ],
)
def test_times_are_recognised_by_their_range_or_pattern(
    tmp_path: Path, times: list[Any], form: dict[str, str]
) -> None:
    events = [{**event, "created_at": at} for event, at in zip(payments(30), times, strict=True)]
    draft = drafted(tmp_path / "a.jsonl", events)
    assert of(draft)["event_time"] == {"field": "created_at", **form}
    assert draft.accepted == 30


def test_a_time_in_several_fields_is_found(tmp_path: Path) -> None:
    parts = (
        {"Year": 2026, "Month": 11, "Day": row % 28 + 1, "Time": f"{row % 24:02}:30"} for row in range(30)
    )
    events = [{**event, "created_at": None, **more} for event, more in zip(payments(30), parts, strict=True)]
    draft = drafted(tmp_path / "a.jsonl", events)
    assert of(draft)["event_time"] == {"fields": ["Year", "Month", "Day", "Time"], "format": "%Y %m %d %H:%M"}
    assert draft.accepted == 30


def test_without_an_id_a_record_is_a_payment_of_its_own_and_placeholders_are_named(tmp_path: Path) -> None:
    text = "step,amount,nameOrig,nameDest,type\n"
    text += "".join(
        f"{row},{row - 3}.5,C{row % 4},{'UNKNOWN' if row % 2 else 'M1'},T{row % 2}\n" for row in range(40)
    )
    path = tmp_path / "steps.csv"
    path.write_text(text, encoding="utf-8")
    draft = draft_of(FileSample(path, 1_000))
    found = of(draft)
    assert found["transaction_id"] == {"from": "coordinates"}
    assert (found["event_time"]["unit"], found["event_time"]["field"]) == ("h", "step")
    assert found["amount"] == {"field": "amount", "negative": "refund"}
    assert found["entities.name_dest"] == {"field": "nameDest", "null_values": ["UNKNOWN"], "required": False}
    assert draft.accepted == 40


def test_a_file_in_another_language_is_understood_by_its_values_and_spelt_as_it_is(tmp_path: Path) -> None:
    lines = ["Buchungsnr;Konto;Währung;Betrag;Buchungszeit;Händler"]
    lines += [
        f"{'' if row == 17 else f'B{row:05}'};K{row % 9};{'CHF' if row % 7 == 0 else 'EUR'};1.2{row:02},50;"
        f"01.03.2026 12:{row % 60:02}:00;M{row % 3}"
        for row in range(60)
    ]
    path = tmp_path / "buchungen.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    sample = FileSample(path, 1_000)
    draft = draft_of(sample)
    found = of(draft)
    assert found["transaction_id"] == {"field": "Buchungsnr"}
    assert found["currency"] == {"field": "Währung"}
    assert found["entities.haendler"] == {"field": "Händler"}
    assert "{field: Währung}" in draft.text()
    assert draft.accepted == 59
    assert [each for each in sample.said if "decimal comma" in each]


NAMES = {
    "English": ["cust", "custId", "buyer", "store", "vendor", "recipient"],
    "German": ["kunde", "Kundennummer", "karte", "KartenNr", "Konto", "Händler", "Empfänger"],
    "French": ["client", "carte", "compte", "commerçant", "bénéficiaire", "magasin"],
    "Spanish": ["cliente", "tarjeta", "cuenta", "comercio", "destinatario", "tienda"],
}


@pytest.mark.parametrize("name", [name for names in NAMES.values() for name in names])
def test_entities_are_known_by_their_names_in_four_languages(tmp_path: Path, name: str) -> None:
    """Beside fields that are named in English, which alone would otherwise count."""
    events = [{**event, name: f"n{row % 7}"} for row, event in enumerate(payments())]
    entities = drafted(tmp_path / "a.jsonl", events).document()["entities"]
    assert name in [each["field"] for each in entities.values()]


@pytest.mark.parametrize(("yes", "no"), [("ja", "nein"), ("Oui", "non"), (1, 0), ("1", "0"), (True, False)])
def test_what_may_be_a_label_is_left_out_and_named(tmp_path: Path, yes: Any, no: Any) -> None:
    events = [{**event, "Betrug": yes if row % 9 == 0 else no} for row, event in enumerate(payments(), 3)]
    unnamed = [{name: value for name, value in event.items() if name != "isFraud"} for event in events]
    draft = drafted(tmp_path / "a.jsonl", unnamed)
    assert draft.left_out == ("Betrug",)
    assert "Betrug" not in json.dumps(draft.document())
    assert any(line.startswith("# Betrug says yes or no") for line in draft.text().splitlines())
    assert draft.accepted == draft.records
    known = drafted(tmp_path / "b.jsonl", events)
    assert (known.left_out, of(known)["label"]) == ((), {"field": "isFraud"})


def test_the_page_says_which_labels_are_known() -> None:
    page = (Path(__file__).parents[4] / "docs" / "contracts.md").read_text(encoding="utf-8")
    for name in [*other_guesses._LABELS, *other_guesses._KINDS]:
        assert f"`{name}`" in page.replace("isFraud", "isfraud"), name
    for leaf in id_guess._OF_SOMETHING:
        assert leaf in page.partition("or from what the field lies in where it is called ")[2][:60], leaf


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({"shop": {"no": "S{}"}}, "shop"),
        ({"payer": {"acct": "A{}"}}, "payer"),
        ({"x": {"cardHolder": {"ID": "H{}"}}}, "card_holder"),
        ({"customer_id": "C{}"}, "customer_id"),
        ({"card": {"token": "T{}"}}, "token"),
    ],
)
def test_an_entity_is_called_by_whose_number_it_is(tmp_path: Path, event: dict[str, Any], name: str) -> None:
    events = [
        {"at": f"2026-11-{row % 28 + 1:02}T12:00:00Z", "amount": row + 0.5, "key": f"k{row}",
         **json.loads(json.dumps(event).replace("{}", f"{row % 7:03}"))}
        for row in range(60)
    ]  # fmt: skip
    assert f"entities.{name}" in of(drafted(tmp_path / "a.jsonl", events))


def test_two_entities_of_one_name_are_told_apart(tmp_path: Path) -> None:
    events = [
        {**event, "shop": {"no": f"N{row % 5:03}", "ref": f"R{row % 8:03}"}}
        for row, event in enumerate(payments())
    ]
    found = [key for key in of(drafted(tmp_path / "a.jsonl", events)) if key.startswith("entities.")]
    assert len(found) == len(set(found)) == 3


def test_a_name_that_turns_text_around_is_escaped(tmp_path: Path) -> None:
    events = [{**event, "back\u202ewards": f"x{row % 3}"} for row, event in enumerate(payments())]
    assert "\u202e" not in drafted(tmp_path / "a.jsonl", events).text()


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words])
    return done.exit_code, done.output


def test_the_commands_write_try_and_refuse(tmp_path: Path) -> None:
    path, written = tmp_path / "a.jsonl", tmp_path / "a.yaml"
    bad = {**payments(1)[0], "payment_id": "\x1b[31mred", "amount": "much"}
    path.write_text("".join(json.dumps(each) + "\n" for each in [*payments(), bad]), encoding="utf-8")
    home = ("--home", str(tmp_path / "home"))
    code, output = run("contract", "infer", "--file", str(path), "--to", str(written), *home)
    assert code == 0
    assert "60 of 61 records (98.4%)" in output
    code, output = run("contract", "check", str(written), "--file", str(path), *home)
    assert code == 1
    assert "missing_field" in output
    assert "\x1b" not in output
    assert f"{path.name}:61" in output
    code, output = run(
        "contract", "check", str(written), "--file", str(path), "--max-rejected", "0.05", "--json", *home
    )
    assert code == 0
    assert json.loads(output)["rejected"] == {"missing_field": 1}


def test_what_cannot_be_drafted_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no field reads as an event time, among: a"):
        drafted(tmp_path / "a.jsonl", [{"a": "x"}])
    with pytest.raises(ConfigurationError, match="no JSON objects"):
        drafted(tmp_path / "a.jsonl", [1])


class OneMessage:
    """What a consumer gives of a record."""

    def __init__(self, offset: int, value: bytes | None, stamp: int = 1_606_780_800_000) -> None:
        self._offset, self._value, self._stamp = offset, value, stamp

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return None

    def headers(self) -> list[tuple[str, bytes]]:
        return [("h", b"x")]

    def topic(self) -> str:
        return "payments"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._stamp


@pytest.mark.parametrize("frame", [b"", b"\0\0\0\0\7"])
def test_a_topic_is_drafted_from_with_or_without_the_frame_of_a_registry(frame: bytes) -> None:
    texts = [json.dumps(each).replace("2026-11", "2020-11") for each in payments()]
    values: list[bytes | None] = [frame + text.encode() for text in texts]
    messages: list[Any] = [OneMessage(row, value) for row, value in enumerate([*values, frame + b"{", None])]
    sample = TopicSample("payments", messages)
    draft = draft_of(sample)
    assert ("format" in of(draft)) == bool(frame)
    assert (draft.records, draft.accepted) == (62, 60)
    found = check_sample(sample, parse_document(draft.document(), EventContract, where="draft"))
    assert found.rejected == {"malformed_json": 1, "null_value": 1}
    assert found.examples["null_value"][0].place == "payments/3/61"


def test_a_file_may_be_named_as_it_is(tmp_path: Path) -> None:
    path, written = tmp_path / "a.jsonl", tmp_path / "a.yaml"
    path.write_text("".join(json.dumps(each) + "\n" for each in payments()), encoding="utf-8")
    home = ("--home", str(tmp_path / "home"))
    assert run("contract", "infer", str(path), "--to", str(written), *home)[0] == 0
    assert run("contract", "check", str(written), str(path), *home)[0] == 0
    for sample, said in (
        ([str(path), "--file", str(path)], "given twice"),
        ([], "expected a file or --topic"),
    ):
        fault = CliRunner().invoke(app, ["contract", "infer", *sample, *home]).exception
        assert isinstance(fault, ConfigurationError)
        assert said in str(fault)


@pytest.mark.parametrize(
    ("values", "drafted_as"),
    [
        (["PAYMENT", "REFUND", "CHARGEBACK"], {"field": "txType", "refund": ["CHARGEBACK", "REFUND"]}),
        (["sale", "partial_refund"], {"field": "txType", "refund": ["partial_refund"]}),
        (["sale", "cash"], None),
        (["REFUND"], None),
    ],
)
def test_a_word_for_refunds_drafts_their_direction(
    tmp_path: Path, values: list[str], drafted_as: dict[str, Any] | None
) -> None:
    events = [{**event, "txType": values[row % len(values)]} for row, event in enumerate(payments())]
    draft = drafted(tmp_path / "a.jsonl", events)
    assert of(draft).get("direction") == drafted_as
    assert draft.accepted == draft.records


@pytest.mark.parametrize("yes", [True, "yes", "Y"])
def test_a_flag_of_refunds_drafts_their_direction(tmp_path: Path, yes: bool | str) -> None:
    no: bool | str = False if yes is True else "no"
    events = [{**event, "isRefund": yes if row % 9 == 0 else no} for row, event in enumerate(payments())]
    draft = drafted(tmp_path / "a.jsonl", events)
    written = tmp_path / "drafted.yaml"
    written.write_text(draft.text(), encoding="utf-8")
    contract = load_contract(str(written))
    assert contract.direction is not None
    assert contract.direction.refund == ("true" if yes is True else yes,)
    rows = FileSample(tmp_path / "a.jsonl", 1_000).tried(contract).decoded.valid
    assert rows["direction"].to_pylist().count("refund") == 7


@pytest.mark.parametrize(
    ("event", "minor"),
    [
        (lambda row: {"amount": None, "amount_cents": row, "currency": "EUR"}, True),
        (lambda row: {"amount": row, "currency": "eur"}, True),
        (lambda row: {"amount": (row % 9) * 1_000 + (99, 95, 50, 17)[row % 4], "currency": "EUR"}, True),
        (lambda row: {"amount": row * 10, "currency": "EUR"}, False),
        (lambda row: {"amount": row + 0.5, "currency": "eur"}, False),
        (lambda row: {"amount": row, "currency": "UK Pound"}, False),
    ],
)
def test_amounts_that_count_cents_are_drafted_so(
    tmp_path: Path, event: Callable[[int], dict[str, Any]], minor: bool
) -> None:
    draft = drafted(tmp_path / "a.jsonl", [{**each, **event(row)} for row, each in enumerate(payments())])
    guess = next(each for each in draft.guesses if each.key == "amount")
    assert guess.value["unit"] == "minor" if minor else "unit" not in guess.value
    assert guess.share == 1.0
    assert draft.accepted == draft.records


def test_ids_and_entities_that_only_several_fields_make_are_drafted_so(tmp_path: Path) -> None:
    events = [
        {
            "bank": f"B{row % 3}",
            "account": f"A{row % 5}",
            "terminal_id": f"T{row % 4}",
            "receipt_no": row // 4,
            "created": 1_764_331_200 + row,
            "amount": row + 0.5,
            "ccy": "EUR",
        }
        for row in range(240)
    ]
    draft = drafted(tmp_path / "a.jsonl", events)
    found = of(draft)
    assert found["transaction_id"] == {"fields": ["terminal_id", "receipt_no"]}
    assert found["entities.account"] == {"fields": ["bank", "account"]}
    assert found["entities.terminal_id"] == {"field": "terminal_id"}
    assert draft.accepted == 240
    checked = check_sample(
        FileSample(tmp_path / "a.jsonl", 1_000),
        parse_document(draft.document(), EventContract, where="draft"),
    )
    assert checked.repeated == 0


def test_an_account_that_belongs_to_one_bank_goes_by_its_own_number(tmp_path: Path) -> None:
    events = [
        {**event, "bank": f"B{row % 7}", "account": f"A{row % 7}"} for row, event in enumerate(payments())
    ]
    assert of(drafted(tmp_path / "a.jsonl", events))["entities.account"] == {"field": "account"}


@pytest.mark.parametrize(("zone", "twice"), [("Europe/Berlin", 60), ("UTC", 0)])
def test_payments_of_an_hour_that_clocks_show_twice_are_counted(
    tmp_path: Path, zone: str, twice: int
) -> None:
    lines = ["id,at,amount,card"]
    lines += [f"{row},25.10.2026 {row // 60:02}:{row % 60:02},5,c{row % 7}" for row in range(300)]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    contract = {
        "name": "own",
        "transaction_id": {"field": "id"},
        "event_time": {"field": "at", "format": "%d.%m.%Y %H:%M", "zone": zone},
        "amount": {"field": "amount"},
        "currency": {"constant": "EUR"},
        "entities": {"card": {"field": "card"}},
    }
    (tmp_path / "contract.yaml").write_text(json.dumps(contract), encoding="utf-8")
    under = load_contract(str(tmp_path / "contract.yaml"))
    checked = check_sample(FileSample(tmp_path / "a.csv", 1_000), under)
    assert (checked.accepted, checked.shown_twice) == (300, twice)
    named = (str(tmp_path / "contract.yaml"), "--file", str(tmp_path / "a.csv"))
    code, said = run("contract", "check", *named, "--home", str(tmp_path / "home"))
    assert code == 0
    assert ("60 payments of an hour that clocks show twice" in said) is bool(twice)


def test_a_time_ahead_of_now_is_rejected_by_check_as_a_run_rejects_it(tmp_path: Path) -> None:
    now, path = datetime(2026, 5, 1, 12, tzinfo=UTC), tmp_path / "a.jsonl"
    contract = load_contract("simulator")
    ahead = [contract.event_time.max_ahead + timedelta(seconds=each) for each in (-600, 0, 1, 9_000)]
    path.write_text(
        "".join(
            json.dumps({**row, "event_time": (now + by).isoformat()}) + "\n"
            for row, by in zip(events(4), ahead, strict=True)
        )
    )
    found = check_sample(FileSample(path, 10, clock=lambda: now), contract)
    assert (found.accepted, found.rejected) == (2, {"time_ahead_of_broker": 2})
    assert [each.place for each in found.examples["time_ahead_of_broker"]] == [f"{path}:3", f"{path}:4"]


def test_the_command_guards_a_pipeline_against_times_that_a_backfill_rejects(tmp_path: Path) -> None:
    path, soon = tmp_path / "a.jsonl", datetime.now(UTC) + timedelta(hours=2)
    path.write_text(json.dumps({**events(1)[0], "event_time": soon.isoformat()}) + "\n")
    done = CliRunner().invoke(app, ["contract", "check", "simulator", str(path), "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert "time_ahead_of_broker" in done.output


@pytest.mark.parametrize(("yes", "no"), [("ja", "nein"), ("oui", "non"), ("sí", "no"), ("sim", "não")])
def test_a_label_known_by_its_name_may_say_yes_and_no_in_another_language(
    tmp_path: Path, yes: str, no: str
) -> None:
    events = [{**event, "isFraud": yes if row % 9 == 0 else no} for row, event in enumerate(payments())]
    assert of(drafted(tmp_path / "a.jsonl", events))["label"] == {"field": "isFraud"}


def test_a_contract_and_a_sample_in_the_wrong_order_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, contract = tmp_path / "my payments.jsonl", tmp_path / "contract.yaml"
    contract.write_text(drafted(events, payments()).text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for words, right in (
        ([str(events), str(contract)], f"{contract} '{events}'"),
        ([events.name], f"CONTRACT '{events.name}'"),
    ):
        done = CliRunner().invoke(app, ["contract", "check", *words, "--home", str(tmp_path)])
        assert isinstance(done.exception, ConfigurationError)
        said = f"contract check: the contract comes first: flagstream contract check {right}"
        assert str(done.exception) == said


@pytest.mark.parametrize(
    "umask", [0o027, *(pytest.param(each, marks=pytest.mark.long) for each in (0o022, 0o077))]
)
def test_a_draft_has_the_rights_that_its_user_gives_new_files(tmp_path: Path, umask: int) -> None:
    """Its process keeps what an agent writes to its user; a draft is for colleagues, and holds no secret."""
    sample = tmp_path / "sample.jsonl"
    drafted(sample, payments())
    made = tmp_path / "contract.yaml"
    folder = tmp_path / "agent"
    commands = (
        ["contract", "infer", sample, "--to", made],
        ["init", "shop", "--file", sample, "--to", folder],
    )
    program = f"import os; os.umask({umask}); from streaming.cli.root import main; main()"
    for command in commands:
        words = [sys.executable, "-c", program, *map(str, command), "--home", str(tmp_path / "home")]
        assert subprocess.run(words, check=False, capture_output=True).returncode == 0
    assert {stat.S_IMODE(each.stat().st_mode) for each in (made, *folder.iterdir())} == {0o666 & ~umask}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
