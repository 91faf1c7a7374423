"""Sending alerts again: what cannot be had is refused before a broker is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from streaming.commands.resend import send_alerts_again
from streaming.history.replay_runs import ReplaySpan
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent


def test_a_span_that_is_not_there_is_refused_before_a_broker_is_looked_for(tmp_path: Path) -> None:
    no_broker = Settings.load(tmp_path, {"FLAGSTREAM_KAFKA": "docker"})
    with pytest.raises(ConfigurationError, match="nothing was decided yet"):
        send_alerts_again(PlacedAgent(no_broker, agent()), ReplaySpan(), "again", as_json=False)
