"""Endpoints about the versions of a spec: where each stands, promotion and rollback."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import NotFoundError, nearest
from streaming.serve.calls import Call, needs
from streaming.versions.moving import PromotionOptions, moved, promoted_to
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.stages import Stage, VersionStage

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


class VersionDetail(VersionRow):
    """A version with its spec."""

    spec: dict[str, Any]


class PromotionOrder(BaseModel):
    """How far a version is to go."""

    model_config = ConfigDict(extra="forbid")

    why: Why
    to: Stage | None = Field(default=None, description="stage by stage up to this one; the next if absent")
    percent: float | None = Field(default=None, gt=0, le=100, description="that it decides in canary")
    endpoint_change: Why | None = Field(
        default=None, description="why another policy, model, endpoint or key is meant; needs `admin`"
    )


class RollbackOrder(BaseModel):
    """Why the version promoted last is withdrawn."""

    model_config = ConfigDict(extra="forbid")

    why: Why


class Moved(BaseModel):
    """Which versions went to which stage."""

    moved: dict[str, str]


@registry_router.get("")
def list_versions(call: Reading) -> list[VersionRow]:
    """List the versions of the agent's spec, and where each stands."""
    return [VersionRow(**_plain(each)) for each in _registry(call).staged_versions().values()]


@registry_router.post("/rollback")
def roll_back(call: Operating, order: RollbackOrder) -> Moved:
    """Withdraw the version promoted last; the one it replaced decides again from the next batch on."""
    entries = _registry(call).rollback(Author(call.who, order.why))
    call.rows = len(entries)
    return Moved(moved={name: str(stage) for name, stage in moved(entries).items()})


@registry_router.get("/{version}")
def show_version(call: Reading, version: Version) -> VersionDetail:
    """Show a version with its spec."""
    found = _known(call, version)
    return VersionDetail(**_plain(found), spec=found.spec.model_dump(mode="json"))


@registry_router.post("/{version}/promote")
def promote_version(call: Operating, version: Version, order: PromotionOrder) -> Moved:
    """Move a version along: sandbox, shadow, canary, active. 409 with the reasons where a gate is closed."""
    _known(call, version)
    if order.endpoint_change is not None:
        call.check("admin")
    options = PromotionOptions(order.to, order.percent, order.endpoint_change)
    entries = promoted_to(_registry(call), version, Author(call.who, order.why), options)
    call.rows = len(entries)
    return Moved(moved={name: str(stage) for name, stage in moved(entries).items()})


def _registry(call: Call) -> SpecRegistry:
    return SpecRegistry(call.agent.placed)


def _known(call: Call, version: str) -> VersionStage:
    found = _registry(call).staged_versions()
    if version not in found:
        raise NotFoundError(f"no such version is registered; {nearest(version, found)}", where="version")
    return found[version]


def _plain(found: VersionStage) -> dict[str, Any]:
    names = ("version", "stage", "digest", "since", "who", "why", "percent")
    return {name: getattr(found, name) for name in names}
