"""Which mode pays is weighed by what steps take, said rarely, and kept for status."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from streaming.run import mode_advice
from streaming.run.mode_advice import Mode, ModeWatch, forget_mode, read_mode, weighed
from streaming.service.health import Health

READS = {"take": 4.0, "decode": 3.0, "store": 1.0, "score": 1.5, "close": 0.5}
SCORES = {"take": 1.0, "decode": 0.5, "store": 1.0, "score": 6.0, "close": 0.5}


@pytest.mark.parametrize(
    ("seconds", "wall", "cores_busy", "execution", "pays", "at_best"),
    [
        (READS, 8.0, 1.0, "local", "cluster", 8 / 3),  # reading is longer than the rest beside it
        (READS, 30.0, 1.0, "local", "local", 8 / 3),  # it keeps up
        (SCORES, 7.5, 1.0, "local", "local", 1.0),  # reading is done while the rest is
        (SCORES, 7.5, 1.9, "local", "local", 9 / 7.5),  # and takes its time from there where cores are few
        ({**SCORES, "take": 4.0}, 7.5, 1.9, "local", "cluster", 12 / 7.5),
        (READS, 8.0, 1.0, "cluster", None, 8 / 3),
    ],
)
def test_a_cluster_pays_where_reading_is_what_limits(
    seconds: dict[str, float],
    wall: float,
    cores_busy: float,
    execution: Mode,
    pays: Mode | None,
    at_best: float,
) -> None:
    found = weighed(seconds, 1_000, wall, cores_busy, 2, execution)
    assert (found.execution, found.pays, found.at_best) == (execution, pays, round(at_best, 3))
    assert found.events_per_s == round(1_000 / wall, 3)
    assert "batches fill" in found.why


def test_executors_that_have_little_to_do_may_not_be_needed() -> None:
    assert weighed(READS, 1_000, 100.0, 0.1, 2, "cluster").why.endswith("execution: local may do")
    assert "may do" not in weighed(READS, 1_000, 8.0, 0.1, 2, "cluster").why


class Run:
    """A run whose clock a test sets, and what it has logged."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.said = 0.0, list[str]()
        monkeypatch.setattr(mode_advice, "log", lambda _, text, **__: self.said.append(text))
        self.watch = ModeWatch("payments", file, "local", lambda: self.now, lambda: self.now)

    def minute(self, seconds: dict[str, float], share: float = 1.0) -> None:
        """Ten batches whose cycle fills a share of a minute."""
        cycle = (
            max(seconds["take"] + seconds["decode"], seconds["score"] + seconds["close"]) + seconds["store"]
        )
        scale = share * 6.0 / cycle
        row: dict[str, Any] = {
            "durations": json.dumps({name: each * scale for name, each in seconds.items()}),
            "read": 100,
        }
        for _ in range(10):
            self.now += 6.0
            self.watch.closed(row)


def test_what_is_found_is_kept_while_the_run_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "payments.json"
    with closing(Health(file)):
        run = Run(file, monkeypatch)
        assert read_mode(file) is None
        run.minute(READS, share=0.2)
        found = read_mode(file)
        assert found is not None
        assert (found.pays, found.busy, found.events_per_s) == ("local", 0.2, 16.667)
        forget_mode(file)
        assert read_mode(file) is None
        run.minute(READS)
        assert read_mode(file) is not None
    assert read_mode(file) is None


def test_only_what_changes_is_logged_and_not_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "payments.json", monkeypatch)
    run.minute(READS, share=0.2)
    assert run.said == [], "the mode it has"
    for _ in range(3):
        run.minute(READS)
    assert len(run.said) == 1
    assert run.said[0].startswith("execution: cluster pays at this load: batches fill 100% of the time")
    run.minute(READS, share=0.2)
    assert len(run.said) == 1, "within ten minutes"
    for _ in range(10):
        run.minute(READS, share=0.2)
    assert [each.split()[1] for each in run.said] == ["cluster", "local"]
