from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from streaming.labels.judged_rows import JudgedRows
from streaming.learning.evaluation_plots import flag_at_one_cut, observed_shares, write_plots

PNG = b"\x89PNG\r\n\x1a\n"


def rows(days: int, count: int = 2_000) -> JudgedRows:
    random = np.random.default_rng(5)
    labels = random.random(count) < 0.03
    labels[0] = True
    return JudgedRows(
        scores=np.clip(random.random(count) + 0.2 * labels, 0.0, 1.0),
        labels=labels,
        days=np.sort(random.integers(17_716, 17_716 + days, count)),
        entities=random.integers(0, 100, count),
    )


@pytest.mark.parametrize("days", [1, 7, 120])
def test_three_plots_are_written_into_a_new_folder(tmp_path: Path, days: int) -> None:
    written = write_plots(rows(days), tmp_path / "new" / "plots", alerts_per_day=10)
    assert [path.name for path in written] == [
        "precision_recall.png",
        "alerts_per_day.png",
        "calibration.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in written)


def test_same_rows_give_the_same_pictures(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_plots(rows(7), tmp_path / "a", alerts_per_day=10)]
    assert first == [path.read_bytes() for path in write_plots(rows(7), tmp_path / "b", alerts_per_day=10)]


def test_alerts_that_were_raised_are_drawn_in_place_of_a_cut(tmp_path: Path) -> None:
    judged = rows(7)
    cut = write_plots(judged, tmp_path / "cut", 10)
    given = write_plots(judged, tmp_path / "given", 10, flagged=judged.labels)
    same = [one.read_bytes() == other.read_bytes() for one, other in zip(cut, given, strict=True)]
    assert same == [True, False, True]


def test_one_row_can_be_drawn(tmp_path: Path) -> None:
    single = rows(1).only(np.arange(2_000) == 0)
    assert len(write_plots(single, tmp_path, alerts_per_day=1)) == 3


def test_one_cut_keeps_the_budget_on_average() -> None:
    judged = rows(7)
    flagged = flag_at_one_cut(judged, 10)
    assert flagged.sum() == 70
    assert judged.scores[flagged].min() > judged.scores[~flagged].max()
    assert flag_at_one_cut(judged, 2_000).all()


def test_ties_never_break_the_budget() -> None:
    judged = rows(7)
    ties = judged.scored(np.round(judged.scores, 1))
    assert flag_at_one_cut(ties, 10).sum() <= 70
    assert not flag_at_one_cut(judged.scored(np.zeros(2_000)), 10).any()


def test_observed_shares_count_rows_that_score_that_high() -> None:
    scores = np.array([0.0, 0.5, 0.75, 0.75])
    assert observed_shares(scores, np.array([0.125, 0.25, 0.5, 1.0])).tolist() == [0.0, 0.5, 0.75, 1.0]


def test_observed_shares_of_calibrated_scores_are_the_stated_ones() -> None:
    scores = (np.arange(10_000) + 0.5) / 10_000
    stated = np.geomspace(1e-3, 1.0, 20)
    assert observed_shares(scores, stated) == pytest.approx(stated, abs=1e-4)


@pytest.mark.parametrize("scores", [[], [1.5], [-0.1]])
def test_calibration_needs_scores_between_0_and_1(scores: list[float]) -> None:
    with pytest.raises(ConfigurationError, match=r"\[0, 1\]"):
        observed_shares(np.array(scores, dtype=np.float64), np.ones(1))


def test_what_cannot_be_judged_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    judged = rows(7)
    with pytest.raises(ConfigurationError, match="flagged has 3 rows, expected 2000"):
        write_plots(judged, tmp_path / "plots", 10, flagged=np.ones(3, dtype=bool))
    with pytest.raises(ConfigurationError, match="at least one alert"):
        write_plots(judged, tmp_path / "plots", 0)
    with pytest.raises(ConfigurationError, match="no fraud among"):
        write_plots(judged.only(~judged.labels), tmp_path / "plots", 10)
    with pytest.raises(ConfigurationError, match=r"\[0, 1\]"):
        write_plots(judged.scored(judged.scores * 3), tmp_path / "plots", 10)
    assert not (tmp_path / "plots").exists()
