"""A table that others may write to meanwhile is known as such, or stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.lake_tables import TABLES, Table
from streaming.erasure.places import KEPT, ErasablePlaces
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.place import Place
from streaming.testing.small_lake import spec_of


@pytest.mark.parametrize("name", TABLES)
def test_what_others_write_is_shared_and_the_driver_s_own_is_not(name: Table, tmp_path: Path) -> None:
    places = ErasablePlaces(PlacedAgent(Settings.load(tmp_path, {}), spec_of()))
    table = places.reader.place(name)
    assert places.is_shared(table) == (TABLES[name].writer != "agent")
    assert places.is_shared(Place.local(tmp_path / "sandbox" / "alerts")), "of a sandbox"


def test_tokens_stay_as_they_are_since_no_event_is_in_them() -> None:
    assert "tokens" in KEPT
