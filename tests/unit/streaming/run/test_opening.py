"""What is checked of an agent's place before anything is claimed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import MachineError
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.testing.live_lake import agent
from streaming.versions.clients import Clients


@pytest.mark.parametrize("setting", ["FLAGSTREAM_HOME", "FLAGSTREAM_STORE"])
def test_a_place_that_cannot_be_used_is_refused_with_the_setting_that_names_it(
    tmp_path: Path, setting: str
) -> None:
    """By the path with a percent sign, which any machine refuses as it does a file system of the network."""
    unusable = str(tmp_path / "home%41")
    home, given = (unusable, {}) if setting == "FLAGSTREAM_HOME" else (tmp_path, {setting: unusable})
    settings = Settings.load(Path(home), given)
    with Clients(settings, "none") as clients, pytest.raises(MachineError, match=f"with .*{setting}"):
        open_agent(PlacedAgent(settings, agent()), "", clients).__enter__()
