"""The stages a version of a spec goes through, as a pure fold over what the registry has recorded.

sandbox → shadow → canary → active → retired: `promote` moves a version one stage along, at most one version
stands in each of shadow, canary and active. `rollback` withdraws the version that was promoted last: it goes
back to the sandbox, so that it decides nothing more, and the version it had replaced is active again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from schemas.documents import parse_json
from schemas.errors import ConfigurationError, ConflictError, nearest
from schemas.loading import parse_document
from schemas.spec import AgentSpec

Stage = Literal["sandbox", "shadow", "canary", "active", "retired"]
Event = Literal["added", "promoted", "replaced", "rolled_back", "restored", "replayed", "prompt_evaluated"]

NEXT: Mapping[Stage, Stage] = {"sandbox": "shadow", "shadow": "canary", "canary": "active"}
PERCENT = "percent"
_MOVES = frozenset({"added", "promoted", "replaced", "rolled_back", "restored"})


@dataclass(frozen=True)
class Entry:
    """One row of the registry.

    Attributes:
        action: number of the command that wrote it, ascending; one may write several rows.
        version: of the spec that it is about.
        digest: of that spec; of a prompt evaluation, the prompt's.
        stage: where the version stands from now on, None for evidence.
        spec: the whole spec as JSON, None for evidence.
        evidence: what the decision rests on, or what was found.
    """

    action: int
    at: datetime
    event: Event
    name: str
    version: str
    digest: str
    stage: Stage | None
    spec: str | None
    who: str
    why: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VersionStage:
    """Where a version stands, and since when.

    Attributes:
        percent: of primary entities that it decides in canary, None for what the active spec says.
    """

    version: str
    digest: str
    stage: Stage
    spec: AgentSpec
    since: datetime
    who: str
    why: str
    percent: float | None = None


@dataclass(frozen=True)
class Move:
    """A version and the stage it goes to."""

    event: Event
    staged: VersionStage
    stage: Stage


def staged_versions(entries: Iterable[Entry]) -> dict[str, VersionStage]:
    """Return where each version stands, by version, in the order in which they were added."""
    found: dict[str, VersionStage] = {}
    for each in sorted(entries, key=lambda entry: entry.action):
        if each.event in _MOVES and each.stage is not None and each.spec is not None:
            where = f"version {each.version} in the registry"
            spec = parse_document(parse_json(each.spec, where=where), AgentSpec, where=where)
            found[each.version] = VersionStage(
                each.version, each.digest, each.stage, spec, each.at, each.who, each.why, _percent_of(each)
            )
    return found


def _percent_of(entry: Entry) -> float | None:
    given = entry.evidence.get(PERCENT)
    return given if entry.stage == "canary" and isinstance(given, int | float) else None


def version_in(stage: Stage, found: Mapping[str, VersionStage]) -> VersionStage | None:
    """Return the version in a stage that holds one at most, None when there is none."""
    return next((each for each in found.values() if each.stage == stage), None)


def wanted(version: str, found: Mapping[str, VersionStage], to: Stage | None = None) -> VersionStage:
    """Return a version that can be promoted, or stands at the stage it is to reach.

    Raises:
        ConfigurationError: there is none of this name, or it is active or retired.
    """
    if version not in found:
        raise ConfigurationError(f"no version {version!r} in the registry; {nearest(version, found)}")
    staged = found[version]
    if staged.stage not in NEXT and staged.stage != to:
        problem = "is active already" if staged.stage == "active" else "is retired: add it as a new version"
        raise ConfigurationError(f"version {version} {problem}")
    return staged


def steps_to(stage: Stage, staged: VersionStage) -> int:
    """Return how many promotions lead a version to a stage, 0 where it stands there already.

    Raises:
        ConfigurationError: it is past that stage.
    """
    order: list[Stage] = ["sandbox", *NEXT.values()]
    if staged.stage not in order or order.index(staged.stage) > order.index(stage):
        raise ConfigurationError(f"version {staged.version} is {staged.stage}, past {stage}", where="--to")
    return order.index(stage) - order.index(staged.stage)


def check_next(staged: VersionStage, to: Stage) -> None:
    """Check that a version is one stage before the one that somebody means, who may have read of another.

    Raises:
        ConflictError: it is not.
    """
    if NEXT.get(staged.stage) != to:
        raise ConflictError(f"version {staged.version} is in stage {staged.stage}, which is not before {to}")


def check_withdrawn(entries: Sequence[Entry], version: str, stage: Stage) -> None:
    """Check that a rollback withdraws the version that somebody means, from the stage where they saw it.

    Raises:
        ConflictError: it does not.
    """
    last = withdrawal(entries)[0].staged if may_be_withdrawn(entries) else None
    if last is None or (last.version, last.stage) != (version, stage):
        now = "nothing" if last is None else f"version {last.version} from {last.stage}"
        raise ConflictError(f"a rollback would withdraw {now}, not version {version} from {stage}")


def promotion(staged: VersionStage, found: Mapping[str, VersionStage]) -> list[Move]:
    """Return the moves by which a version goes one stage along; who becomes active replaces who was."""
    stage = NEXT[staged.stage]
    moves = [Move("promoted", staged, stage)]
    before = version_in("active", found)
    if stage == "active" and before is not None:
        moves.append(Move("replaced", before, "retired"))
    return moves


def withdrawal(entries: Sequence[Entry]) -> list[Move]:
    """Return the moves by which the version promoted last is withdrawn.

    Raises:
        ConfigurationError: no promotion stands.
    """
    found = staged_versions(entries)
    for each in sorted(entries, key=lambda entry: -entry.action):
        if each.event == "promoted" and found[each.version].stage == each.stage:
            moves = [Move("rolled_back", found[each.version], "sandbox")]
            replaced = _replaced_by(each, entries)
            return moves if replaced is None else [*moves, Move("restored", found[replaced], "active")]
    raise ConfigurationError("no promotion stands that could be rolled back")


def may_be_withdrawn(entries: Sequence[Entry]) -> bool:
    """Whether a promotion stands that could be rolled back."""
    found = staged_versions(entries)
    return any(each.event == "promoted" and found[each.version].stage == each.stage for each in entries)


def _replaced_by(promoted: Entry, entries: Iterable[Entry]) -> str | None:
    rows = (each for each in entries if each.action == promoted.action and each.event == "replaced")
    return next((each.version for each in rows), None)
