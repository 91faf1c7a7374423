"""What closed batches say, by any split into files, without opening more of them than it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.tables import BATCHES
from streaming.batch.closed_batches import ClosedBatches
from streaming.delta import stored
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.labels.label_pins import LabelPins
from streaming.store.place import Place

DAY = datetime(2026, 5, 1, tzinfo=UTC)
KEEP = timedelta(days=30)
# Of each batch: rows, labels that have become known, seconds until it is closed, whether a file ends with it.
HISTORY = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 2]), st.integers(0, 2), st.booleans()), max_size=25
)


def written(folder: Path, history: Sequence[tuple[int, int, int, bool]]) -> tuple[LakeTable, pl.DataFrame]:
    table, rows, part = LakeTable(Place.local(folder / "batches"), BATCHES, "agent/epoch", KEEP), [], []
    reached, labels, at, number = 0, 0, DAY, 0
    for count, known, seconds, ends in history:
        labels, at = labels + known, at + timedelta(seconds=seconds, microseconds=137)
        part.append(
            {
                "first_sequence": reached,
                "next_sequence": reached + count,
                "labels_through": labels,
                "labels_below": reached if known else 0,
                "closed_at": at,
            }
        )
        reached += count
        if ends:
            table.append(pa.Table.from_pylist(part, schema=BATCHES), Stamp("a", number))
            rows, part, number = rows + part, [], number + 1
    return table, pl.DataFrame(pa.Table.from_pylist(rows, schema=BATCHES))


def listed(pins: LabelPins) -> list[tuple[int, int, int]]:
    columns = (pins.firsts, pins.throughs, pins.belows)
    return list(zip(*(each.tolist() for each in columns), strict=True))


@contextmanager
def counting_files() -> Iterator[list[str]]:
    opened, real = list[str](), stored.pq.ParquetFile

    def opening(path: Any, *rest: Any, **more: Any) -> Any:
        opened.append(str(path))
        return real(path, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored.pq, "ParquetFile", opening)
        yield opened


@pytest.mark.long
@properties(deadline=None, max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))
@given(HISTORY, st.integers(0, 30))
def test_pins_and_ends_are_those_of_all_rows_by_any_split_into_files(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, int, int, bool]], seconds: int
) -> None:
    table, rows = written(tmp_path_factory.mktemp("lake"), history)
    batches = ClosedBatches(table)
    assert listed(batches.label_pins()) == listed(LabelPins.of_batches(rows))
    for moment in (DAY + timedelta(seconds=seconds), *rows["closed_at"].to_list()):
        before = rows.filter(pl.col("closed_at") < moment)["next_sequence"].to_list()
        assert batches.closed_before(moment) == max(before, default=0)


@pytest.mark.parametrize("files", [4, 16])
def test_what_is_read_does_not_grow_with_history(tmp_path: Path, files: int) -> None:
    history = [(5, 3 if number == 1 else 0, 1, True) for number in range(files)]
    batches = ClosedBatches(written(tmp_path, history)[0])
    with counting_files() as opened:
        assert len(listed(batches.label_pins())) == 1
        assert len(opened) == 1
        assert batches.closed_before(DAY + timedelta(seconds=2, microseconds=1)) == 5
        assert len(opened) <= 3
