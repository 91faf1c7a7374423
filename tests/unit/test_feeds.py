from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError, RetryableError
from schemas.loading import parse_document
from streaming.feeds import (
    Pace,
    Sender,
    event_time_bounds,
    file_events,
    produce_records,
    simulate_to_file,
    simulate_to_topic,
)

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


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


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
    for some_keys, some_values in file_events(path, under):
        keys += some_keys
        values += some_values
    return keys, [orjson.loads(value) for value in values]


def test_pace_is_open_loop() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    assert pace.due(0) == 1
    assert pace.due(1) == 0
    assert pace.wait_s(1) == pytest.approx(0.1)
    clock.now += 5
    assert pace.due(1) == 50
    assert Pace().due(10**9) > 10**9


@given(st.floats(0.5, 1e5), st.lists(st.floats(0, 2), max_size=50))
def test_pace_neither_drifts_nor_skips(rate: float, waits: list[float]) -> None:
    clock = Clock()
    pace, sent = Pace(rate, clock), 0
    for wait in waits:
        clock.now += wait
        sent += pace.due(sent)
        assert abs(sent - ((clock.now - 100.0) * rate + 1)) <= 1


@pytest.mark.parametrize("compress", [1.0, 1.5, 60.0, 2880.0])
def test_event_time_reaches_the_clock_and_never_passes_it(compress: float) -> None:
    bounds = event_time_bounds(NOW, 0.2, 300, compress)
    turns = [NOW + timedelta(seconds=0.2 * block) for block in range(300)]
    assert all(a < b for a, b in pairwise(bounds))
    assert all(end <= turn for end, turn in zip(bounds[1:], turns, strict=True))
    assert bounds[-1] == turns[-1]
    assert bounds[-1] - bounds[0] == pytest.approx(timedelta(seconds=60 * compress), abs=timedelta(seconds=1))


def test_event_time_does_not_run_slower_than_the_clock() -> None:
    with pytest.raises(ConfigurationError, match="compress"):
        event_time_bounds(NOW, 0.2, 300, 0.5)


def test_simulated_files_hold_events_with_labels(tmp_path: Path) -> None:
    parquet, text = tmp_path / "stream.parquet", tmp_path / "stream.csv"
    first = simulate_to_file(parquet, rate=1_000, seconds=120, seed=5)
    again = simulate_to_file(text, rate=1_000, seconds=120, seed=5)
    table = pq.read_table(parquet)
    fields = load_contract("simulator").raw_fields
    assert set(table.column_names) == {*fields, "is_fraud", "fraud_type"}
    assert table.num_rows == first.events == first.records == 120_000
    assert sum(table["is_fraud"].to_pylist()) == first.frauds == pytest.approx(600, rel=0.25)
    assert first.labels == parquet
    assert first.truth.equals(again.truth)
    assert events_of(parquet, load_contract("simulator")) == events_of(text, load_contract("simulator"))


def test_the_same_seed_writes_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        simulate_to_file(path, rate=100, seconds=3, seed=seed)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


@pytest.mark.parametrize(("name", "rate"), [("s.json", 1.0), ("none/s.csv", 1.0), ("s.csv", 0.0)])
def test_simulations_that_cannot_be_written_are_refused(tmp_path: Path, name: str, rate: float) -> None:
    with pytest.raises(ConfigurationError):
        simulate_to_file(tmp_path / name, rate=rate, seconds=1, seed=1)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_tables_become_events_of_exactly_the_contract(tmp_path: Path, ending: str) -> None:
    path, table = tmp_path / f"tx.{ending}", pa.table(COLUMNS)
    if ending == "parquet":
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
            list(file_events(path, HANDBOOK))


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
        list(file_events(path, HANDBOOK))


def test_an_absent_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        file_events(Path("absent.csv"), HANDBOOK)


def test_undelivered_records_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.feeds._DELIVERY_SECONDS", 0.2)
    with pytest.raises(RetryableError, match="2 of 2 records"):
        produce_records("127.0.0.1:1", "nowhere", [b"k", None], [b"a", b"b"], Pace())


def test_an_error_on_its_way_is_not_held_up_by_delivery() -> None:
    with pytest.raises(KeyError), Sender("127.0.0.1:1", "nowhere", Pace()) as sender:
        sender.send([b"k"], [b"v"])
        raise KeyError


def test_a_simulation_checks_its_numbers_before_the_broker() -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        simulate_to_topic("127.0.0.1:1", "nowhere", rate=0, seconds=1, seed=1)
