"""Tests that need Spark run in one process and share its session; the others run beside them in another."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep them together where the tests of a run are spread over processes."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            needs_spark = "spark" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("spark" if needs_spark else "others"))
