"""The browser of the console's tests, and people in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.console_people import House, People, people_of, started_browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with started_browser() as started:
        yield started


@pytest.fixture
def person(house: House, chromium: Any) -> People:
    """Return a way to sign somebody in at the `house` of the module."""
    return people_of(house, chromium)
