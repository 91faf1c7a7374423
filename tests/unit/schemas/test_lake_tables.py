"""Tables are declared once: names, documentation and old lakes go by it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from schemas.lake_tables import TABLES, Table
from schemas.spec import TableNames
from streaming.delta import lake_reader
from streaming.delta.lake import Lake

ARCHITECTURE = Path(__file__).parents[3] / "docs" / "ARCHITECTURE.md"


def documented() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return the order and the writer of each table, as the documentation has them."""
    text = ARCHITECTURE.read_text(encoding="utf-8").partition("| table | one row per |")[2]
    rows = re.findall(
        r"^\| `(\w+)` \| .+ \| (`.+`) \| ([a-z ]+) \|$", text.partition("\n\n")[0], re.MULTILINE
    )
    return {name: (tuple(re.findall(r"`(\w+)`", order)), writer) for name, order, writer in rows}


def test_a_spec_names_exactly_the_tables_that_are_declared() -> None:
    assert set(TableNames.model_fields) == set(TABLES) == set(get_args(Table))


def test_the_documentation_has_every_table_with_its_order_and_writer() -> None:
    assert documented() == {name: (each.order, each.writer) for name, each in TABLES.items()}


def test_the_driver_claims_exactly_what_the_agent_alone_writes() -> None:
    assert set(Lake.__dataclass_fields__) == {n for n, each in TABLES.items() if each.writer == "agent"}


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_ordered_by_columns_they_have_and_later_ones_may_be_null(name: Table) -> None:
    declared = TABLES[name]
    assert declared.row
    assert set(declared.order) <= set(declared.schema.names)
    assert set(declared.later) <= set(declared.schema.names) - set(declared.order)
    assert all(declared.schema.field(column).nullable for column in declared.later)


def test_only_the_reading_side_makes_a_path_of_a_tables_name() -> None:
    folders = [ARCHITECTURE.parents[1] / name for name in ("streaming", "benchmarks")]
    found = {path for folder in folders for path in folder.rglob("*.py")}
    sources = sorted(found - {Path(lake_reader.__file__)})
    assert len(sources) > 200
    joined = re.compile(r"/ \w[\w.]*\btables\.\w+|/ names\.\w+|open_version\([^\n]*( / |\.place\()")
    assert [str(each) for each in sources if joined.search(each.read_text(encoding="utf-8"))] == []
