"""`flagstream erase`: what it takes, what it refuses, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from schemas.errors import ConfigurationError
from schemas.policy import Policy
from schemas.spec import AgentSpec
from streaming.cli.root import app
from streaming.commands.erase import wanted_of
from streaming.delta.erasure_plan import Erasable
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import build_lake, spec_of

WHY = ["--why", "asked for it by letter"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, AgentSpec]:
    """Return a home, a spec file whose policy allows erasures, and the spec."""
    folder = tmp_path_factory.mktemp("agent")
    policy = folder / "policy.json"
    policy.write_text(json.dumps({"policyName": "strict", "erasure": True}))
    spec = spec_of(policy)
    build_lake(PlacedAgent(Settings.load(folder / "home", {}), spec))
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    return folder / "home", file, spec


def run(lived: tuple[Path, Path, AgentSpec], *words: str) -> str:
    home, file, _ = lived
    found = CliRunner().invoke(app, ["erase", *words, *WHY, "--spec", str(file), "--home", str(home)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.output


def test_a_trial_then_the_erasure_then_nothing_is_left_to_do(lived: tuple[Path, Path, AgentSpec]) -> None:
    home, _, spec = lived
    customers = LakeReader(Settings.load(home, {}).lake("tester"), spec.tables)
    mine = customers.frame("transactions", ["customer"])["customer"].to_list().count("c7")
    counted = json.loads(run(lived, "--entity", "customer=c7", "--dry-run", "--json"))
    assert counted["dry_run"]
    assert counted["rows"]["transactions"] == mine > 0
    erased = json.loads(run(lived, "--entity", "customer=c7", "--json"))
    assert erased["rows"]["transactions"] == mine
    after = customers.anew().frame("transactions", ["customer"])["customer"].to_list()
    assert after.count(erased["tokens"][0]) == mine
    assert "c7" not in after
    assert json.loads(run(lived, "--entity", "customer=c7", "--dry-run", "--json"))["rows"] == {}


def test_it_says_what_was_done(lived: tuple[Path, Path, AgentSpec]) -> None:
    said = run(lived, "--entity", "customer=c8", "--entity", "terminal=m3")
    assert "were changed" in said
    assert said.count("erased-") == 2
    assert max(map(len, said.splitlines())) <= 80


def test_a_policy_that_does_not_name_it_denies_it(
    lived: tuple[Path, Path, AgentSpec], tmp_path: Path
) -> None:
    home, _, _ = lived
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec_of().model_dump(mode="json")))
    with pytest.raises(ConfigurationError, match="does not allow erasures"):
        run((home, file, spec_of()), "--entity", "customer=c9")
    assert run((home, file, spec_of()), "--entity", "customer=c9", "--dry-run")


def test_the_digest_of_a_policy_that_does_not_use_it_stays() -> None:
    assert "erasure" not in Policy(policyName="p").model_dump()


@pytest.mark.parametrize("given", [[], ["customer"], ["=c42"], ["customer="], ["customer=c1", "customer=c1"]])
def test_what_is_no_entity_is_refused(given: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="expected entity=id"):
        wanted_of(given)


def test_an_id_may_hold_an_equals_sign() -> None:
    assert wanted_of(["customer=a=b"]) == [Erasable("customer", "a=b")]
