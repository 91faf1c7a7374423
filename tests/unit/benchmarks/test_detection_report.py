"""The report that puts scores side by side."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.baselines import CEILING
from benchmarks.detection import table, targets
from streaming.learning.protocol import Figures

GOOD = {
    "flagstream, unlabelled": Figures(0.68, 0.34, 0.1, {1: 1.0}, 1, 9),
    "flagstream, delayed": Figures(0.88, 0.6, 0.29, {1: 1.0}, 1, 9),
    "flagstream, trained": Figures(0.89, 0.7, 0.3, {1: 1.0}, 1, 9),
    CEILING: Figures(0.68, 0.37, 0.1, {2: 0.5}, 1, 9),
    "random forest": Figures(0.87, 0.69, 0.29, {1: 1.0}, 1, 9),
    "XGBoost": Figures(0.88, 0.6, 0.2, {1: 1.0}, 1, 9),
}


def test_targets_hold_together_and_each_can_fail() -> None:
    assert all(targets(GOOD).values())
    worse = {
        name: replace(each, auc=0.5, ap=0.1, cp100=0.01) for name, each in GOOD.items() if "flag" in name
    }
    failed = [name for name, reached in targets({**GOOD, **worse}).items() if not reached]
    assert len(failed) == len(targets(GOOD)) - 1
    leaky = {**GOOD, "flagstream, unlabelled": replace(GOOD["flagstream, unlabelled"], auc=0.75)}
    assert not targets(leaky)["unlabelled: AUC not more than 0.02 above the ceiling"]


@pytest.mark.parametrize("name", ["random forest", CEILING])
def test_table_has_a_line_per_score(name: str) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(GOOD))
    line = next(line for line in console.export_text().splitlines() if name in line)
    assert f"{GOOD[name].auc:.3f}" in line
    assert "-" in line.split()
