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
from streaming.delta.erasure_plan import Erasable, PlanFile
from streaming.delta.lake_reader import LakeReader
from streaming.erasure.erasing import Erasure
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
    again = json.loads(run(lived, "--entity", "customer=c7", "--dry-run", "--json"))
    assert (again["rows"], again["unknown"]) == ({}, ["customer=c7"])


def test_it_says_what_was_done(lived: tuple[Path, Path, AgentSpec]) -> None:
    said = run(lived, "--entity", "customer=c8", "--entity", "terminal=m3")
    assert "were changed" in said
    assert said.count("erased-") == 2
    told = " ".join(said.split())
    assert "of the id of the customer stands erased-" in told
    assert "of the id of the terminal stands erased-" in told
    assert "No stored transaction" not in told
    assert max(map(len, said.splitlines())) <= 80


def test_whoever_is_nowhere_is_named_and_has_no_token(lived: tuple[Path, Path, AgentSpec]) -> None:
    for dry_run in (["--dry-run"], []):
        said = run(lived, "--entity", "customer=c10", "--entity", "customer=c010", *dry_run)
        assert "No stored transaction names customer=c010: is it spelt as it stands there?" in " ".join(
            said.split()
        )
        assert "names customer=c10:" not in said
        assert said.count("erased-") == (0 if dry_run else 1)


@pytest.mark.parametrize(
    ("named", "why"),
    [("c123", "c123 asked for it"), ("c123", "by letter (C123)"), ("c9", "letter of customer c9")],
)
def test_a_reason_that_names_somebody_is_refused_before_anything_is_begun(
    lived: tuple[Path, Path, AgentSpec], named: str, why: str
) -> None:
    home, _, spec = lived
    agent = PlacedAgent(Settings.load(home, {}), spec)
    with pytest.raises(ConfigurationError, match="say why without the id"):
        Erasure(agent).run([Erasable("customer", named)], "anna", why)
    assert PlanFile(agent.lake).read() is None


def test_a_policy_that_does_not_name_it_denies_it(
    lived: tuple[Path, Path, AgentSpec], tmp_path: Path
) -> None:
    home, _, _ = lived
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec_of().model_dump(mode="json")))
    with pytest.raises(ConfigurationError, match="does not allow erasures: it comes with flagstream, so"):
        run((home, file, spec_of()), "--entity", "customer=c9")
    own = tmp_path / "policy.json"
    own.write_text(json.dumps({"policyName": "strict"}))
    file.write_text(yaml.safe_dump(spec_of(own).model_dump(mode="json")))
    with pytest.raises(ConfigurationError, match="let its owner add `erasure: true` to it"):
        run((home, file, spec_of()), "--entity", "customer=c9")
    file.write_text(yaml.safe_dump(spec_of().model_dump(mode="json")))
    assert run((home, file, spec_of()), "--entity", "customer=c9", "--dry-run")


def test_the_digest_of_a_policy_that_does_not_use_it_stays() -> None:
    assert "erasure" not in Policy(policyName="p").model_dump()


@pytest.mark.parametrize("given", [[], ["customer"], ["=c42"], ["customer="], ["customer=c1", "customer=c1"]])
def test_what_is_no_entity_is_refused(given: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="expected entity=id"):
        wanted_of(given)


def test_an_id_may_hold_an_equals_sign() -> None:
    assert wanted_of(["customer=a=b"]) == [Erasable("customer", "a=b")]
