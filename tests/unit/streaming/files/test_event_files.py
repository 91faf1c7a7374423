from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.events.decode import decode
from streaming.events.record_table import record_table
from streaming.files.dialect import TextOptions
from streaming.files.event_files import open_events

NOW = datetime(2025, 3, 1, 15, 45, tzinfo=UTC)
HANDBOOK = load_contract("handbook")
COLUMNS: dict[str, list[Any]] = {
    "TRANSACTION_ID": [1, 2],
    "TX_DATETIME": [datetime(2018, 4, 1, 0, 0, 31), datetime(2018, 4, 1, 0, 2, 10, 5)],
    "CUSTOMER_ID": [596, 4961],
    "TERMINAL_ID": [3156, 3412],
    "TX_AMOUNT": [57.16, 81.0],
    "TX_FRAUD": [0, 1],
}


def contract(**changes: object) -> EventContract:
    fields = {
        "name": "own",
        "transaction_id": {"field": "id"},
        "event_time": {"field": "at"},
        "amount": {"field": "money.amount"},
        "currency": {"field": "money.currency"},
        "entities": {"payer": {"field": "payer"}, "shop": {"field": "shop"}},
        "primary": "shop",
        "extra": {"note": {"field": "note"}},
    }
    return parse_document({**fields, **changes}, EventContract, where="test")


def events_of(path: Path, under: EventContract) -> tuple[list[bytes | None], list[dict[str, Any]]]:
    keys: list[bytes | None] = []
    values: list[bytes] = []
    for some_keys, some_values in open_events(path, under).keyed():
        keys += some_keys
        values += some_values
    return keys, [orjson.loads(value) for value in values]


@pytest.mark.parametrize("ending", ["parquet", "csv", "delta"])
def test_tables_become_events_of_exactly_the_contract(tmp_path: Path, ending: str) -> None:
    path, table = tmp_path / f"tx.{ending}", pa.table(COLUMNS)
    if ending == "delta":
        write_deltalake(path, table)
    elif ending == "parquet":
        pq.write_table(table, path)
    else:
        pa_csv.write_csv(table, path)
    keys, events = events_of(path, HANDBOOK)
    assert keys == [b"596", b"4961"]
    assert [set(event) for event in events] == [set(HANDBOOK.raw_fields)] * 2
    assert events[1]["TRANSACTION_ID"] == 2
    assert [datetime.fromisoformat(event["TX_DATETIME"]) for event in events] == COLUMNS["TX_DATETIME"]
    assert isinstance(events[1]["CUSTOMER_ID"], int)
    assert [event["TX_AMOUNT"] for event in events] == [57.16, 81.0]


def test_json_lines_become_events_of_exactly_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "tx.jsonl"
    money = {"amount": 3, "currency": "EUR", "fee": 1}
    full = {"id": "a", "at": "2025-01-01", "money": money, "payer": "p", "shop": "s", "note": "ü"}
    bare = {name: full[name] for name in ("shop", "id", "at", "money", "payer")}
    path.write_bytes(b"\n".join([orjson.dumps({**full, "label": 1}), b"", orjson.dumps(bare)]))
    keys, events = events_of(path, contract())
    assert keys == [b"s", b"s"]
    money.pop("fee")
    assert events == [full, bare]


def test_dotted_fields_come_from_structs_and_from_plain_columns(tmp_path: Path) -> None:
    rest = {"id": ["a"], "at": ["2025-01-01"], "payer": ["p"], "shop": ["s"], "note": [None]}
    nested, plain = tmp_path / "nested.parquet", tmp_path / "plain.csv"
    pq.write_table(pa.table({**rest, "money": [{"amount": Decimal("3.50"), "currency": "EUR"}]}), nested)
    pa_csv.write_csv(pa.table({**rest, "money.amount": [3.5], "money.currency": ["EUR"]}), plain)
    for path in (nested, plain):
        keys, (event,) = events_of(path, contract())
        assert keys == [b"s"]
        assert event["money"] == {"amount": 3.5, "currency": "EUR"}
        assert event["note"] is None


def test_times_take_the_contract_s_format(tmp_path: Path) -> None:
    path = tmp_path / "tx.parquet"
    pq.write_table(pa.table(COLUMNS), path)
    pattern = HANDBOOK.event_time.model_copy(update={"format": "%d.%m.%Y %H:%M:%S.%f"})
    _, events = events_of(path, HANDBOOK.model_copy(update={"event_time": pattern}))
    assert events[1]["TX_DATETIME"] == "01.04.2018 00:02:10.000005"
    epoch = HANDBOOK.event_time.model_copy(update={"format": "epoch"})
    with pytest.raises(ConfigurationError, match="wants numbers"):
        events_of(path, HANDBOOK.model_copy(update={"event_time": epoch}))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Europe/Berlin"])
@pytest.mark.parametrize("form", ["iso8601", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S%z"])
def test_a_moment_stays_what_it_is_however_the_contract_writes_times(
    tmp_path: Path, zone: str, form: str
) -> None:
    moments = [datetime(2024, 1, 1, 23, 30, tzinfo=UTC), datetime(2024, 7, 1, 23, 30, tzinfo=UTC)]
    times = pa.array(moments, pa.timestamp("us", zone))
    texts = {name: ["x", "y"] for name in ("id", "money.currency", "payer", "shop", "note")}
    path = tmp_path / "moments.parquet"
    pq.write_table(pa.table({**texts, "at": times, "money.amount": [1.0, 2.0]}), path)
    under = contract(event_time={"field": "at", "format": form, "zone": "Europe/Berlin"})
    ((_, values),) = open_events(path, under).keyed()
    decoded = decode(record_table([None] * 2, values, topic="t", first=0, sent_at=NOW), under, NOW)
    assert decoded.valid["event_time"].to_pylist() == moments


@pytest.mark.parametrize(("text", "number"), [("1735689600123456789", 1735689600123456789), ("1.5", 1.5)])
def test_epoch_times_in_csv_become_numbers(tmp_path: Path, text: str, number: float) -> None:
    path = tmp_path / "tx.csv"
    path.write_text(f"tx_id,sourceNodeId,targetNodeId,value,time\n1,2,3,4.5,{text}\n", encoding="utf-8")
    _, (event,) = events_of(path, load_contract("amlsim"))
    assert event["time"] == number


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    table = pa.table(COLUMNS).rename_columns({"TX_AMOUNT": "TX_AMOUT"})
    pq.write_table(table, tmp_path / "tx.parquet")
    pa_csv.write_csv(table, tmp_path / "tx.csv")
    line = orjson.dumps({"TX_AMOUT": 1, **dict.fromkeys(COLUMNS.keys() - {"TX_AMOUNT"}, 1)})
    (tmp_path / "tx.jsonl").write_bytes(line)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ConfigurationError, match=r"'TX_AMOUNT'; did you mean 'TX_AMOUT'\?"):
            list(open_events(path, HANDBOOK).keyed())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tx.xlsx", b""),
        ("tx.parquet", b"not parquet"),
        ("tx.csv", b""),
        ("tx.csv", b"TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT\n1,2018-04-01,1,1,dear\n"),
        ("tx.jsonl", b"{"),
        ("tx.jsonl", b"[1]"),
    ],
)
def test_unreadable_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=name):
        list(open_events(path, HANDBOOK).keyed())


def test_parquet_with_two_columns_of_a_name_is_refused_where_the_contract_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "twice.parquet"
    table = pa.table(COLUMNS)
    for name in ("CUSTOMER_ID", "TX_FRAUD"):
        columns = [*table.columns, table[name]]
        pq.write_table(pa.Table.from_arrays(columns, names=[*table.schema.names, name]), path)
        if name == "TX_FRAUD":
            assert sum(len(keys) for keys, _ in open_events(path, HANDBOOK).keyed()) == 2
        else:
            with pytest.raises(ConfigurationError, match="2 columns are called 'CUSTOMER_ID': rename them"):
                open_events(path, HANDBOOK)


def test_a_key_is_the_id_whatever_type_a_column_of_ids_has(tmp_path: Path) -> None:
    path = tmp_path / "floats.parquet"
    pq.write_table(pa.table({**COLUMNS, "CUSTOMER_ID": [123456789012.0, 4000000000000001.0]}), path)
    ((keys, values),) = open_events(path, HANDBOOK).keyed()
    assert keys == [str(orjson.loads(each)["CUSTOMER_ID"]).encode() for each in values]
    assert keys == [b"123456789012", b"4000000000000001"]


def test_parquet_in_gzip_is_refused_with_what_to_do(tmp_path: Path) -> None:
    pq.write_table(pa.table(COLUMNS), tmp_path / "tx.parquet")
    path = tmp_path / "tx.parquet.gz"
    path.write_bytes(gzip.compress((tmp_path / "tx.parquet").read_bytes()))
    with pytest.raises(ConfigurationError, match=r"tx\.parquet\.gz: Parquet that is packed .* unpack it"):
        open_events(path, HANDBOOK)


def test_an_absent_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        open_events(Path("absent.csv"), HANDBOOK).keyed()


def test_integers_of_any_length_pass_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    money = {"amount": 1, "currency": "EUR"}
    event = {
        "id": 2**70,
        "at": "2025-01-01",
        "money": money,
        "payer": 10**30,
        "shop": "s",
        "note": None,
        "x": 1,
    }
    path.write_text(json.dumps(event), encoding="utf-8-sig")
    ((keys, (value,)),) = open_events(path, contract()).keyed()
    assert keys == [b"s"]
    assert json.loads(value)["id"] == 2**70
    assert json.loads(value)["payer"] == 10**30


SPOILT = [
    *(b'"x\\ud83d"', b'"x\xff"', b'"a\tb"', b'"\\q"', b"NaN", b"1e999", b"01", b"9" * 5_000, b"undefined"),
    *(b"[" * depth + b"]" * depth for depth in (1_010, 20_000)),
]


@pytest.mark.parametrize("wrong", SPOILT, ids=range(len(SPOILT)))
@pytest.mark.parametrize("name", [b"note", b"nobody reads it"])
@pytest.mark.parametrize("number", [b"1", b"1234567890123456789"])
def test_what_is_wrong_with_a_value_costs_its_field_in_a_file_as_on_a_topic(
    tmp_path: Path, wrong: bytes, name: bytes, number: bytes
) -> None:
    money = b'"money":{"amount":5,"currency":"EUR"}'
    line = b'{"id":"a","at":"2025-01-01T00:00:00Z",%s,"payer":"p","shop":"s","n":%s,"%s":%s}'
    path = tmp_path / "spoilt.jsonl"
    path.write_bytes(line % (money, number, name, wrong))
    ((_, (value,)),) = open_events(path, contract()).keyed()
    tables = (
        record_table([None], [each], topic="t", first=0, sent_at=NOW) for each in (value, path.read_bytes())
    )
    in_file, on_topic = (decode(each, contract(), NOW).valid.to_pylist() for each in tables)
    assert in_file == on_topic
    assert [row["payer"] for row in in_file] == ["p"]


def test_a_missing_field_of_a_record_without_a_bottom_is_named(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_bytes(b'{"a":' * 1_010 + b"1" + b"}" * 1_010)
    with pytest.raises(ConfigurationError, match=r"deep\.jsonl:1: no field 'id'"):
        list(open_events(path, contract()).keyed())


def test_options_of_text_that_change_nothing_are_said_to(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}")
    write_deltalake(tmp_path / "table", pa.table(COLUMNS))
    for each, under in ((path, contract()), (tmp_path / "table", HANDBOOK)):
        (said,) = open_events(each, under, options=TextOptions(delimiter=";")).said
        assert said == f"{each}: is no CSV, so --encoding, --delimiter and --decimal change nothing"
        assert open_events(each, under).said == ()


def test_a_column_no_event_can_hold_is_named(tmp_path: Path) -> None:
    path = tmp_path / "binary.parquet"
    pq.write_table(pa.table({**COLUMNS, "TERMINAL_ID": [b"a", b"b"]}), path)
    with pytest.raises(ConfigurationError, match="'TERMINAL_ID' holds binary") as fault:
        list(open_events(path, HANDBOOK).keyed())
    assert fault.value.where == str(path)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_renamed_field_is_read_under_either_name(tmp_path: Path, ending: str) -> None:
    renamed = contract(aliases={"shop": ["store"], "money.amount": ["sum"]})
    row = {"id": "a", "at": "2025-01-01", "money.currency": "EUR", "payer": "p", "note": None}
    path = tmp_path / f"old.{ending}"
    table = pa.table({name: [value] for name, value in {**row, "store": "s", "sum": 2.5}.items()})
    if ending == "csv":
        pa_csv.write_csv(table, path)
    elif ending == "parquet":
        pq.write_table(table, path)
    else:
        path.write_bytes(orjson.dumps(table.to_pylist()[0]))
    keys, (event,) = events_of(path, renamed)
    assert keys == [b"s"]
    assert (event["store"], event["sum"], event.get("shop")) == ("s", 2.5, None)
    without = parse_document(
        {**renamed.model_dump(mode="json", exclude_defaults=True), "aliases": {}}, EventContract, where="test"
    )
    with pytest.raises(ConfigurationError, match=r"no (column|field) 'money.amount'"):
        events_of(path, without)


def test_a_field_below_what_is_no_object_says_so(tmp_path: Path) -> None:
    path = tmp_path / "flat.jsonl"
    event = {"id": "a", "at": "2025-01-01", "money": None, "payer": "p", "shop": "s"}
    path.write_text(json.dumps(event), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="lies in something that is no object"):
        list(open_events(path, contract()).keyed())


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hidden@bucket/table",
        "s3://AKIA:hid/den@bucket/table",
        "az://container/table?sv=2022&sig=hidden",
        "https://account.blob.core.windows.net/container/table?sv=2022&sig=hidden",
    ],
)
def test_a_login_in_a_uri_is_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"bucket|container") as refused:
        open_events(Path(uri), load_contract("simulator"))
    assert "hid" not in str(refused.value)
