"""What follows from a table never shows rows that it does not have: restored, erased, another, or grown."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from streaming.delta import key_index
from streaming.delta.forgetting import forget_versions
from streaming.delta.index_files import INDEX
from streaming.delta.kept_rows import KeptLayout, KeptRows
from streaming.delta.key_index import KeyIndex
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.maintenance import MaintenanceLimits, clear, maintain
from streaming.delta.rewriting import maintained_alone, rewrite
from streaming.delta.stored import StoredTable, open_version
from streaming.store.place import Place

SCHEMA = pa.schema([("number", pa.int64()), ("id", pa.string())])
LAYOUTS = KeptLayout(4), KeptLayout(4, 2)
TIDY = MaintenanceLimits(2, 2, 2, timedelta(0))
Step = Literal[
    "append", "grow", "compact", "vacuum", "erase", "forget", "copy", "restore", "restore_with_index",
    "another_lake", "index_of_the_copy",
]  # fmt: skip
STEPS: tuple[Step, ...] = (
    "append", "grow", "grow", "compact", "vacuum", "erase", "forget", "copy", "copy", "restore", "restore",
    "restore_with_index", "another_lake", "index_of_the_copy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    short_spans(monkeypatch)


def short_spans(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(key_index, "_BITS", 4)
    patch.setattr(key_index, "SPAN", 16)
    patch.setattr(key_index, "_PLACE", key_index._PLACE.dtype.type(15))


class Tables:
    """A table in a folder, a copy of it, and rows that no other row is like."""

    def __init__(self, folder: Path, kept: timedelta = timedelta(0)) -> None:
        self.place, self.copy, self._kept = Place.local(folder / "things"), folder / "copy", kept
        self._other, self._made = folder / "other", 0
        self.grow(3)

    def grow(self, rows: int) -> None:
        """Append rows as another process does."""
        table = LakeTable(self.place, SCHEMA, "agent/epoch", self._kept)
        table.claim(table.epoch + 1)
        self._append(table, rows)

    def take(self, step: Step) -> None:
        steps: dict[Step, Callable[[], object]] = {
            "append": lambda: self.grow(1),
            "grow": lambda: self.grow(19),
            "compact": lambda: maintain(self.place, TIDY),
            "vacuum": lambda: clear(self.place, TIDY),
            "erase": self._erase,
            "forget": self._forget,
            "copy": self._copy,
            "restore": lambda: self._restore(self.copy, with_index=False),
            "restore_with_index": lambda: self._restore(self.copy, with_index=True),
            "another_lake": self._come_from_another,
            "index_of_the_copy": self._overlay_index,
        }
        steps[step]()

    def rows(self) -> list[tuple[int, str]]:
        rows = self.handle().select(["number", "id"]).sort_by("number")
        return list(zip(rows["number"].to_pylist(), rows["id"].to_pylist(), strict=True))

    def handle(self) -> StoredTable:
        table = open_version(self.place)
        assert table is not None
        return table

    def _append(self, table: LakeTable, rows: int) -> None:
        first = table.next_number("number")
        ids = [f"r{self._made + number}" for number in range(rows)]
        self._made += rows
        made = {"number": range(first, first + rows), "id": ids}
        table.append(pa.table(made, schema=SCHEMA), Stamp("app", table.last_batch("app") + 1))

    def _erase(self) -> None:
        gone = {each for _, each in self.rows()[::5]}

        def renamed(rows: pa.Table) -> pa.Table:
            names = [f"x{each}" if each in gone else each for each in rows["id"].to_pylist()]
            return rows.set_column(1, SCHEMA.field("id"), pa.array(names))

        with maintained_alone(self.place):
            rewrite(self.place, renamed)

    def _forget(self) -> None:
        with maintained_alone(self.place):
            forget_versions(self.place, shared=False)

    def _copy(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.place.path, self.copy)

    def _restore(self, source: Path, *, with_index: bool) -> None:
        """Put a copy in the place of the table; what lies in the index stays, unless the copy has one."""
        if not source.exists():
            return
        for path in self.place.path.iterdir():
            if path.name != INDEX:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        ignored = [] if with_index else [INDEX]
        shutil.copytree(source, self.place.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*ignored))

    def _overlay_index(self) -> None:
        if (self.copy / INDEX).exists():
            shutil.copytree(self.copy / INDEX, self.place.path / INDEX, dirs_exist_ok=True)

    def _come_from_another(self) -> None:
        """As many commits, and as many rows, as the table has itself."""
        shutil.rmtree(self._other, ignore_errors=True)
        table = LakeTable(Place.local(self._other), SCHEMA, "agent/epoch", timedelta(0))
        table.claim(table.epoch + 1)
        count, commits = len(self.rows()), self.handle().version - table.version
        for _ in range(max(1, commits - 1)):
            self._append(table, 1)
        self._append(table, max(1, count - table.next_number("number")))
        self._restore(self._other, with_index=False)


class Followers:
    """What one process makes of a table."""

    def __init__(self, tables: Tables) -> None:
        self.table = tables.handle()
        self.kept = [
            KeptRows(self.table, f"rows{number}", "number", ["id"], layout)
            for number, layout in enumerate(LAYOUTS)
        ]
        self.index = KeyIndex(self.table, "id", "number")

    def check(self, tables: Tables, *, builds: bool) -> None:
        """Compare all of it with the table; `builds`: what is kept is brought up to date first."""
        rows = tables.rows()
        self.table.refresh()
        numbers = np.arange(rows[-1][0] + 40)
        for each in self.kept:
            while builds and each.build():
                self.table.refresh()
            found = each.at(numbers)
            assert list(zip(*(found[name].to_pylist() for name in ("number", "id")), strict=True)) == rows
        wanted = pa.array([*(each for _, each in rows[::3]), "r0", "r7", "r25", "never"], pa.string())
        found = self.index.rows(wanted, [])
        shown = list(zip(found["number"].to_pylist(), found["id"].to_pylist(), strict=True))
        assert shown == [row for row in rows if row[1] in set(wanted.to_pylist())]


@pytest.mark.long
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.booleans(), st.booleans()), min_size=1, max_size=12)
)
@examples(deadline=None, max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
def test_nothing_is_shown_that_the_table_does_not_have(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Step, bool, bool]]
) -> None:
    """Neither by a process that has gone on all the while, nor by one that begins after each step."""
    with pytest.MonkeyPatch.context() as patch:
        short_spans(patch)
        tables = Tables(tmp_path_factory.mktemp("lake"))
        running = Followers(tables)
        for step, looks, builds in steps:
            tables.take(step)
            if looks:
                running.check(tables, builds=builds)
                Followers(tables).check(tables, builds=builds)
        running.check(tables, builds=True)
        Followers(tables).check(tables, builds=True)


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_restored_table_that_has_come_to_the_same_numbers_shows_its_own_rows(
    tmp_path: Path, goes_on: bool
) -> None:
    tables = Tables(tmp_path)
    tables.take("grow")
    tables.take("copy")
    followers = Followers(tables)
    for _ in range(2):
        tables.take("grow")
    followers.check(tables, builds=True)
    version, before = tables.handle().version, tables.rows()
    tables.take("restore")
    for _ in range(2):
        tables.take("grow")
    after = tables.rows()
    assert (tables.handle().version, len(after)) == (version, len(before)) and after != before
    (followers if goes_on else Followers(tables)).check(tables, builds=True)


def test_a_table_that_goes_on_keeps_what_was_made_of_it(tmp_path: Path) -> None:
    """Else a start beside a large lake would begin with a copy of it, each time."""
    tables = Tables(tmp_path, timedelta(days=30))
    for _ in range(3):
        tables.take("grow")
    Followers(tables).check(tables, builds=True)
    kept = set((tables.place.path / INDEX).rglob("*0000*"))
    assert len(kept) > 6
    tables.take("grow")
    tables.take("compact")
    again = Followers(tables)
    again.check(tables, builds=True)
    assert kept <= set((tables.place.path / INDEX).rglob("*0000*"))
