"""What is read of a checkpoint of Spark's, and what is written there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas.errors import DataLossError
from streaming.kafka.source import last_committed, last_planned, offsets_of, query_id_of, take_back

WHOLE = '{"id":"0b5c0bb4-6f1e-4b5e-9d0b-6d1a9ad1f3c2"}'


def test_the_query_of_a_checkpoint(tmp_path: Path) -> None:
    assert query_id_of(tmp_path) is None
    (tmp_path / "metadata").write_text(WHOLE + "\n", encoding="utf-8")
    assert query_id_of(tmp_path) == "0b5c0bb4-6f1e-4b5e-9d0b-6d1a9ad1f3c2"


@pytest.mark.parametrize("left", [WHOLE[:at] for at in range(len(WHOLE))] + ["{}", "[1]", "3", "null"])
def test_a_record_of_the_query_that_was_cut_is_named(tmp_path: Path, left: str) -> None:
    path = tmp_path / "metadata"
    path.write_text(left, encoding="utf-8")
    with pytest.raises(DataLossError, match=f"{re.escape(str(path))}: .* is not whole"):
        query_id_of(tmp_path)


def test_offsets_that_were_cut_are_none(tmp_path: Path) -> None:
    path, record = tmp_path / "offsets" / "3", 'v1\n{"batchWatermarkMs":0}\n{"events":{"0":17,"1":5}}'
    path.parent.mkdir()
    for at in range(len(record)):
        path.write_text(record[:at], encoding="utf-8")
        with pytest.raises(
            DataLossError, match=f"{re.escape(str(path))}: Spark recorded no offsets for batch 3"
        ):
            offsets_of(tmp_path, 3)
    path.write_text(record, encoding="utf-8")
    assert offsets_of(tmp_path, 3) == {"events": {"0": 17, "1": 5}}


def test_a_batch_is_taken_back_before_any_was_committed(tmp_path: Path) -> None:
    (tmp_path / "offsets").mkdir()
    for number in ("0", "1"):
        (tmp_path / "offsets" / number).touch()
    take_back(tmp_path, 0)
    assert (last_planned(tmp_path), last_committed(tmp_path)) == (0, None)
