"""The figures of `flagstream bench triage` hold what is promised of a burst."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from streaming.cli.root import app


@pytest.mark.long
def test_a_burst_costs_few_calls_and_the_same_day_again_none() -> None:
    told = CliRunner().invoke(app, ["bench", "triage", "--json"])
    assert told.exit_code == 0
    figures = json.loads(told.stdout)
    assert figures["patterns_per_batch"] >= 5
    assert figures["calls_per_1000_rows"] <= 60
    assert figures["answered_share"] >= 0.98
    assert figures["largest_request_tokens"] <= figures["context_tokens"]
    assert figures["requests_larger_than_estimated"] == 0
    assert figures["tokens_per_alert"] > 0
    assert (figures["second_run_calls"], figures["second_run_answered_share"]) == (0, 1.0)
