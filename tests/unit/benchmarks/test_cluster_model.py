"""The arithmetic from runs of a cluster to more executor cores."""

from __future__ import annotations

import pytest

from benchmarks.cluster_model import ClusterRun, RateModel
from benchmarks.cluster_scoring import population_figures

RUN = ClusterRun(rate=80_000.0, driver=4.0, executors=12.0, serial=2.0, store=0.8, back=150.0)


def test_the_slower_of_driver_and_executors_limits() -> None:
    model = RateModel(RUN)
    assert [round(model.at_once(cores)) for cores in (1, 2, 6, 12)] == [83_333, 166_667, 500_000, 500_000]
    assert [round(model.in_turns(cores)) for cores in (1, 6)] == [71_429, 250_000]
    assert model.driver_limits_from == 6.0
    assert model.at_once(6) == pytest.approx(model.at_once(7))
    assert model.here(2) == pytest.approx(125_000.0)


def test_what_was_measured_stands_beside_the_model() -> None:
    found = RateModel(RUN).figures({1: 79_000.4, 2: 130_000.0}, machine=2)
    rows = found["model"]
    assert isinstance(rows, list)
    assert [each["executor_cores"] for each in rows] == [1, 2, 4, 8, 16]
    assert [each["measured"] for each in rows] == [79_000, 130_000, None, None, None]
    assert found["model_driver_limits_from_cores"] == 6.0


def test_processor_time_is_told_for_100_000_events() -> None:
    assert RUN.figures()["executors_cpu_s_per_100k"] == 1.2


@pytest.mark.long
def test_the_drivers_share_of_scoring_is_measured_by_features_at_hand() -> None:
    found = population_figures(rounds=1)
    assert set(found) == {
        f"{name}_rows_per_s_{cores}"
        for name in ("population", "driver")
        for cores in ("one_core", "all_cores")
    }
    for cores in ("one_core", "all_cores"):
        passes, whole = (found[f"{name}_rows_per_s_{cores}"] for name in ("population", "driver"))
        assert isinstance(passes, int)
        assert isinstance(whole, int)
        assert passes > whole
