from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake

from schemas.errors import ConfigurationError
from schemas.label import LABELS
from streaming.files.dialect import TextOptions
from streaming.labels.book import LabelBook
from streaming.labels.label_files import LabelColumns, import_labels
from streaming.labels.label_parsing import EXPECTED
from streaming.labels.recorded import Recorded
from streaming.store.place import Place

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MIDDAY = datetime(2026, 1, 2, 12, tzinfo=UTC)
MAPPED = LabelColumns("ID", "FRAUD", "WHEN", "SCENARIO", "WHO")


@pytest.fixture
def book(tmp_path: Path) -> LabelBook:
    return LabelBook(Place.local(tmp_path / "labels"), retention=timedelta(days=30), clock=lambda: NOW)


def rows(book: LabelBook) -> list[dict[str, Any]]:
    found = book.since(0)
    assert found.schema.equals(LABELS)
    return list(found.to_pylist())


def reasons(recorded: Recorded) -> dict[int, str]:
    return {row["source_position"]: row["reason"] for row in recorded.rejects.to_pylist()}


def written(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == "":
        write_deltalake(path, frame.to_arrow())
    else:
        frame.write_ndjson(path)
    return path


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl", ""])
def test_columns_of_any_name_are_mapped_alike_from_every_kind_of_file(
    tmp_path: Path, book: LabelBook, ending: str
) -> None:
    frame = pl.DataFrame(
        {
            "ID": [17, 2**62],
            "FRAUD": [1, 0],
            "WHEN": ["2026-01-02T12:00:00", "2026-01-02T12:00:00.000001Z"],
            "SCENARIO": [3, None],
            "WHO": ["ann", None],
            "other": [1.5, 2.5],
        }
    )
    path = written(frame, tmp_path / f"marks{ending}")
    recorded = import_labels(path, book, columns=MAPPED, by="bob")
    assert (recorded.stored, recorded.rejected) == (2, 0)
    first, second = rows(book)
    assert (first["transaction_id"], first["is_fraud"], first["kind"]) == ("17", True, "3")
    assert (first["decided_at"], first["decided_by"]) == (MIDDAY, "ann")
    assert (second["transaction_id"], second["is_fraud"], second["kind"]) == (str(2**62), False, None)
    assert (second["decided_at"], second["decided_by"]) == (MIDDAY + timedelta(microseconds=1), "bob")
    assert (first["source"], first["source_position"], second["source_position"]) == (path.name, 1, 2)
    assert import_labels(path, book, columns=MAPPED, by="bob").repeated == 2


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ""])
def test_what_lies_in_nested_columns_is_found_by_its_path(
    tmp_path: Path, book: LabelBook, ending: str
) -> None:
    cases = [{"payment": {"id": "a"}, "answer": [{"fraud": 1}]}, {"payment": {"id": "b"}, "answer": None}]
    path = written(pl.DataFrame({"case": cases, "kind": ["x", "y"]}), tmp_path / f"nested{ending}")
    columns = LabelColumns("case.payment.id", "case.answer[0].fraud")
    recorded = import_labels(path, book, columns=columns)
    assert [(row["transaction_id"], row["is_fraud"], row["kind"]) for row in rows(book)] == [("a", True, "x")]
    assert reasons(recorded) == {2: "no is_fraud"}
    with pytest.raises(ConfigurationError, match=r"no column 'case\.payment\.no'"):
        import_labels(path, book, columns=LabelColumns("case.payment.no", "case.answer[0].fraud"))


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl", ""])
def test_without_a_time_the_clock_decides_and_a_second_import_repeats(
    tmp_path: Path, book: LabelBook, ending: str
) -> None:
    frame = pl.DataFrame({"transaction_id": ["a", "b"], "is_fraud": [True, False], "fraud_type": ["x", None]})
    path = written(frame, tmp_path / f"marks{ending}")
    assert import_labels(path, book).stored == 2
    assert import_labels(path, book).repeated == 2
    assert [(row["decided_at"], row["decided_by"], row["kind"]) for row in rows(book)] == [
        (NOW, "unknown", "x"),
        (NOW, "unknown", None),
    ]


@pytest.mark.parametrize(
    ("values", "frauds"),
    [
        ([True, False, None], [True, False, None]),
        ([1, 0, 2], [True, False, None]),
        ([1.0, 0.0, 0.5], [True, False, None]),
        (["yes", "No", "maybe"], [True, False, None]),
        ([" Fraud ", "GENUINE", ""], [True, False, None]),
        (["TRUE", "false", "-1"], [True, False, None]),
    ],
)
def test_labels_are_understood_and_others_rejected(
    tmp_path: Path, book: LabelBook, values: list[Any], frauds: list[bool | None]
) -> None:
    frame = pl.DataFrame({"transaction_id": ["0", "1", "2"], "is_fraud": values})
    recorded = import_labels(written(frame, tmp_path / "a.parquet"), book)
    found = {row["transaction_id"]: row["is_fraud"] for row in rows(book)}
    assert [found.get(str(number)) for number in range(3)] == frauds
    assert list(reasons(recorded)) == [3]


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (pl.Series([5, -6, None], dtype=pl.Int32), ["5", "-6"]),
        (pl.Series([5, 2**64 - 1, None], dtype=pl.UInt64), ["5", str(2**64 - 1)]),
        (pl.Series([5.0, 1e15, 0.5]), ["5", "1000000000000000"]),
        (pl.Series([5.0, 6.0, float("nan")]), ["5", "6"]),
        (pl.Series(["05", " x", ""]), ["05", " x"]),
        (pl.Series(["05", "x", None], dtype=pl.Categorical), ["05", "x"]),
    ],
)
def test_ids_become_text_and_what_is_no_id_is_rejected(
    tmp_path: Path, book: LabelBook, values: pl.Series, ids: list[str]
) -> None:
    frame = pl.DataFrame({"transaction_id": values, "is_fraud": [1, 1, 1]})
    recorded = import_labels(written(frame, tmp_path / "a.parquet"), book)
    assert [row["transaction_id"] for row in rows(book)] == ids
    assert list(reasons(recorded)) == [3]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([MIDDAY.replace(tzinfo=None)], dtype=pl.Datetime("ns")),
        pl.Series([MIDDAY.replace(tzinfo=None)], dtype=pl.Datetime("ms")),
        pl.Series([MIDDAY.replace(tzinfo=None)])
        .dt.replace_time_zone("UTC")
        .dt.convert_time_zone("Asia/Tokyo"),
        pl.Series([int(MIDDAY.timestamp())]),
        pl.Series([MIDDAY.timestamp()]),
        pl.Series([str(int(MIDDAY.timestamp()))]),
        pl.Series(["2026-01-02T12:00"]),
        pl.Series(["2026-01-02 12:00:00"]),
        pl.Series(["2026-01-02 12:00:00.000000Z"]),
        pl.Series(["2026-01-02T14:00:00+02:00"]),
        pl.Series(["2026-01-02T07:00-0500"]),
        pl.Series(["2026-01-02T14:00:00.0+02"]),
    ],
    ids=str,
)
def test_times_in_any_sensible_form_mean_the_same(tmp_path: Path, book: LabelBook, values: pl.Series) -> None:
    frame = pl.DataFrame({"transaction_id": ["a"], "is_fraud": [1], "decided_at": values})
    assert import_labels(written(frame, tmp_path / "a.parquet"), book).stored == 1
    assert rows(book)[0]["decided_at"] == MIDDAY


def test_a_date_is_its_midnight_and_milliseconds_are_not_taken_for_seconds(
    tmp_path: Path, book: LabelBook
) -> None:
    dated = pl.DataFrame({"transaction_id": ["a"], "is_fraud": [1], "decided_at": [date(2026, 1, 2)]})
    import_labels(written(dated, tmp_path / "a.parquet"), book)
    assert rows(book)[0]["decided_at"] == MIDDAY.replace(hour=0)
    import_labels(written(dated, tmp_path / "a.csv"), book)
    assert len(rows(book)) == 1
    in_ms = dated.with_columns(decided_at=pl.lit(int(MIDDAY.timestamp() * 1_000)))
    recorded = import_labels(written(in_ms, tmp_path / "b.parquet"), book)
    assert "seconds since 1970" in reasons(recorded)[1]


def test_bad_rows_are_told_by_number_and_reason_and_the_others_stored(
    tmp_path: Path, book: LabelBook
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"transaction_id,is_fraud,decided_at,kind\n"
        b"a,1,2026-01-02,x\n"
        b"b,perhaps,2026-01-02,x\n"
        b"c,1\n"
        b",1,2026-01-02,x\n"
        b"d,0,yesterday,x\n"
        b"e\xff,1,2026-01-02,x\n"
        b"f,1,2026-01-02,x\xff\n"
        b'g,0,,"two\nlines"\n'
        b"h,1,2999-01-01,x\n"
    )
    recorded = import_labels(path, book, options=TextOptions("utf-8"))
    assert {row["transaction_id"]: row["kind"] for row in rows(book)} == {"a": "x", "g": "two\nlines"}
    assert [row["source_position"] for row in rows(book)] == [1, 8]
    assert (recorded.stored, recorded.rejected, recorded.read) == (2, 7, 9)
    found = reasons(recorded)
    assert list(found) == [2, 3, 4, 5, 6, 7, 9]
    assert found[2] == f"is_fraud is 'perhaps'; expected {EXPECTED['is_fraud']}"
    assert found[3] == "not as many cells as the heading"
    assert found[4] == "no transaction_id"
    assert found[5].startswith("decided_at is 'yesterday'")
    assert "still to come" in found[9]


def test_lines_of_json_that_hold_no_label_are_told_by_line(tmp_path: Path, book: LabelBook) -> None:
    lines = [
        {"transaction_id": "a", "is_fraud": True},
        "{torn",
        [],
        "",
        {"transaction_id": {"deep": 1}, "is_fraud": 1},
        {"transaction_id": True, "is_fraud": 1},
        {"is_fraud": 1},
        {"transaction_id": 7, "is_fraud": "no", "decided_at": MIDDAY.timestamp(), "kind": "k"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
    recorded = import_labels(path, book)
    assert [(row["transaction_id"], row["source_position"]) for row in rows(book)] == [("a", 1), ("7", 8)]
    assert rows(book)[1]["decided_at"] == MIDDAY
    found = reasons(recorded)
    assert list(found) == [2, 3, 5, 6, 7]
    assert found[2].startswith("not JSON")
    assert found[5].startswith('transaction_id is {"deep":1}; expected')


def test_a_file_of_bad_rows_alone_stores_nothing(tmp_path: Path, book: LabelBook) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("garbage\nmore\n")
    recorded = import_labels(path, book)
    assert (recorded.stored, recorded.rejected, recorded.read) == (0, 2, 2)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl", ""])
def test_a_file_without_rows_is_no_fault(tmp_path: Path, book: LabelBook, ending: str) -> None:
    frame = pl.DataFrame(
        {"transaction_id": [], "is_fraud": []}, {"transaction_id": pl.String, "is_fraud": pl.Int8}
    )
    assert import_labels(written(frame, tmp_path / f"a{ending}"), book).read == 0


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl", ""])
def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, book: LabelBook, ending: str) -> None:
    path = written(pl.DataFrame({"transaction_id": ["a"], "is_fruad": [1]}), tmp_path / f"a{ending}")
    with pytest.raises(
        ConfigurationError, match=rf"a{ending}: no column 'is_fraud'; did you mean 'is_fruad'\?"
    ):
        import_labels(path, book)
    with pytest.raises(ConfigurationError, match="no column 'transactionid'; did you mean 'transaction_id'"):
        import_labels(path, book, columns=LabelColumns("transactionid", "is_fruad"))
    with pytest.raises(ConfigurationError, match="no column 'when'"):
        import_labels(path, book, columns=LabelColumns(is_fraud="is_fruad", decided_at="when"))


def test_a_column_of_the_wrong_type_a_wrong_ending_and_no_file_are_refused(
    tmp_path: Path, book: LabelBook
) -> None:
    odd = pl.DataFrame({"transaction_id": [[1]], "is_fraud": [1]})
    with pytest.raises(ConfigurationError, match=r"odd\.parquet: column 'transaction_id' holds List"):
        import_labels(written(odd, tmp_path / "odd.parquet"), book)
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(ConfigurationError, match=r"unknown ending '\.xlsx'"):
        import_labels(tmp_path / "a.xlsx", book)
    with pytest.raises(ConfigurationError, match="no such file"):
        import_labels(tmp_path / "absent.csv", book)
    (tmp_path / "broken.parquet").write_text("not parquet")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        import_labels(tmp_path / "broken.parquet", book)


def test_progress_counts_the_rows_and_large_files_keep_their_row_numbers(
    tmp_path: Path, book: LabelBook
) -> None:
    count = 300_000
    frame = pl.select(transaction_id=pl.int_range(count), is_fraud=pl.int_range(count) % 100 == 0)
    seen: list[int] = []
    path = written(frame, tmp_path / "a.parquet")
    assert import_labels(path, book, on_progress=seen.append).stored == count
    assert seen == sorted(seen)
    assert seen[-1] == count
    last = book.since(count - 1).to_pylist()[0]
    assert (last["transaction_id"], last["source_position"]) == (str(count - 1), count)


def test_labels_of_compressed_exports_arrays_and_folders_keep_their_row_numbers(
    tmp_path: Path, book: LabelBook
) -> None:
    export = "Vorgang;Betrug;Art\n1;Jawohl;x\n2;No;für\n\n3;yes;\n"
    path = tmp_path / "export.csv.gz"
    path.write_bytes(gzip.compress(export.encode("cp1252")))
    said: list[str] = []
    columns = LabelColumns("Vorgang", "Betrug", kind="Art")
    recorded = import_labels(path, book, columns=columns, on_say=said.append)
    assert said == [f"{path}: read as cp1252, delimiter ';', decimal point"]
    assert [(row["transaction_id"], row["is_fraud"], row["kind"]) for row in rows(book)] == [
        ("2", False, "für"),
        ("3", True, None),
    ]
    assert [row["source_position"] for row in rows(book)] == [2, 3]
    assert list(reasons(recorded)) == [1]
    (tmp_path / "parts").mkdir()
    for name, ids in (("part-0.json", [4, 5]), ("part-1.json", [6])):
        labels = [{"transaction_id": each, "is_fraud": 1} for each in ids]
        (tmp_path / "parts" / name).write_text(json.dumps(labels))
    import_labels(tmp_path / "parts", book)
    assert [(row["transaction_id"], row["source_position"]) for row in rows(book)[2:]] == [
        ("4", 1),
        ("5", 2),
        ("6", 3),
    ]


WORDS = [
    ("ja", "nein"),
    ("Oui", "Non"),
    ("SÍ", "no"),
    ("si", "no"),
    ("sim", "não"),
    ("tak", "nie"),
    ("ja", "nee"),
]


@pytest.mark.parametrize(("yes", "no"), WORDS)
def test_yes_and_no_in_other_languages_are_labels(tmp_path: Path, book: LabelBook, yes: str, no: str) -> None:
    """As a draft of a contract takes them for labels; see test_drafting."""
    path = tmp_path / "a.csv"
    path.write_text(f"transaction_id,is_fraud\na,{yes}\nb,{no}\n", encoding="utf-8")
    assert import_labels(path, book, options=TextOptions("utf-8")).rejected == 0
    assert {row["transaction_id"]: row["is_fraud"] for row in rows(book)} == {"a": True, "b": False}
