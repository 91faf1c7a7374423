"""Moments are taken as flagstream writes them, and a contract of one's own is judged under a spec."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streaming.cli.root import app

MOMENTS = [
    "2026-05-07",
    "2026-05-07T09:00:00",
    "2026-05-07T09:00:00Z",
    "2026-05-07T09:00:00.250000Z",
    "2026-05-07T09:00:00+00:00",
    "2026-05-07 09:00:00",
    "2026-05-07 09:00:00Z",
    "2026-05-07 09:00:00.250000+00:00",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_moments_are_taken_as_log_and_tables_write_them(moment: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["replay", "--home", str(tmp_path), "--from-time", moment])
    assert "nothing was decided yet" in str(done.exception), done.output
    assert "--home" in str(done.exception)


def test_a_contract_of_one_s_own_is_judged_under_a_spec_that_is_named(tmp_path: Path) -> None:
    contract = str(tmp_path / "contract.yaml")
    done = CliRunner().invoke(
        app, ["evaluate", "p.csv", "--contract", contract, "--test-start", "2026-11-05"]
    )
    assert "name yours by --spec" in str(done.exception), done.output
