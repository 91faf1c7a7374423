from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas.errors import RetryableError
from schemas.label import GIVEN, LABELS, label_json_schema
from streaming.delta import lake_table
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.labels.book import LabelBook, label_status
from streaming.labels.recorded import MAX_AHEAD, LabelStatus
from streaming.store.place import Place

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=30)
KEEP = timedelta(days=30)


def hours(count: float) -> datetime:
    return START + timedelta(hours=count)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


def open_book(folder: Path) -> LabelBook:
    return LabelBook(Place.local(folder / "labels"), retention=KEEP, clock=Clock())


def said(*labels: tuple[Any, ...]) -> pa.Table:
    """Labels of id, label, time, and optionally decider and kind."""
    names = ("transaction_id", "is_fraud", "decided_at", "decided_by", "kind")
    usual = {"decided_by": "ann", "kind": None}
    rows = [usual | dict(zip(names, label, strict=False)) for label in labels]
    return pa.Table.from_pylist(
        [{**row, "source_position": number} for number, row in enumerate(rows, 1)], schema=GIVEN
    )


def polled(first: int, last: int) -> pa.Table:
    """Labels of a topic's partition from one offset to another."""
    rows = said(*[(f"t{offset}", True, hours(offset)) for offset in range(first, last + 1)])
    offsets = pa.array(range(first, last + 1), pa.int64())
    return rows.set_column(rows.schema.get_field_index("source_position"), "source_position", offsets)


def stored(folder: Path) -> list[dict[str, Any]]:
    table = DeltaTable(folder / "labels").to_pyarrow_table()
    return list(table.sort_by("label_sequence").to_pylist())


def latest(book: LabelBook, **limits: Any) -> dict[str, bool]:
    labels = book.latest(**limits)
    assert labels.schema.equals(LABELS)
    return dict(zip(labels["transaction_id"].to_pylist(), labels["is_fraud"].to_pylist(), strict=True))


def test_labels_are_stored_in_order_with_who_when_and_whence(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    recorded = book.record(
        said(("b", True, hours(2), "bob", "skimming"), ("a", False, hours(1))), source="x.csv"
    )
    assert (recorded.stored, recorded.repeated, recorded.rejected) == (2, 0, 0)
    first, second = stored(tmp_path)
    assert first == {
        "label_sequence": 0,
        "transaction_id": "b",
        "is_fraud": True,
        "kind": "skimming",
        "decided_at": hours(2),
        "decided_by": "bob",
        "recorded_at": NOW + timedelta(minutes=1),
        "source": "x.csv",
        "source_position": 1,
    }
    assert (second["label_sequence"], second["transaction_id"]) == (1, "a")
    assert book.next_sequence == 2


def test_a_second_import_stores_only_what_is_new(tmp_path: Path) -> None:
    labels = [(f"t{number}", number % 3 == 0, hours(number)) for number in range(20)]
    open_book(tmp_path).record(said(*labels[:12]), source="one")
    book = open_book(tmp_path)
    recorded = book.record(said(*labels[6:]), source="two")
    assert (recorded.stored, recorded.repeated) == (8, 6)
    assert book.record(said(*labels), source="three").repeated == 20
    assert [row["label_sequence"] for row in stored(tmp_path)] == list(range(20))


@pytest.mark.parametrize(
    "other",
    [
        ("t", False, hours(1), "ann", "k"),
        ("t", True, hours(2), "ann", "k"),
        ("t", True, hours(1), "bob", "k"),
        ("t", True, hours(1), "ann", None),
        ("u", True, hours(1), "ann", "k"),
    ],
)
def test_a_label_that_differs_in_anything_is_another_label(tmp_path: Path, other: tuple[Any, ...]) -> None:
    book = open_book(tmp_path)
    book.record(said(("t", True, hours(1), "ann", "k")), source="one")
    assert book.record(said(other), source="two").stored == 1


def test_repetitions_within_one_file_and_without_a_kind_count_once(tmp_path: Path) -> None:
    recorded = open_book(tmp_path).record(said(*[("t", True, hours(1))] * 3), source="one")
    assert (recorded.stored, recorded.repeated) == (1, 2)
    assert open_book(tmp_path).record(said(("t", True, hours(1))), source="two").repeated == 1


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    book.record(said(("t", True, hours(1))), source="one")
    before = book.version
    book.record(said(("t", True, hours(1))), source="one")
    assert book.record(GIVEN.empty_table(), source="none").read == 0
    assert book.version == before


def test_the_latest_labels_stands_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    book.record(said(("t", False, hours(5)), ("u", True, hours(3))), source="one")
    book.record(said(("t", True, hours(4)), ("u", False, hours(6))), source="two")
    assert latest(book) == {"t": False, "u": False}
    assert latest(book, as_of=hours(5)) == {"t": False, "u": True}
    assert latest(book, as_of=hours(5) - timedelta(microseconds=1)) == {"t": True, "u": True}
    assert latest(book, through=3) == {"t": False, "u": True}
    assert latest(book, as_of=hours(4), through=3) == {"t": True, "u": True}
    assert latest(book, as_of=hours(2)) == {}


def test_of_labels_at_the_same_moment_the_last_recorded_stands(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    book.record(said(("t", True, hours(1), "ann"), ("t", False, hours(1), "bob")), source="one")
    assert latest(book) == {"t": False}
    book.record(said(("t", True, hours(1), "cem")), source="two")
    assert latest(book) == {"t": True}
    assert latest(book, through=2) == {"t": False}


def test_undated_labels_are_decided_now_and_repeat_what_their_decider_said_last(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    assert book.record(said(("t", True, None), ("u", False, None)), source="one").stored == 2
    assert {row["decided_at"] for row in stored(tmp_path)} == {NOW + timedelta(minutes=1)}
    assert book.record(said(("t", True, None), ("u", False, None)), source="one").repeated == 2
    assert book.record(said(("t", False, None, "bob")), source="bob").stored == 1
    assert book.record(said(("t", True, None)), source="one").repeated == 1
    assert latest(book)["t"] is False
    assert book.record(said(("t", False, None)), source="changed").stored == 1
    assert book.record(said(("t", True, None)), source="changed back").stored == 1
    assert latest(book)["t"] is True


def test_an_undated_contradiction_within_one_file_is_rejected_for_the_last_word(tmp_path: Path) -> None:
    labels = said(("t", True, None), ("t", False, None), ("t", False, None))
    for stored_rows, repeated in ((1, 1), (0, 2)):
        recorded = open_book(tmp_path).record(labels, source="one")
        assert (recorded.stored, recorded.repeated, recorded.rejected) == (stored_rows, repeated, 1)
        assert recorded.rejects.to_pylist()[0]["source_position"] == 1
    assert latest(open_book(tmp_path)) == {"t": False}


def test_labels_that_cannot_stand_are_rejected_with_their_place(tmp_path: Path) -> None:
    late = NOW + timedelta(minutes=1) + MAX_AHEAD
    labels = said(
        (None, True, hours(1)),
        ("", True, hours(1)),
        ("a", None, hours(1)),
        ("b", True, hours(1), None),
        ("c", True, late + timedelta(microseconds=1)),
        ("d", True, late),
    )
    recorded = open_book(tmp_path).record(labels, source="one")
    assert (recorded.stored, recorded.rejected, recorded.read) == (1, 5, 6)
    assert recorded.rejects["source_position"].to_pylist() == [1, 2, 3, 4, 5]
    assert recorded.rejects["reason"].to_pylist()[2] == "no verdict"
    assert "still to come" in recorded.rejects["reason"].to_pylist()[4]


def test_a_partition_of_a_topic_is_recorded_once_up_to_each_offset(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    assert book.position("labels/0") == 0
    assert book.record(polled(0, 4), source="labels/0", through=4).stored == 5
    again = open_book(tmp_path)
    assert again.position("labels/0") == 5
    overlapping = again.record(polled(3, 7), source="labels/0", through=7)
    assert (overlapping.stored, overlapping.repeated) == (3, 2)
    assert again.record(GIVEN.empty_table(), source="labels/0", through=9).read == 0
    assert (again.position("labels/0"), again.position("labels/1")) == (10, 0)
    assert [row["transaction_id"] for row in stored(tmp_path)] == [f"t{offset}" for offset in range(8)]


def test_an_attempt_overtaken_by_an_earlier_zombie_changes_nothing(tmp_path: Path) -> None:
    book, zombie = open_book(tmp_path), open_book(tmp_path)
    labels = said(("t", True, hours(1)))
    book.record(labels, source="labels/0", through=5)
    late = zombie.record(labels, source="labels/0", through=3)
    assert (late.stored, late.repeated) == (0, 1)
    assert open_book(tmp_path).position("labels/0") == 6


def test_two_books_by_turns_leave_no_gap_and_no_repetition(tmp_path: Path) -> None:
    books = [open_book(tmp_path), open_book(tmp_path)]
    for number in range(8):
        shared = ("shared", True, hours(number // 2))
        books[number % 2].record(said(shared, (f"t{number}", True, hours(number))), source="one")
    rows = stored(tmp_path)
    assert [row["label_sequence"] for row in rows] == list(range(12))
    assert [row["transaction_id"] for row in rows].count("shared") == 4


def test_books_that_write_at_the_same_time_leave_no_gap_and_no_repetition(tmp_path: Path) -> None:
    open_book(tmp_path)
    together = threading.Barrier(3)
    faults: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            book = open_book(tmp_path)
            together.wait(30)
            for number in range(6):
                labels = said(("shared", True, hours(number)), (f"{writer}-{number}", False, hours(number)))
                book.record(labels, source=str(writer))
        except BaseException as fault:
            faults.append(fault)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert not faults
    rows = stored(tmp_path)
    assert [row["label_sequence"] for row in rows] == list(range(24))
    assert len({(row["transaction_id"], row["decided_at"]) for row in rows}) == 24


def test_a_writer_that_was_overtaken_looks_again_before_it_writes(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    first, second = (SharedTable(Place.local(tmp_path / "t"), schema, KEEP) for _ in range(2))
    tries = []

    def attempt() -> bool:
        tries.append(first.count())
        if len(tries) == 1:
            second.append(pa.table({"n": [0]}, schema=schema), Stamp("two", 0))
        return first.append(pa.table({"n": [first.count()]}, schema=schema), Stamp("one", 0))

    assert first.by_turns(attempt)
    assert tries == [0, 1]
    assert first.read("n", 0)["n"].to_pylist() == [0, 1]


def test_a_refusal_without_another_writer_is_not_tried_for_ever(tmp_path: Path) -> None:
    table = SharedTable(Place.local(tmp_path / "t"), pa.schema([("n", pa.int64())]), KEEP)

    def refused() -> None:
        raise RetryableError("refused")

    with pytest.raises(RetryableError):
        table.by_turns(refused)


@pytest.mark.long
def test_many_small_commits_are_compacted_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_table, "_TIDY_EVERY", 16)
    book = open_book(tmp_path)
    other = open_book(tmp_path)
    for number in range(28):
        book.record(polled(number, number), source="labels/0", through=number)
    assert len(DeltaTable(tmp_path / "labels").file_uris()) < 20
    assert other.since(0)["label_sequence"].to_pylist() == list(range(28))
    assert other.record(said(("t3", True, hours(3))), source="x").repeated == 1
    assert open_book(tmp_path).position("labels/0") == 28


def test_new_labels_are_read_in_order_from_a_place_on(tmp_path: Path) -> None:
    reader, writer = open_book(tmp_path), open_book(tmp_path)
    assert reader.since(0).num_rows == 0
    writer.record(said(("a", True, hours(3)), ("b", True, hours(2))), source="one")
    writer.record(said(("c", False, hours(1))), source="two")
    assert reader.since(1)["transaction_id"].to_pylist() == ["b", "c"]
    assert reader.since(0, through=2)["transaction_id"].to_pylist() == ["a", "b"]
    assert reader.since(reader.next_sequence).num_rows == 0


def test_status_counts_by_last_labels_and_makes_no_table(tmp_path: Path) -> None:
    assert label_status(Place.local(tmp_path / "labels"), KEEP) == LabelStatus()
    assert not (tmp_path / "labels").exists()
    book = open_book(tmp_path)
    assert book.status() == LabelStatus()
    book.record(said(("a", True, hours(1)), ("a", False, hours(2)), ("b", True, hours(1))), source="one")
    found = label_status(Place.local(tmp_path / "labels"), KEEP)
    assert (found.labels, found.transactions, found.frauds, found.fraud_share) == (3, 2, 1, 0.5)
    assert (found.newest_decided_at, found.newest_recorded_at) == (hours(2), NOW + timedelta(minutes=1))


def test_the_schema_for_senders_wants_an_id_and_a_labels() -> None:
    validator = Draft202012Validator(label_json_schema())
    assert validator.is_valid({"transaction_id": "a", "is_fraud": True, "kind": None})
    assert not validator.is_valid({"transaction_id": "a"})
    assert not validator.is_valid({"transaction_id": "", "is_fraud": True})


LABEL = st.tuples(
    st.sampled_from("abc"),
    st.booleans(),
    st.integers(0, 3).map(hours),
    st.sampled_from(["ann", "bob"]),
    st.sampled_from([None, "k"]),
)


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(LABEL, max_size=6), max_size=4))
def test_any_cut_of_any_stream_of_labels_gives_the_same_book(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[Any, ...]]]
) -> None:
    book = open_book(tmp_path_factory.mktemp("book"))
    recorded = [book.record(said(*part), source="x") for part in parts]
    labels = [label for part in parts for label in part]
    distinct = list(dict.fromkeys(labels))
    assert sum(each.stored for each in recorded) == len(distinct)
    assert sum(each.read for each in recorded) == len(labels)
    rows = pl.DataFrame(book.since(0))
    names = ["transaction_id", "is_fraud", "decided_at", "decided_by", "kind"]
    assert rows["label_sequence"].to_list() == list(range(len(distinct)))
    assert [row[:2] for row in rows.select(names).iter_rows()] == [label[:2] for label in distinct]
    expected = {}
    for label in sorted(distinct, key=lambda each: each[2]):
        expected[label[0]] = label[1]
    assert latest(book) == expected


SAID = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.integers(0, 9)), max_size=6), max_size=4
)


@pytest.mark.long
@pytest.mark.parametrize("few", [0, 100])
@given(commits=SAID, asked=st.lists(st.sampled_from(["a", "b", "c", "never", None])), back=st.integers(0, 9))
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
def test_what_is_in_force_on_some_is_what_is_in_force_on_all(
    tmp_path_factory: pytest.TempPathFactory,
    few: int,
    commits: list[list[tuple[str, bool, int]]],
    asked: list[str | None],
    back: int,
) -> None:
    book = open_book(tmp_path_factory.mktemp("lake"))
    for each in commits:
        book.record(said(*[(name, fraud, hours(hour)) for name, fraud, hour in each]), source="x")
    through = max(0, book.next_sequence - back)
    expected = {name: fraud for name, fraud in latest(book, through=through).items() if name in asked}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streaming.labels.book._FEW", few)
        found = book.latest_on(pl.Series(asked, dtype=pl.String), through)
    assert dict(found.iter_rows()) == expected


def test_the_label_in_force_on_a_transaction_is_the_latest_decided_of_those_the_last_recorded(
    tmp_path: Path,
) -> None:
    book = open_book(tmp_path)
    book.record(said(("a", True, hours(2)), ("b", True, hours(1))), source="x")
    book.record(said(("a", False, hours(1))), source="y")
    assert book.in_force_on("a")["is_fraud"].to_list() == [True]
    book.record(said(("a", False, hours(2), "else")), source="z")
    assert book.in_force_on("a").select("is_fraud", "source").rows() == [(False, "z")]
    assert book.in_force_on("c").is_empty()


def test_for_a_few_transactions_no_other_labels_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = open_book(tmp_path)
    book.record(said(("a", True, hours(1)), ("b", False, hours(2))), source="x")
    monkeypatch.setattr(book, "_scan", None)
    assert book.latest_on(pl.Series(["b"]), book.next_sequence).rows() == [("b", False)]
