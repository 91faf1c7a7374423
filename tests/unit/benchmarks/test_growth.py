"""The figures of the benches on growth and history, in small: what must not grow does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import growth as bench
from benchmarks.growth import Point, growth, growth_ratios
from streaming.delta.maintenance import MaintenanceLimits
from streaming.home.settings import Settings


@pytest.mark.long
def test_files_and_logs_of_all_tables_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_LIMITS", MaintenanceLimits(4, 4, 5, bench._LIMITS.least_age))
    monkeypatch.setattr(bench, "_KEPT", bench._KEPT * 0)
    monkeypatch.setattr(bench, "_ROUND_EVERY", 4)
    points = list(growth(Settings.load(tmp_path, {}), 30, 10))
    tables = 10
    assert [point.batches for point in points] == [10, 20, 30]
    for point in points:
        assert point.files <= tables * 2 * 8
        assert point.log_entries <= tables * 4 * 5 + 30
        assert 0.9 * bench._ROWS * point.batches <= point.rows <= bench._ROWS * point.batches
    # Tables that are made late add theirs; one of each batch would be 10.
    assert points[2].transactions <= points[1].transactions + 4


def test_what_grows_is_told_from_what_goes_up_and_down() -> None:
    up_and_down = [
        Point(n, n, (n * 7) % 5, 1, 400 + (n * 3) % 5, 16, 1.0, 40.0, float(n)) for n in range(1, 11)
    ]
    ratios = growth_ratios(up_and_down)
    assert ratios["files"] <= 1.5 and ratios["log_entries"] <= 1.01
    assert (ratios["transactions"], ratios["bytes_per_row"], ratios["batch_ms"]) == (1.0, 1.0, 2.67)
    assert growth_ratios(up_and_down[:1])["batch_ms"] == 1.0
