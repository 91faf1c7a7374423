"""The stages of a spec's versions: one along at a time, and back in one step."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from schemas.errors import ConfigurationError
from streaming.versions.stages import Entry, Move, promotion, staged_versions, version_in, wanted, withdrawal
from tests.unit.scoring_samples import agent_spec

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def added(version: str, stage: str = "sandbox") -> Entry:
    spec = agent_spec(version=version)
    text = spec.model_dump_json()
    return Entry(0, NOW, "added", spec.name, version, spec.digest, stage, text, "anna", "new")  # type: ignore[arg-type]  # a stage


def after(entries: list[Entry], moves: list[Move]) -> list[Entry]:
    """The entries once moves were made."""
    action = len({each.action for each in entries})
    rows = [
        replace(added(each.staged.version, each.stage), action=action, event=each.event) for each in moves
    ]
    return [*entries, *rows]


def promoted(entries: list[Entry], version: str, times: int = 1) -> list[Entry]:
    for _ in range(times):
        found = staged_versions(entries)
        entries = after(entries, promotion(wanted(version, found), found))
    return entries


def stages(entries: list[Entry]) -> dict[str, str]:
    return {version: each.stage for version, each in staged_versions(entries).items()}


BEGUN = [added("1.0.0", "active"), replace(added("1.1.0"), action=1)]


def test_a_version_goes_one_stage_along_and_replaces_the_active_one_last() -> None:
    seen = [stages(promoted(BEGUN, "1.1.0", times)) for times in (1, 2, 3)]
    assert [each["1.1.0"] for each in seen] == ["shadow", "canary", "active"]
    assert [each["1.0.0"] for each in seen] == ["active", "active", "retired"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_rollback_takes_a_version_out_of_everything(times: int) -> None:
    entries = promoted(BEGUN, "1.1.0", times)
    assert stages(after(entries, withdrawal(entries))) == {"1.0.0": "active", "1.1.0": "sandbox"}


def test_a_rollback_puts_the_version_before_in_force_again_and_another_one_the_version_before_that() -> None:
    entries = promoted([*BEGUN, replace(added("1.2.0"), action=2)], "1.1.0", 3)
    entries = promoted(entries, "1.2.0", 3)
    seen = []
    for _ in range(2):
        entries = after(entries, withdrawal(entries))
        seen.append(stages(entries))
    assert seen[0] == {"1.0.0": "retired", "1.1.0": "active", "1.2.0": "sandbox"}
    assert seen[1] == {"1.0.0": "active", "1.1.0": "sandbox", "1.2.0": "sandbox"}
    with pytest.raises(ConfigurationError, match="no promotion stands"):
        withdrawal(entries)


def test_there_is_always_one_active_version() -> None:
    entries = promoted(BEGUN, "1.1.0", 3)
    for moment in (BEGUN, entries, after(entries, withdrawal(entries))):
        assert list(stages(moment).values()).count("active") == 1
        assert version_in("active", staged_versions(moment)) is not None


@pytest.mark.parametrize(
    ("version", "told"),
    [("1.1.1", "did you mean '1.1.0'"), ("1.1.0", "is active already"), ("1.0.0", "is retired")],
)
def test_what_cannot_be_promoted_is_told(version: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        wanted(version, staged_versions(promoted(BEGUN, "1.1.0", 3)))
