"""A model that takes 40 seconds for an answer: every group is asked about once, and every answer counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from streaming.testing import scripted_llm as scripted
from tests.late_samples import GROUPS, asked_about, triage, working

SECONDS = 40.0


@pytest.mark.timeout(600)
def test_every_group_is_asked_about_once_and_answered(tmp_path: Path) -> None:
    with (
        scripted.scripted_llm(default=scripted.slow(SECONDS)) as server,
        triage(server, seconds=10.0) as asking,
        working(tmp_path, asking, seconds=10 * SECONDS) as late,
    ):
        late.alert(30)
        late.answers.start()
        late.wait(lambda: len(late.revised) == 30)
        assert len(server.requests) == late.answers.totals.calls == GROUPS
        assert set(asked_about(server).values()) == {1}
