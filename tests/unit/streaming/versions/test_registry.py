"""The registry of spec versions on a real lake, by the command line: evidence, gates, audit, rollback."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.audit.audit_reading import newest_events
from streaming.cli.root import main
from streaming.commands.run import _compare_with_registry
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import build_lake, spec_of
from streaming.versions.moving import complete
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.registry_table import RegistryTable, registry_place
from streaming.versions.registry_watch import RegistryWatch
from streaming.versions.stages import Entry
from tests.unit.plan_samples import policy
from tests.unit.streaming.audit.test_audit_log import CrashError

ASKED = {"maturity": "0s", "least_labels": 2}
ANNA = Author("anna", "a try")


class Shell:
    """Calls the command line in this process, on specs by version."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self._monkeypatch, self._capsys, self._folder = monkeypatch, capsys, folder
        self.settings = Settings.load(folder / "home", {})
        self.errors = ""

    def file(self, version: str, **changes: Any) -> Path:
        path = self._folder / f"{version}.yaml"
        spec = spec_of(**{"promotion": ASKED, "version": version, **changes})
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
        return path

    def __call__(self, *arguments: object) -> tuple[int, str]:
        given = [*map(str, arguments), "--home", str(self.settings.home), "--json"]
        self._monkeypatch.setattr(sys, "argv", ["flagstream", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        self.errors = printed.err
        return int(ended.value.code or 0), printed.out

    def stages(self) -> dict[str, str]:
        _, printed = self("registry", "list", "--spec", self.file("1.0.0"))
        return {each["version"]: each["stage"] for each in json.loads(printed)}


@pytest.fixture
def flagstream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def complete_of(**changes: Any) -> AgentSpec:
    return complete(spec_of(promotion=ASKED, **changes))


def changes_told(shell: Shell) -> list[dict[str, Any]]:
    places = AuditPlaces(PlacedAgent(shell.settings, spec_of()))
    assert check_audit(places).sound
    return [row["detail"] for row in newest_events(places, "configuration_change", 100)]


def test_from_the_sandbox_to_active_and_back_again(flagstream: Shell) -> None:
    build_lake(PlacedAgent(flagstream.settings, spec_of()))
    first, second = flagstream.file("1.0.0"), flagstream.file("1.1.0", threshold=0.9995)
    assert flagstream("what-if", second, "--spec", first)[0] == 0
    assert "not kept as evidence" in flagstream.errors
    assert json.loads(flagstream("registry", "add", first)[1])["stage"] == "active"
    assert json.loads(flagstream("registry", "add", second)[1])["stage"] == "sandbox"

    code, printed = flagstream("promote", "1.1.0", "--spec", first, "--why", "looks good")
    assert (code, printed) == (1, "")
    assert "replay: no report of version 1.1.0" in flagstream.errors
    assert "from before the agent had a registry does not count" in flagstream.errors
    assert flagstream.stages() == {"1.0.0": "active", "1.1.0": "sandbox"}

    assert flagstream("what-if", second, "--spec", first)[0] == 0
    for stage in ("shadow", "canary", "active"):
        code, printed = flagstream(
            "promote", "1.1.0", "--spec", first, "--why", "looks good", "--who", "anna"
        )
        assert code == 0, flagstream.errors
        assert json.loads(printed)["1.1.0"] == stage
    assert flagstream.stages() == {"1.0.0": "retired", "1.1.0": "active"}

    assert flagstream("rollback", "--spec", first, "--why", "too many alerts", "--who", "bert")[0] == 0
    assert flagstream.stages() == {"1.0.0": "active", "1.1.0": "sandbox"}
    told = changes_told(flagstream)
    kept = [(each["change"], each["version"], each["stage"], each["who"], each["why"]) for each in told]
    assert ("promoted", "1.1.0", "active", "anna", "looks good") in kept
    assert ("replaced", "1.0.0", "retired", "anna", "looks good") in kept
    assert ("rolled_back", "1.1.0", "sandbox", "bert", "too many alerts") in kept
    assert ("restored", "1.0.0", "active", "bert", "too many alerts") in kept


def test_a_version_goes_up_to_a_stage_and_no_further_however_often_it_is_asked(flagstream: Shell) -> None:
    build_lake(PlacedAgent(flagstream.settings, spec_of()))
    first, second = flagstream.file("1.0.0"), flagstream.file("1.1.0", threshold=0.9995)
    for file in (first, second):
        flagstream("registry", "add", file)
    assert flagstream("rollback", "--if-any", "--spec", first, "--why", "a try")[0] == 0
    assert flagstream("rollback", "--spec", first, "--why", "a try")[0] == 2
    flagstream("what-if", second, "--spec", first)
    up = ("promote", "1.1.0", "--to", "canary", "--percent", "5", "--spec", first, "--why", "first a few")
    for _ in range(2):
        assert flagstream(*up)[0] == 0, flagstream.errors
        assert flagstream.stages() == {"1.0.0": "active", "1.1.0": "canary"}
    staged = SpecRegistry(PlacedAgent(flagstream.settings, spec_of())).staged_versions()
    assert staged["1.1.0"].percent == 5.0
    state = RegistryWatch(PlacedAgent(flagstream.settings, spec_of())).refresh()
    assert state.canary_percent == 5.0
    code, _ = flagstream("promote", "1.1.0", "--to", "shadow", "--spec", first, "--why", "back")
    assert (code, "is canary, past shadow" in flagstream.errors) == (2, True)
    for _ in range(2):
        assert flagstream("promote", "1.1.0", "--to", "active", "--spec", first, "--why", "good")[0] == 0
    assert flagstream.stages() == {"1.0.0": "retired", "1.1.0": "active"}
    assert flagstream("rollback", "--if-any", "--spec", first, "--why", "too many")[0] == 0
    assert flagstream.stages() == {"1.0.0": "active", "1.1.0": "sandbox"}


def test_a_spec_that_the_registry_does_not_have_in_force_is_told_when_it_is_run(
    flagstream: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = flagstream.file("1.0.0"), flagstream.file("1.1.0")
    _compare_with_registry(PlacedAgent(flagstream.settings, load_spec(first)))
    assert flagstream("registry", "add", first)[0] == 0
    _compare_with_registry(PlacedAgent(flagstream.settings, load_spec(first)))
    assert capsys.readouterr().err == ""
    _compare_with_registry(PlacedAgent(flagstream.settings, load_spec(second)))
    told = capsys.readouterr().err
    assert "warning spec_not_in_force: the registry has version 1.0.0 in force, and this file" in told


def test_too_few_labels_keep_the_gate_closed(flagstream: Shell) -> None:
    build_lake(PlacedAgent(flagstream.settings, spec_of()))
    first = flagstream.file("1.0.0", promotion={"maturity": "0s", "least_labels": 3})
    second = flagstream.file("1.1.0")
    for file in (first, second):
        flagstream("registry", "add", file)
    flagstream("what-if", second, "--spec", first)
    assert flagstream("promote", "1.1.0", "--spec", first, "--why", "looks good")[0] == 1
    assert "precision: 2 alerts of one side with a matured label, 3 needed" in flagstream.errors


@pytest.mark.long
def test_labels_on_young_transactions_do_not_count(flagstream: Shell) -> None:
    build_lake(PlacedAgent(flagstream.settings, spec_of()))
    first = flagstream.file("1.0.0", promotion={"maturity": "36500d", "least_labels": 1})
    second = flagstream.file("1.1.0")
    for file in (first, second):
        flagstream("registry", "add", file)
    flagstream("what-if", second, "--spec", first)
    assert flagstream("promote", "1.1.0", "--spec", first, "--why", "looks good")[0] == 1
    assert "precision: 0 alerts" in flagstream.errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["promote", "1.0.1", "--why", "good"], "did you mean '1.0.0'"),
        (["promote", "1.0.0", "--why", "good"], "is active already"),
        (["promote", "1.0.0", "--why", "card 4111 1111 1111 1111"], "--why: expected a line"),
        (["promote", "1.0.0", "--why", "good", "--who", "a b"], "--who: expected a name"),
        (["rollback", "--why", "good"], "no promotion stands"),
    ],
)
def test_bad_input_changes_nothing(flagstream: Shell, arguments: list[str], told: str) -> None:
    first = flagstream.file("1.0.0")
    flagstream("registry", "add", first)
    assert flagstream(*arguments, "--spec", first) == (2, "")
    assert told in flagstream.errors
    assert flagstream.stages() == {"1.0.0": "active"}


def test_a_version_that_cannot_be_used_is_named_by_its_file(flagstream: Shell) -> None:
    rule = {"name": "dear", "when": "amuont > 1", "severity": "high", "reason": "x"}
    file = flagstream.file("1.0.0", rules=[rule])
    assert flagstream("registry", "add", file)[0] == 2
    line = 1 + file.read_text(encoding="utf-8").splitlines().index("  when: amuont > 1")
    assert f"{file}:{line}: rules.0.when: rule 'dear': unknown column 'amuont'" in flagstream.errors


def test_another_endpoint_is_promoted_by_consent_which_is_kept_and_audited(flagstream: Shell) -> None:
    build_lake(PlacedAgent(flagstream.settings, spec_of()))
    first = flagstream.file("1.0.0")
    laxer = flagstream.settings.home / "laxer.json"
    laxer.write_text(policy(allowedFields=["entities.customer"]).model_dump_json(), encoding="utf-8")
    second = flagstream.file("1.1.0", policy=str(laxer))
    for file in (first, second):
        flagstream("registry", "add", file)
    flagstream("what-if", second, "--spec", first)
    promote = ("promote", "1.1.0", "--spec", first, "--why", "good")
    assert flagstream(*promote)[0] == 1
    assert "endpoint: policy differ" in flagstream.errors
    assert flagstream(*promote, "--allow-endpoint-change", "card 4111 1111 1111 1111") == (2, "")
    assert flagstream(*promote, "--allow-endpoint-change", "agreed with the desk")[0] == 0
    (told,) = [each for each in changes_told(flagstream) if each["change"] == "promoted"]
    assert told["consent"] == "agreed with the desk"
    entries = SpecRegistry(PlacedAgent(flagstream.settings, spec_of())).entries()
    assert entries[-1].evidence["endpoint_change"] == "agreed with the desk"


def test_without_a_registry_there_is_nothing_to_promote(flagstream: Shell) -> None:
    first = flagstream.file("1.0.0")
    assert flagstream("promote", "1.0.0", "--spec", first, "--why", "good")[0] == 2
    assert "registry add" in flagstream.errors
    assert not flagstream.settings.lake("tester").path.exists()


def test_a_version_means_one_spec_for_ever(tmp_path: Path) -> None:
    registry = SpecRegistry(PlacedAgent(Settings.load(tmp_path, {}), spec_of()))
    assert [each.stage for each in registry.add(complete_of(), ANNA)] == ["active"]
    assert registry.add(complete_of(), ANNA) == []
    with pytest.raises(ConfigurationError, match="other contents"):
        registry.add(complete_of(threshold=0.9), ANNA)


def test_a_version_whose_endpoint_the_policy_does_not_admit_is_not_registered(flagstream: Shell) -> None:
    elsewhere = {"base_url": "https://10.1.2.3/v1", "model": "gpt-4o-mini"}
    file = flagstream.file("1.0.0", llm=elsewhere)
    assert flagstream("registry", "add", file)[0] == 2
    assert f"{file}: llm.base_url: the policy default does not admit it" in flagstream.errors
    assert not flagstream.settings.lake("tester").path.exists()


@pytest.mark.parametrize(
    "other", [{"alerts": {"topic": "elsewhere"}}, {"llm": {"mode": "inline"}}, {"tables": {"late": "later"}}]
)
def test_what_a_running_agent_cannot_change_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    registry = SpecRegistry(PlacedAgent(Settings.load(tmp_path, {}), spec_of()))
    registry.add(complete_of(llm={"provider": "none"}), ANNA)
    with pytest.raises(ConfigurationError, match="cannot change"):
        registry.add(complete_of(version="1.1.0", **other), ANNA)


def test_of_two_commands_at_once_the_second_decides_again(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    registry = SpecRegistry(PlacedAgent(settings, spec_of()))
    registry.add(complete_of(), ANNA)
    seen: list[int] = []

    def while_another_writes(before: Sequence[Entry]) -> list[Entry]:
        seen.append(len(before))
        if len(seen) == 1:
            registry.add(complete_of(version="1.1.0"), ANNA)
        return [replace(before[0], event="replayed", stage=None, spec=None)]

    RegistryTable(registry_place(PlacedAgent(settings, spec_of())), timedelta(days=30)).write(
        while_another_writes
    )
    assert seen == [1, 2]
    assert [each.action for each in registry.entries()] == [0, 1, 2]


def test_what_a_crash_kept_from_the_audit_log_the_next_command_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.load(tmp_path, {})
    registry = SpecRegistry(PlacedAgent(settings, spec_of()))
    with monkeypatch.context() as dying:
        dying.setattr(LakeAudit, "record", _dies)
        with pytest.raises(CrashError):
            registry.add(complete_of(), ANNA)
    registry.add(complete_of(version="1.1.0"), ANNA)
    told = newest_events(AuditPlaces(PlacedAgent(settings, spec_of())), "configuration_change", 10)
    assert sorted(row["detail"]["version"] for row in told) == ["1.0.0", "1.1.0"]


def _dies(*_: object) -> None:
    raise CrashError


def test_a_file_and_a_registered_version_have_digests_of_their_own_names(flagstream: Shell) -> None:
    file = flagstream.file("1.0.0")
    added = json.loads(flagstream("registry", "add", file)[1])
    listed = json.loads(flagstream("registry", "list", "--spec", file)[1])
    assert added["file_digest"] == load_spec(Path(file)).digest
    assert [each["digest"] for each in listed] == [added["digest"]]
