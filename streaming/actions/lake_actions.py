"""Carries the planning agent's actions out over one agent's lake; see agent.planning.actions.Actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.planning.actions import ActionResult
from agent.planning.catalogue import (
    EntityHistory,
    EntityProfile,
    JobParameter,
    Parameters,
    ReplayPreview,
    SimilarAlerts,
)
from agent.planning.finding import Finding
from agent.planning.sql_guard import CheckedQuery
from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.errors import ConfigurationError
from schemas.instants import Clock, utc_now
from schemas.lake_tables import lake_schemas
from schemas.policy import JobLimits, QueryLimits, ReplayLimits
from schemas.spec import AgentSpec, load_spec
from streaming.actions.entity_actions import EntityActions
from streaming.actions.findings import FindingFacts, FindingTables
from streaming.actions.outgoing import notify, run_job
from streaming.actions.query import QueryEngine
from streaming.definition.named_files import files_of
from streaming.delta.lake_reader import LakeReader
from streaming.history.decided import DecidedHistory
from streaming.history.replay_runs import ReplaySpan, run_what_if
from streaming.history.what_if_found import Side, WhatIf
from streaming.home.placed_agent import PlacedAgent


class LakeActions:
    """See agent.planning.actions.Actions.

    Args:
        agent: its spec names the tables; keys are in the settings, by the name of their variable.
        contract: of the events.
        tables: those that queries may be about.
        facts: of the run, kept beside its finding.
        clock: current time, timezone-aware.
    """

    def __init__(
        self,
        agent: PlacedAgent,
        contract: EventContract,
        tables: Iterable[str],
        facts: FindingFacts,
        clock: Clock = utc_now,
    ) -> None:
        reader = LakeReader.of(agent)
        schemas = lake_schemas(contract)
        self._agent = agent
        self._engine = QueryEngine({name: reader.place(name) for name in tables}, schemas)
        self._entities = EntityActions(agent, contract.entity_names)
        self._findings = FindingTables(agent, facts, clock)

    def query_aggregates(
        self, query: CheckedQuery, values: tuple[str, ...], limits: QueryLimits, seconds: float
    ) -> ActionResult:
        """See agent.planning.actions.Actions."""
        return self._engine.answer(query, values, limits, seconds)

    def look_up(self, wanted: Parameters) -> ActionResult:
        """See agent.planning.actions.Actions."""
        return _LOOK_UP[type(wanted)](self._entities, wanted)

    def replay_preview(self, wanted: ReplayPreview, limits: ReplayLimits) -> ActionResult:
        """See agent.planning.actions.Actions."""
        span = ReplaySpan(from_time=wanted.from_time, to_time=wanted.to_time)
        held = span.span(DecidedHistory(self._agent))
        count = held.end - held.first
        if count > limits.transactions:
            raise ConfigurationError(
                f"the span holds {count_of(count, 'transaction')}, "
                f"at most {limits.transactions} may be replayed"
            )
        return _preview(run_what_if(self._agent, self._candidate(wanted), span))

    def post_finding(self, finding: Finding) -> ActionResult:
        """See agent.planning.actions.Actions."""
        return self._findings.post(finding)

    def run_job(
        self, notebook: str, parameters: tuple[JobParameter, ...], limits: JobLimits, token: str
    ) -> ActionResult:
        """See agent.planning.actions.Actions."""
        return run_job(notebook, parameters, limits, token, self._agent.settings.api_key(limits.token_env))

    def notify(self, address: str, message: str) -> ActionResult:
        """See agent.planning.actions.Actions."""
        return notify(address, message, self._agent.settings.home / "notices" / f"{self._agent.name}.jsonl")

    def _candidate(self, wanted: ReplayPreview) -> AgentSpec:
        if wanted.candidate is None:
            return self._agent.spec.model_copy(update={"threshold": wanted.threshold, "alerts_per_day": None})
        path = self._agent.settings.home / wanted.candidate
        candidate = load_spec(path)
        _check_files(candidate, self._agent.spec, path.resolve().parent)
        return candidate


# What reads the lake and needs nothing but its parameters; everything else has a method above.
_LOOK_UP: Mapping[type[Parameters], Callable[[EntityActions, Any], ActionResult]] = {
    EntityProfile: lambda entities, wanted: entities.profile(wanted.entity, wanted.id),
    EntityHistory: lambda entities, wanted: entities.history(wanted.entity, wanted.id, wanted.limit),
    SimilarAlerts: lambda entities, wanted: entities.similar(wanted.alert, wanted.limit),
}


def _check_files(candidate: AgentSpec, spec: AgentSpec, folder: Path) -> None:
    """Check that a candidate names no file but its own and those of the spec in force."""
    for name in files_of(candidate) - files_of(spec):
        if not Path(name).resolve().is_relative_to(folder):
            raise ConfigurationError("the candidate names a file that lies outside of its folder", where=name)


def _preview(found: WhatIf) -> ActionResult:
    facts = {
        "transactions": found.transactions,
        "days": found.days,
        "known_frauds": found.known_frauds,
        "added": found.added,
        "removed": found.removed,
        "kept": found.kept,
        **_side("published", found.published),
        **_side("candidate", found.replayed),
    }
    return ActionResult(facts)


def _side(name: str, side: Side) -> dict[str, int | float | None]:
    return {
        f"{name}_alerts": side.alerts,
        f"{name}_alerts_per_day": side.alerts_per_day,
        f"{name}_precision": side.precision,
        f"{name}_recall": side.recall,
    }
