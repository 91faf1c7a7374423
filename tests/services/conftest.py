"""The browser of the console's tests, and people in it; machines that share a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming.testing.stores import RunningStore
from tests.console_people import House, People, people_of, started_browser
from tests.store_machines import Machines


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with started_browser() as started:
        yield started


@pytest.fixture
def person(house: House, chromium: Any) -> People:
    """Return a way to sign somebody in at the `house` of the module."""
    return people_of(house, chromium)


@pytest.fixture
def machines(
    store: RunningStore, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machines]:
    monkeypatch.setenv("FLAGSTREAM_STORE", str(store.place))
    monkeypatch.setenv("FLAGSTREAM_AUDIT_KEY", "a" * 32)
    made = Machines(tmp_path, bootstrap)
    yield made
    made.end()
