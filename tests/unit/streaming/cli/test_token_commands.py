"""`flagstream token`: a token is printed once, found by its id, and ended everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake.exceptions import DeltaError
from typer.testing import CliRunner

from schemas.errors import ConfigurationError, NotFoundError, StoreError
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.cli.root import app
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.known_tokens import AgentTokens, KnownTokens
from streaming.testing.live_lake import agent
from streaming.tokens.bearer import digest_of
from streaming.tokens.token_table import Token, TokenTable


@pytest.fixture
def specs(tmp_path: Path) -> list[str]:
    paths = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(agent(name=name).model_dump(mode="json")))
        paths.append(str(path))
    return paths


def token(home: Path, *words: str) -> Any:
    result = CliRunner().invoke(app, ["token", *words, "--home", str(home), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_from_its_making_to_its_end(tmp_path: Path, specs: list[str]) -> None:
    home = tmp_path / "home"
    both = ["--spec", specs[0], "--spec", specs[1]]
    made = token(home, "create", *both, "--name", "night-shift", "--scope", "triage", "--life", "12h")
    text = made["bearer"]
    settings = Settings.load(home, {})
    tables = [AgentTokens(PlacedAgent(settings, agent(name=name))) for name in ("one", "two")]
    known = KnownTokens(tables)
    found = known.read_for(text)
    assert found is not None
    assert found.agents == ("one", "two")

    listed = token(home, "list", *both)
    assert [(row["agent"], row["token"], row["scopes"]) for row in listed] == [
        ("one", made["token"], ["triage"]),
        ("two", made["token"], ["triage"]),
    ]
    assert text not in json.dumps(listed)
    assert digest_of(text) not in json.dumps(listed)

    later = token(home, "rotate", made["token"], *both, "--overlap", "0s")
    for each in tables:
        each.refresh()
    assert known.principal(text) is None
    assert known.principal(later["bearer"]) is not None
    token(home, "revoke", later["token"], "--spec", specs[1])
    tables[1].refresh()
    left = known.principal(later["bearer"])
    assert left is not None
    assert left.agents == ("one",)
    with pytest.raises(NotFoundError, match=later["token"]):
        token(home, "revoke", later["token"], "--spec", specs[1])


def told(home: Path, name: str) -> list[str]:
    places = AuditPlaces(PlacedAgent(Settings.load(home, {}), agent(name=name)))
    return [row["subject"] for row in newest_events(places, "action", 9)]


def test_of_a_token_that_one_agent_refuses_no_other_keeps_anything(tmp_path: Path, specs: list[str]) -> None:
    home = tmp_path / "home"
    order = ["--name", "night-shift", "--scope", "read"]
    token(home, "create", "--spec", specs[1], *order)
    with pytest.raises(ConfigurationError, match="is good as yet"):
        token(home, "create", "--spec", specs[0], "--spec", specs[1], *order)
    assert token(home, "list", "--spec", specs[0]) == []
    assert token(home, "create", "--spec", specs[0], *order)["name"] == "night-shift"


def test_what_was_done_is_told_of_those_agents_alone_that_it_was_done_for(
    tmp_path: Path, specs: list[str]
) -> None:
    home, both = tmp_path / "home", ["--spec", specs[0], "--spec", specs[1]]
    made = token(home, "create", "--spec", specs[1], "--name", "anna", "--scope", "read")
    later = token(home, "rotate", made["token"], *both)
    token(home, "revoke", later["token"], *both)
    assert sorted(told(home, "two")) == ["token-create", "token-revoke", "token-rotate"]
    with pytest.raises(ConfigurationError, match="nothing was recorded"):
        told(home, "one")


@pytest.mark.parametrize("fault", [StoreError("away"), OSError("away"), DeltaError("away")])
@pytest.mark.parametrize("away", ["one", "two"])
@pytest.mark.parametrize("command", ["create", "rotate", "revoke"])
def test_a_step_is_taken_and_told_wherever_that_can_be_done_and_a_token_that_was_kept_is_shown(
    tmp_path: Path,
    specs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    away: str,
    fault: Exception,
) -> None:
    home, both = tmp_path / "home", ["--spec", specs[0], "--spec", specs[1]]
    order = ["--name", "anna", "--scope", "read"]
    made = None if command == "create" else token(home, "create", *both, *order)
    words = order if made is None else [made["token"]]
    write = TokenTable._write

    def fails(self: TokenTable, decide: Any) -> list[Token]:
        if away in str(self._table.place).split("/"):
            raise fault
        return write(self, decide)

    monkeypatch.setattr(TokenTable, "_write", fails)
    result = CliRunner().invoke(app, ["token", command, *words, *both, "--home", str(home), "--json"])
    assert "away" in f"{result.exception}{result.output}"
    assert result.exit_code != 0
    shown = json.loads(result.stdout)
    done, left = agents_of(home, shown.get("bearer")), agents_of(home, made and made["bearer"])
    other = "two" if away == "one" else "one"
    assert done == (() if command == "revoke" else (other,))
    assert left == {"create": (), "rotate": ("one", "two"), "revoke": (away,)}[command]
    assert f"token-{command}" in told(home, other)
    assert command == "create" or f"token-{command}" not in told(home, away)


def agents_of(home: Path, text: str | None) -> tuple[str, ...]:
    """The agents that a token is good for."""
    settings = Settings.load(home, {})
    known = KnownTokens([AgentTokens(PlacedAgent(settings, agent(name=name))) for name in ("one", "two")])
    found = None if text is None else known.read_for(text)
    return () if found is None else found.agents


def test_a_token_is_shown_to_people_once_with_what_to_do(tmp_path: Path, specs: list[str]) -> None:
    words = ["--home", str(tmp_path / "h"), "--spec", specs[0]]
    made = ["token", "create", *words, "--name", "anna", "--scope", "read", "--life", "never"]
    result = CliRunner().invoke(app, made)
    assert result.exit_code == 0
    assert "fst_" in result.stdout
    assert "shown this once" in result.stderr
    lake = str(Settings.load(tmp_path / "h", {}).lake("one"))
    assert f"There was no lake of one yet: {lake} was begun." in result.stderr
    later = CliRunner().invoke(app, ["token", "create", *words, "--name", "bert", "--scope", "read"])
    assert f"It was kept in the lake {lake}." in later.stderr
    assert "There was no lake" not in later.stderr
    again = CliRunner().invoke(app, ["token", "list", *words])
    assert "fst_" not in again.output
    assert "anna" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "--name", "4111 1111 1111 1111", "--scope", "read"], "--name"),
        (["create", "--name", "anna", "--scope", "read", "--life", "soon"], "--life"),
        (["create", "--name", "anna", "--scope", "reed"], "did you mean 'read'"),
        (["rotate", "3f9a01c2d4e5", "--overlap", "later"], "--overlap"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, words: list[str], said: str, specs: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=said):
        token(tmp_path / "home", *words, "--spec", specs[0])


def test_two_specs_of_one_agent_are_a_mistake(tmp_path: Path, specs: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="'one'"):
        token(tmp_path / "home", "list", "--spec", specs[0], "--spec", specs[0])
