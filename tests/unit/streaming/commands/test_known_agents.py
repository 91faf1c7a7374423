"""Who asks about an agent that is not there learns which are, and does not see an idle one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from schemas.errors import ConfigurationError
from streaming.cli.root import app
from streaming.commands.known_agents import check_known
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.health import Condition, Health
from streaming.store import object_folders
from streaming.testing.live_lake import agent

ASKED = ("status", "case list", "case show 1234", "cost", "quarantine list", "labels status", "audit verify")


def ask(home: Path, command: str) -> Any:
    return CliRunner().invoke(app, [*command.split(), "--home", str(home)])


@pytest.mark.parametrize("command", ASKED)
def test_the_agents_that_are_there_are_named(tmp_path: Path, command: str) -> None:
    for name in ("from-csv", "other"):
        (tmp_path / "lake" / name / "batches").mkdir(parents=True)
    refused = ask(tmp_path, command).exception
    assert isinstance(refused, ConfigurationError)
    assert str(refused) == "--spec: no agent card-fraud in this home; there are: from-csv, other"
    assert not (tmp_path / "lake" / "card-fraud").exists()


@pytest.mark.parametrize("command", [each for each in ASKED if not each.startswith("audit")])
def test_where_no_agent_ever_was_it_says_what_to_do(tmp_path: Path, command: str) -> None:
    refused = ask(tmp_path, command).exception
    assert isinstance(refused, ConfigurationError)
    assert refused.exit_code == 2
    assert "no agent has run in this home yet: `flagstream run` starts one; --home or" in str(refused)
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("there", [(), ("other",)])
def test_an_agent_that_waits_for_its_first_batch_is_known(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / "lake" / name).mkdir(parents=True)
    placed = PlacedAgent(Settings.load(tmp_path, {}), agent())
    with closing(Health(placed.settings.health("tester"))) as health:
        health.begins(Condition.BROKER_AWAY, "nobody answers")
        check_known(placed)


@pytest.mark.parametrize("there", [("tester",), ("other", "tester")])
def test_an_agent_that_is_there_is_known(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / "lake" / name).mkdir(parents=True)
    check_known(PlacedAgent(Settings.load(tmp_path, {}), agent()))


def test_an_agent_that_has_labels_alone_is_said_to_have_closed_nothing(tmp_path: Path) -> None:
    """Labels may come before the first run."""
    (tmp_path / "lake" / "card-fraud" / "labels").mkdir(parents=True)
    done = ask(tmp_path, "status")
    assert done.exit_code == 0
    assert "never; `flagstream run` starts the agent" in " ".join(done.stdout.split())


def test_the_agents_of_a_store_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    for number in range(12):
        store.put(f"payments/lake/a{number:02}/batches/0.json", b"{}")
    monkeypatch.setattr(object_folders, "client_of", lambda _: store)
    settings = Settings.load(tmp_path, {"FLAGSTREAM_STORE": "s3://lake/payments"})
    named = ", ".join(f"a{number:02}" for number in range(10))
    with pytest.raises(ConfigurationError, match=f"no agent tester in this store; there are: {named}, …"):
        check_known(PlacedAgent(settings, agent()))
    store.put("payments/lake/tester/batches/0.json", b"{}")
    check_known(PlacedAgent(settings, agent()))
