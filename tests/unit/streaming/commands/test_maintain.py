"""`flagstream maintain` works off what has gathered, and changes no row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from schemas.errors import ConfigurationError
from streaming.commands.maintain import maintain_tables
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import build_lake, spec_of


def test_every_table_is_looked_after_and_no_row_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings.load(tmp_path, {})
    build_lake(PlacedAgent(settings, spec_of()))
    folder = settings.lake(spec_of().name)
    place = str(folder / "transactions")
    row = DeltaTable(place).to_pyarrow_table().slice(0, 1)
    for _ in range(70):
        write_deltalake(place, row, mode="append")
    before = LakeReader(folder, spec_of().tables).frame("transactions", ["sequence"])
    maintain_tables(PlacedAgent(settings, spec_of()), as_json=True)
    found = {each["table"]: each for each in json.loads(capsys.readouterr().out)["tables"]}
    assert found["transactions"]["compacted"]
    assert {"transactions", "alerts", "batches"} <= set(found)
    assert len(DeltaTable(place).file_uris()) == 1
    after = LakeReader(folder, spec_of().tables).frame("transactions", ["sequence"])
    assert after.sort("sequence").equals(before.sort("sequence"))


def test_without_a_lake_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no lake here yet"):
        maintain_tables(PlacedAgent(Settings.load(tmp_path, {}), spec_of()), as_json=True)
