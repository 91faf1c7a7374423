"""What is done to the registry of spec versions: add, promote, roll back, keep evidence; all of it audited.

The audit log keeps how far the registry is recorded, so the next command records what a crash left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.audit.events import AuditEvent, is_name, is_short_sentence
from schemas.contract import load_contract
from schemas.errors import ConfigurationError, FlagstreamError
from schemas.instants import Clock, utc_now
from schemas.spec import AgentSpec, TransactionSource
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.home.placed_agent import PlacedAgent
from streaming.versions.promotion_gates import PromotionCase, closed_gates
from streaming.versions.registry_table import RegistryTable, read_entries, registry_place
from streaming.versions.stages import (
    NEXT,
    PERCENT,
    Entry,
    Event,
    Move,
    Stage,
    VersionStage,
    check_next,
    check_withdrawn,
    promotion,
    staged_versions,
    version_in,
    wanted,
    withdrawal,
)

_FIXED = ("name", "data_sources", "tables", "alerts", "replay_horizon")
_CONSENT = "endpoint_change"
_FIXED_LLM = ("mode", "patience", "max_concurrency", "max_output_tokens")


class ClosedGateError(FlagstreamError):
    """A version may not be promoted; `reasons` says why."""

    def __init__(self, version: str, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"version {version} is not promoted: {'; '.join(reasons)}")


@dataclass(frozen=True)
class Author:
    """Who changes the registry, and why, both in words that the audit log may hold.

    Raises:
        ConfigurationError: they are not.
    """

    who: str
    why: str

    def __post_init__(self) -> None:
        """Check the words."""
        if not is_name(self.who):
            raise ConfigurationError("expected a name such as anna.schmidt", where="--who")
        check_reason(self.why, "--why")


def check_reason(text: str, option: str) -> None:
    """Check that a reason is in words that the audit log may hold.

    Raises:
        ConfigurationError: it is not; names the option.
    """
    if not is_short_sentence(text):
        raise ConfigurationError(
            "expected a line of at most 200 plain characters, without long numbers or keys", where=option
        )


class SpecRegistry:
    """The versions of an agent's spec, the stage of each, and the evidence for promotions.

    Args:
        agent: whose versions they are.
        clock: current time, timezone-aware.
    """

    def __init__(self, agent: PlacedAgent, clock: Clock = utc_now) -> None:
        self._place, self._clock = registry_place(agent), clock
        self._agent = agent

    def entries(self) -> list[Entry]:
        """Return all that is on record, oldest first; nothing where there is no registry."""
        return read_entries(self._place)

    def staged_versions(self) -> dict[str, VersionStage]:
        """Return where each version stands, by version."""
        return staged_versions(self.entries())

    def add(self, spec: AgentSpec, author: Author) -> list[Entry]:
        """Register a complete spec in the sandbox; an agent's first one is active, as nothing is before it.

        The same spec once more changes nothing.

        Raises:
            ConfigurationError: the version is taken by another spec, or differs in what cannot be replaced.
        """
        return self._write(lambda before: self._added(spec, author, before))

    def promote(
        self,
        version: str,
        author: Author,
        prompt_digest: Callable[[AgentSpec], str],
        endpoint_change: str | None = None,
        percent: float | None = None,
        to: Stage | None = None,
    ) -> list[Entry]:
        """Move a version one stage along and return what changed.

        Args:
            prompt_digest: tells the digest of a spec's prompt as it is now.
            endpoint_change: why another policy, model, endpoint or key is meant, None if it is not.
            percent: of primary entities that it decides in canary, None for what the active spec says.
            to: the stage that is meant, None for whichever is next.

        Raises:
            ClosedGateError: the evidence does not suffice.
            ConflictError: another stage is next than the one that is meant.
            ConfigurationError: no such version, or it cannot go further.
        """
        self._check_begun()
        if endpoint_change is not None:
            check_reason(endpoint_change, "--allow-endpoint-change")

        def decide(before: Sequence[Entry]) -> list[Entry]:
            found = staged_versions(before)
            if to is not None and version in found:
                check_next(found[version], to)
            candidate = wanted(version, found)
            case = case_of(candidate, found, before, prompt_digest(candidate.spec), endpoint_change)
            reasons = closed_gates(case)
            if reasons:
                raise ClosedGateError(version, reasons)
            moves = promotion(candidate, found)
            given = {_CONSENT: endpoint_change, PERCENT: percent if moves[0].stage == "canary" else None}
            more = {name: each for name, each in given.items() if each is not None}
            return [self._moved(each, author, {"replay": case.replay, **more}) for each in moves]

        return self._write(decide)

    def rollback(self, author: Author, meant: tuple[str, Stage] | None = None) -> list[Entry]:
        """Withdraw the version promoted last and return what changed.

        Args:
            meant: the version to withdraw, and the stage where it stands; None for whichever is the last.

        Raises:
            ConfigurationError: no promotion stands.
            ConflictError: it would withdraw another one than is meant.
        """
        self._check_begun()

        def decide(before: Sequence[Entry]) -> list[Entry]:
            if meant is not None:
                check_withdrawn(before, *meant)
            return [self._moved(each, author, {}) for each in withdrawal(before)]

        return self._write(decide)

    def note(self, event: Event, version: str, digest: str, who: str, evidence: Mapping[str, Any]) -> bool:
        """Keep what a command has found, for the gates; False where there is no registry to keep it in."""
        if not self.entries():
            return False
        author = Author(who, "evidence")
        self._write(lambda _: [self._entry(event, version, digest, author, evidence)])
        return True

    def _added(self, spec: AgentSpec, author: Author, before: Sequence[Entry]) -> list[Entry]:
        found = staged_versions(before)
        known, active = found.get(spec.version), version_in("active", found)
        if known is not None and known.digest == spec.digest:
            return []
        if known is not None:
            raise ConfigurationError(
                f"version {spec.version} is registered with other contents; give it a new version",
                key="version",
            )
        if active is not None:
            check_replaceable(active.spec, spec)
        entry = self._entry("added", spec.version, spec.digest, author, {})
        return [replace(entry, stage="sandbox" if active else "active", spec=spec.model_dump_json())]

    def _moved(self, move: Move, author: Author, evidence: Mapping[str, Any]) -> Entry:
        staged = move.staged
        entry = self._entry(move.event, staged.version, staged.digest, author, evidence)
        return replace(entry, stage=move.stage, spec=staged.spec.model_dump_json())

    def _entry(
        self, event: Event, version: str, digest: str, author: Author, evidence: Mapping[str, Any]
    ) -> Entry:
        now, name = self._clock(), self._agent.name
        return Entry(0, now, event, name, version, digest, None, None, author.who, author.why, evidence)

    def _check_begun(self) -> None:
        if not self.entries():
            raise ConfigurationError(
                "no spec is registered yet; begin with `flagstream registry add`", where=str(self._place)
            )

    def _write(self, decide: Callable[[Sequence[Entry]], list[Entry]]) -> list[Entry]:
        # The log is opened first: what cannot be recorded is not done.
        log = LakeAudit(AuditPlaces(self._agent), self._agent.spec.replay_horizon, self._clock)
        table = RegistryTable(self._place, self._agent.spec.replay_horizon)
        written = table.write(decide)
        recorded = log.position(_source(self._agent.name))
        log.record([_event(each) for each in self.entries() if each.action > recorded])
        return written


def case_of(
    candidate: VersionStage,
    found: Mapping[str, VersionStage],
    entries: Sequence[Entry],
    prompt_digest: str,
    endpoint_change: str | None = None,
) -> PromotionCase:
    """Return what the gates check.

    Args:
        found: where all versions stand.
        entries: all of the registry.
        prompt_digest: of the candidate's prompt as it is now.
        endpoint_change: why another endpoint is meant.
    """
    active = version_in("active", found)
    assert active is not None, "the first version is active, and every move keeps one"
    reports = [each for each in entries if each.event == "replayed"]
    replays = [each for each in reports if each.digest == candidate.digest]
    return PromotionCase(
        candidate=candidate,
        active=active,
        beside=version_in(NEXT[candidate.stage], found),
        replay=replays[-1].evidence if replays else None,
        evaluations=[each.evidence for each in entries if each.event == "prompt_evaluated"],
        prompt_digest=prompt_digest,
        endpoint_change=endpoint_change,
        replayed_otherwise=any(each.version == candidate.version for each in reports),
    )


def check_replaceable(before: AgentSpec, after: AgentSpec) -> None:
    """Check that a running agent can go over from one spec to the other.

    Raises:
        ConfigurationError: they differ in what is fixed when an agent starts.
    """
    differing = [name for name in _FIXED if _fixed(before, name) != _fixed(after, name)]
    differing += [
        f"llm.{name}" for name in _FIXED_LLM if getattr(before.llm, name) != getattr(after.llm, name)
    ]
    if differing:
        raise ConfigurationError(
            f"differs from the active version {before.version} in what a running agent cannot change; "
            "an agent of another name can",
            key=differing[0],
        )


def _fixed(spec: AgentSpec, name: str) -> object:
    """Return what a running agent keeps of a spec; a contract is the same wherever a copy of it lies."""
    if name != "data_sources":
        return getattr(spec, name)
    sources = spec.data_sources
    return sources.model_copy(update={"transactions": _with_content(sources.transactions)})


def _with_content(source: TransactionSource) -> TransactionSource:
    try:
        contract = load_contract(source.contract).digest
    except ConfigurationError:  # it may have been removed since: then it is but itself
        return source
    return source.model_copy(update={"contract": contract})


def _source(agent: str) -> str:
    return f"{agent}/registry"


def _event(entry: Entry) -> AuditEvent:
    detail = {
        "change": entry.event,
        "version": entry.version,
        "stage": entry.stage,
        "who": entry.who,
        "why": entry.why,
        "actor": f"uid:{os.getuid()}",
    }
    if _CONSENT in entry.evidence:
        detail["consent"] = entry.evidence[_CONSENT]
    if entry.event != "prompt_evaluated":
        detail["spec_digest"] = entry.digest
    return AuditEvent("configuration_change", entry.name, detail, _source(entry.name), entry.action)
