"""Endpoints about the versions of a spec: where each stands, promotion and rollback."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ConfigurationError, NotFoundError, nearest
from streaming.serve.calls import Call, needs
from streaming.serve.rule_figures import LEAST_JUDGED
from streaming.serve.spec_differences import SpecDifference, differences
from streaming.versions.moving import moved, prompt_digest
from streaming.versions.promotion_gates import GateState, gates
from streaming.versions.registry import Author, SpecRegistry, case_of
from streaming.versions.shadow_status import versions_beside
from streaming.versions.stages import (
    NEXT,
    Stage,
    VersionStage,
    may_be_withdrawn,
    staged_versions,
    withdrawal,
)

registry_router = APIRouter(prefix="/v1/versions", tags=["versions"])
Reading = Annotated[Call, needs("read")]
Operating = Annotated[Call, needs("operate")]
Version = Annotated[str, Path(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$", description="Such as 1.1.0.")]
Why = Annotated[str, Field(max_length=200, description="in a line of plain words, for the audit log")]


class VersionRow(BaseModel):
    """Where one version stands."""

    version: str
    stage: str
    digest: str
    since: datetime
    who: str
    why: str
    percent: float | None = Field(description="of primary entities, in canary")


class RegistryEntry(BaseModel):
    """What has happened to a version, or what was found of it."""

    at: datetime
    event: str = Field(
        description="added, promoted, replaced, rolled_back, restored, replayed or prompt_evaluated"
    )
    stage: str | None = Field(description="where the version stands from then on; null for evidence")
    who: str
    why: str
    evidence: dict[str, Any] = Field(description="what the decision rests on, or what was found")


class VersionDetail(VersionRow):
    """A version with its spec."""

    spec: dict[str, Any]
    differences: list[SpecDifference] = Field(description="to the version in force, which is `before`")
    history: list[RegistryEntry] = Field(description="oldest first")


class GateOfVersion(BaseModel):
    """A gate of a promotion."""

    name: str
    asks: str = Field(description="what it asks for")
    closed: str | None = Field(description="why it is closed; null where it is open")


class VersionGates(BaseModel):
    """What a version has to pass to go one stage along."""

    version: str
    stage: str
    next: str | None = Field(description="stage; null where it cannot go further")
    gates: list[GateOfVersion]
    replay: dict[str, Any] | None = Field(description="the newest report of a replay under it")


class SideOfVersion(BaseModel):
    """One version's alerts."""

    version: str
    stage: str
    alerts: int
    alerts_per_day: float = Field(
        description="in event time; of a share of the entities, what it comes to for all of them"
    )
    judged: int = Field(description="transactions with alerts and a label")
    precision: float | None = Field(description="share of frauds among them; null where fewer than 10")


class VersionBeside(BaseModel):
    """A version in shadow or canary beside what was published, over the batches that it has decided."""

    batches: int
    transactions: int
    published: SideOfVersion
    beside: SideOfVersion
    agreement: float | None = Field(
        description="share of the alerts of either side that both have; null without alerts and in canary"
    )
    percent: float | None = Field(description="of the entities that a canary decides; null in shadow")


class PromotionOrder(BaseModel):
    """How far a version is to go."""

    model_config = ConfigDict(extra="forbid")

    why: Why
    to: Stage | None = Field(
        default=None, description="the stage that is meant; 409 where another one is next by now"
    )
    percent: float | None = Field(default=None, gt=0, le=100, description="that it decides in canary")
    endpoint_change: Why | None = Field(
        default=None, description="why another policy, model, endpoint or key is meant; needs `admin`"
    )


class WithdrawnVersion(BaseModel):
    """A version promoted last, and the stage where it stands."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(max_length=20)
    stage: Stage


class RollbackOrder(BaseModel):
    """Why the version promoted last is withdrawn."""

    model_config = ConfigDict(extra="forbid")

    why: Why
    expect: WithdrawnVersion | None = Field(
        default=None, description="what is to be withdrawn, as `GET` says; 409 where that is another by now"
    )


class Moved(BaseModel):
    """Which versions went to which stage."""

    moved: dict[str, str] = Field(description="version → the stage where it stands then")


class RollbackPreview(Moved):
    """What a rollback would do."""

    withdraws: WithdrawnVersion | None = Field(description="null where no promotion stands")


@registry_router.get("")
def list_versions(call: Reading) -> list[VersionRow]:
    """List the versions of the agent's spec, and where each stands."""
    return [VersionRow(**_plain(each)) for each in _registry(call).staged_versions().values()]


@registry_router.get("/beside")
def list_beside(call: Reading) -> list[VersionBeside]:
    """Set the versions in shadow and canary beside what was published; none before they decide a batch."""
    placed = call.agent.placed
    found = [VersionBeside(**asdict(each)) for each in versions_beside(placed)]
    return [
        each.model_copy(update={"published": _judged(each.published), "beside": _judged(each.beside)})
        for each in found
    ]


@registry_router.get("/rollback")
def preview_rollback(call: Reading) -> RollbackPreview:
    """Say which versions would go to which stage by a rollback; none where no promotion stands."""
    entries = _registry(call).entries()
    moves = withdrawal(entries) if may_be_withdrawn(entries) else []
    last = moves[0].staged if moves else None
    return RollbackPreview(
        moved={each.staged.version: each.stage for each in moves},
        withdraws=None if last is None else WithdrawnVersion(version=last.version, stage=last.stage),
    )


@registry_router.post("/rollback")
def roll_back(call: Operating, order: RollbackOrder) -> Moved:
    """Withdraw the version promoted last; the one it replaced decides again from the next batch on."""
    meant = None if order.expect is None else (order.expect.version, order.expect.stage)
    entries = _registry(call).rollback(Author(call.who, order.why), meant)
    call.rows = len(entries)
    return Moved(moved={name: str(stage) for name, stage in moved(entries).items()})


@registry_router.get("/{version}")
def show_version(call: Reading, version: Version) -> VersionDetail:
    """Show a version with its spec."""
    found, before = _known(call, version), call.agent.in_force()
    history = [
        RegistryEntry(**{name: getattr(each, name) for name in RegistryEntry.model_fields})
        for each in _registry(call).entries()
        if each.version == version
    ]
    return VersionDetail(
        **_plain(found),
        spec=found.spec.model_dump(mode="json", by_alias=True),
        differences=differences(before, found.spec),
        history=history,
    )


@registry_router.get("/{version}/gates")
def show_gates(call: Reading, version: Version) -> VersionGates:
    """Show what a version has to pass to go one stage along, and why each gate is open or closed."""
    candidate, entries = _known(call, version), _registry(call).entries()
    following = NEXT.get(candidate.stage)
    if following is None:
        return VersionGates(version=version, stage=candidate.stage, next=None, gates=[], replay=None)
    digest, unusable = _prompt_of(candidate)
    case = case_of(candidate, staged_versions(entries), entries, digest)
    found = [*gates(case), *unusable]
    return VersionGates(
        version=version,
        stage=candidate.stage,
        next=following,
        gates=[GateOfVersion(**asdict(each)) for each in found],
        replay=None if case.replay is None else dict(case.replay),
    )


@registry_router.post("/{version}/promote")
def promote_version(call: Operating, version: Version, order: PromotionOrder) -> Moved:
    """Move a version one stage along: sandbox, shadow, canary, active.

    409 with the reasons (`problems`) where a gate is closed, and where it is another stage that is next.
    """
    _known(call, version)
    if order.endpoint_change is not None:
        call.check("admin")
    author = Author(call.who, order.why)
    entries = _registry(call).promote(
        version, author, prompt_digest, order.endpoint_change, order.percent, order.to
    )
    call.rows = len(entries)
    return Moved(moved={name: str(stage) for name, stage in moved(entries).items()})


def _judged(side: SideOfVersion) -> SideOfVersion:
    """Of few labels a share says nothing, here as in figures of rules."""
    return side if side.judged >= LEAST_JUDGED else side.model_copy(update={"precision": None})


def _registry(call: Call) -> SpecRegistry:
    return SpecRegistry(call.agent.placed)


def _known(call: Call, version: str) -> VersionStage:
    found = _registry(call).staged_versions()
    if version not in found:
        known = f"; {nearest(version, found)}" if found else ", nor any other"
        raise NotFoundError(f"no such version is registered{known}", where="version")
    return found[version]


def _prompt_of(candidate: VersionStage) -> tuple[str, list[GateState]]:
    """A version whose prompt cannot be read any more is shown all the same."""
    try:
        return prompt_digest(candidate.spec), []
    except ConfigurationError as fault:
        return "", [GateState("definition", "What the spec names can be read.", str(fault))]


def _plain(found: VersionStage) -> dict[str, Any]:
    names = ("version", "stage", "digest", "since", "who", "why", "percent")
    return {name: getattr(found, name) for name in names}
