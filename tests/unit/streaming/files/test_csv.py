"""CSV of any delimiter, quote, decimal sign, encoding and compression holds the same events."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.drafting.sample import FileSample
from streaming.files.dialect import FOUND, TextOptions, dialect_of
from streaming.files.event_files import EventFile, open_events
from streaming.files.headers import Header
from streaming.files.opening import open_bytes
from streaming.files.raw_rows import raw_rows

CONTRACT = parse_document(
    {
        "name": "own",
        "transaction_id": {"field": "id"},
        "event_time": {"field": "ts"},
        "amount": {"field": "amount"},
        "currency": {"constant": "EUR"},
        "entities": {"card": {"field": "card"}},
        "extra": {"count": {"field": "n", "type": "integer"}, "memo": {"field": "memo"}},
    },
    EventContract,
    where="test",
)
WESTERN = "abcdefgh ijk,;|\t\"'\n0123456789äöüßéèàçñ€"
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts = st.text(WESTERN, max_size=12)
rows_of_text = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("abc;'\"123", min_size=1, max_size=6).map(lambda text: f"t{text}"),
            "amount": st.decimals(0, 10**9, places=2),
            "n": st.none() | st.integers(-(2**40), 2**40),
            "memo": texts,
        }
    ),
    min_size=1,
    max_size=8,
)


def events(file: EventFile) -> list[dict[str, Any]]:
    return [orjson.loads(value) for chunk in file.chunks() for value in chunk.values]


def of(path: Path, content: bytes | str, options: TextOptions = FOUND) -> list[dict[str, Any]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return events(open_events(path, CONTRACT, options=options))


def compressed(content: bytes, how: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, how) if how else sink as stream:
        stream.write(content)
    return bytes(sink.getvalue())


@FEW
@given(
    rows=rows_of_text,
    delimiter=st.sampled_from(",;\t|^"),
    decimal=st.sampled_from(".,"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
    how=st.sampled_from([None, "gzip", "zstd", "bz2"]),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_what_was_written_is_read_however_it_was_written(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    delimiter: str,
    decimal: str,
    encoding: str,
    how: str | None,
    ends: str,
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=ends)
    writer.writerow(["ts", "amount", "memo", "id", "card", "n", "spare"])
    for row in rows:
        amount = str(row["amount"]).replace(".", decimal)
        writer.writerow(["2026-11-28T12:00:00Z", amount, row["memo"], row["id"], "a", row["n"], "x"])
        out.write(ends * 2)
    path = tmp_path / f"own.csv{'.gz' if how else ''}"
    found = of(path, compressed(out.getvalue().encode(encoding), how))
    told = [
        {"id": row["id"], "amount": float(row["amount"]), "n": row["n"], "memo": row["memo"] or None}
        for row in rows
    ]
    assert [{name: event[name] for name in ("id", "amount", "n", "memo")} for event in found] == told


def test_german_and_french_exports_are_understood_and_said(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    text = "id;ts;amount;card;n;memo\n1;2026-11-28T12:00:00Z;5,50;a;7;Müller\n"
    text += "2;2026-11-28T12:00:01Z;1.234,56;b;;Crédit\n"
    path.write_bytes(text.encode("cp1252"))
    file = open_events(path, CONTRACT)
    assert [(each["amount"], each["memo"]) for each in events(file)] == [(5.5, "Müller"), (1234.56, "Crédit")]
    assert file.said == (f"{path}: read as cp1252, delimiter ';', decimal comma",)


@pytest.mark.parametrize(
    ("amount", "number"),
    [
        ("1,234.50", 1234.5),
        ("+7", 7),
        (".5", 0.5),
        ("5.", 5),
        ("007", 7),
        ("1e3", 1000),
        (" 4 ", 4),
        ("NULL", None),
    ],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, amount: str, number: float | None) -> None:
    sure = 'x,2026-11-28T12:00:00Z,"1.25",a,,\n'
    found = of(tmp_path / "a.csv", f'id,ts,amount,card,n,memo\n{sure}y,2026-11-28T12:00:00Z,"{amount}",a,,\n')
    assert found[1]["amount"] == number


def test_a_number_that_could_mean_two_things_is_refused_until_its_sign_is_named(tmp_path: Path) -> None:
    text = "id;ts;amount;card;n;memo\n1;2026-11-28T12:00:00Z;1,234;a;7;\n"
    with pytest.raises(ConfigurationError, match=r"1,234 could be a fraction or thousands: .*--decimal"):
        of(tmp_path / "a.csv", text)
    assert of(tmp_path / "a.csv", text, TextOptions(decimal=","))[0]["amount"] == 1.234
    assert of(tmp_path / "a.csv", text, TextOptions(decimal="."))[0]["amount"] == 1234


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("3,2026-11-28T12:00:00Z,dear,a,,", r"a\.csv:7: column 'amount' is 'dear'; expected a number"),
        ("3,2026-11-28T12:00:00Z,5,a,1.5,", r"a\.csv:7: column 'n' is '1\.5'; expected a whole number"),
        ("3,2026-11-28T12:00:00Z,5,a", r"a\.csv:7: 4 cells where the heading has 6"),
    ],
)
def test_what_cannot_be_read_is_named_by_line_and_column(tmp_path: Path, row: str, problem: str) -> None:
    good = '1,2026-11-28T12:00:00Z,5,a,1,"two\nlines"\n\n   \n2,2026-11-28T12:00:00Z,5,a,1,\n'
    with pytest.raises(ConfigurationError, match=problem):
        of(tmp_path / "a.csv", f"id,ts,amount,card,n,memo\n{good}{row}\n")


def test_broken_characters_are_named_by_line_and_column(tmp_path: Path) -> None:
    good = "1,2026-11-28T12:00:00Z,5,a,1,Müller\n".encode()
    with pytest.raises(ConfigurationError, match=r"a\.csv:3: column 'memo' holds broken characters"):
        of(tmp_path / "a.csv", b"id,ts,amount,card,n,memo\n" + good + good.replace(b"M\xc3", b"M"))


def test_a_spreadsheet_s_first_line_names_the_delimiter(tmp_path: Path) -> None:
    text = "\ufeffsep=;\r\nid;ts;amount;card;n;memo\r\n1;2026-11-28T12:00:00Z;5;a;7;x\r\n"
    assert of(tmp_path / "a.csv", text)[0]["memo"] == "x"
    with pytest.raises(ConfigurationError, match=r"a\.csv:3: column 'n'"):
        of(tmp_path / "a.csv", text.replace(";7;", ";?;"))


@pytest.mark.parametrize(
    ("written", "memo"),
    [("'it, is'", "it, is"), ('"so \\"it\\" is, it"', 'so "it" is, it'), ('"a ""b"", c"', 'a "b", c')],
)
def test_quotes_of_every_kind(tmp_path: Path, written: str, memo: str) -> None:
    text = (
        f"id,ts,amount,card,n,memo\n1,2026-11-28T12:00:00Z,5,a,7,{written}\n2,2026-11-28T12:00:00Z,5,a,7,b\n"
    )
    assert of(tmp_path / "a.csv", text)[0]["memo"] == memo


def test_repeated_headings_go_by_number_or_are_refused_by_naming_both(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("id,ts,amount,Account,Account\n1,2026-11-28T12:00:00Z,5,a,b\n", encoding="utf-8")
    form = {**CONTRACT.model_dump(mode="json", exclude_defaults=True), "extra": {}, "name": "own"}
    both = {"payer": {"field": "Account#1"}, "payee": {"field": "Account#2"}}
    under = parse_document({**form, "entities": both}, EventContract, where="test")
    (event,) = events(open_events(path, under))
    assert (event["Account#1"], event["Account#2"]) == ("a", "b")
    once = parse_document({**form, "entities": {"payer": {"field": "Account"}}}, EventContract, where="test")
    named = r"2 columns are called 'Account': name 'Account#1' \(column 4\) or 'Account#2' \(column 5\)"
    with pytest.raises(ConfigurationError, match=named):
        open_events(path, once)


@pytest.mark.parametrize("last", ["", "3,2026-11-28T12:00:00Z,5,a,1,c\n"])
def test_a_quote_that_is_never_closed_is_named_by_its_line(tmp_path: Path, last: str) -> None:
    head = 'sep=,\nid,ts,amount,card,n,memo\n1,2026-11-28T12:00:00Z,5,a,1,5" pipe\n'
    text = f'{head}2,2026-11-28T12:00:00Z,5,a,1,"two\nlines"\n4,2026-11-28T12:00:00Z,5,a,1,"open\n{last}'
    with pytest.raises(ConfigurationError, match=r"a\.csv:6: a quote is opened in this row and never closed"):
        of(tmp_path / "a.csv", text)
    assert len(of(tmp_path / "a.csv", text.replace('"open', "open"))) == 3 + bool(last)


def test_a_heading_that_reads_like_the_number_of_another_is_no_other(tmp_path: Path) -> None:
    header = Header.of(["Account", "Account", "Account#1", "id"])
    assert header.unique == ("Account#1#1", "Account#2", "Account#1#2", "id")
    named = r"2 columns are called 'Account#1': name 'Account#1#1' \(column 1\) or 'Account#1#2' \(column 3\)"
    with pytest.raises(ConfigurationError, match=named):
        header.check(["Account#1"], "a.csv")
    path = tmp_path / "a.csv"
    path.write_text("Account,Account,Account#1,id\n1,2,3,4\n", encoding="utf-8")
    assert list(raw_rows(path, FOUND)) == [{"Account#1#1": 1, "Account#2": 2, "Account#1#2": 3, "id": 4}]


def test_a_row_below_a_cell_of_any_length_is_named_by_its_line(tmp_path: Path) -> None:
    good = f'1,2026-11-28T12:00:00Z,5,a,1,"{"x" * 300_000}"\n'
    with pytest.raises(ConfigurationError, match=r"a\.csv:3: column 'amount' is 'dear'"):
        of(tmp_path / "a.csv", f"id,ts,amount,card,n,memo\n{good}2,2026-11-28T12:00:00Z,dear,a,1,\n")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Müller zahlt für Öl, Grüße"),
        ("cp1252", "café à la crème déjà vu"),
        ("cp1252", "5 € für Crédit \u2013 “so”"),
        ("cp1250", "Zażółć gęślą jaźń, przelew środków do Łodzi"),
        ("cp1251", "Перевод средств, оплата заказа"),
        ("cp932", "東京の支払い、カード決済"),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"id;memo\n1;x\n2;{text}\n".encode(encoding))
    assert dialect_of(path, FOUND).encoding.codec == encoding


def test_torn_compression_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    whole = compressed(
        "".join(["id,ts,amount,card,n,memo\n", *(f"{row},,,,,\n" for row in range(9999))]).encode(), "gzip"
    )
    path.write_bytes(whole[:-100])
    with pytest.raises(ConfigurationError, match=r"a\.csv\.gz: cannot be read: Truncated"):
        events(open_events(path, CONTRACT))


def test_concatenated_members_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(compressed(b"one\n", "gzip") + compressed(b"two\n", "gzip"))
    with open_bytes(path) as file:
        assert file.read() == b"one\ntwo\n"


def test_options_that_cannot_be_are_refused() -> None:
    for name in ("utf-9", "undefined", "base64"):
        with pytest.raises(ConfigurationError, match=f"--encoding: no encoding '{name}'"):
            TextOptions(encoding=name)
    with pytest.raises(ConfigurationError, match="--delimiter: expected one character"):
        TextOptions(delimiter=";;")
    assert json.dumps(TextOptions(delimiter="tab").character) == '"\\t"'


def test_what_a_condition_compares_is_read_as_its_type_and_what_it_leaves_out_may_hold_anything(
    tmp_path: Path,
) -> None:
    form = {**CONTRACT.model_dump(mode="json", exclude_defaults=True), "extra": {}}
    wanted = "kind = 'PAYMENT' and fee < 2.5 and live = true and amount > 0"
    under = parse_document({**form, "where": wanted}, EventContract, where="test")
    path = tmp_path / "a.csv"
    rows = ["1,2026-11-28T12:00:00Z,5,a,PAYMENT,2,true", "2,-,-,b,REFUND,x,", "3,-,-,b,PAYMENT,7,true"]
    path.write_text("\n".join(["id,ts,amount,card,kind,fee,live", *rows]), encoding="utf-8")
    found = FileSample(path, 10).tried(under).decoded
    assert found.valid["transaction_id"].to_pylist() == ["1"]
    assert found.filtered["offset"].to_pylist() == [1, 2]
    assert found.rejected.num_rows == 0


def test_binary_data_is_refused_before_anything_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "not.csv"
    path.write_bytes(random.Random(5).randbytes(5_000))
    for options in (FOUND, TextOptions(encoding="ascii"), TextOptions(encoding="utf-16")):
        with pytest.raises(
            ConfigurationError, match=r"is no text in .+ near byte [\d,]+: it holds binary data"
        ):
            dialect_of(path, options)
    late = tmp_path / "late.csv"
    late.write_bytes("id,ts,amount,card\nä,1,2,3\n".encode("cp1252") * 200_000 + b"\x81\x8d\n")
    with pytest.raises(ConfigurationError, match=r"is no text in cp1252 near byte 5,\d\d\d,\d\d\d"):
        dialect_of(late, FOUND)
