"""Whether a plan may run: as a whole before anything does, and each step again when its turn comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.planning.catalogue import (
    CATALOGUE,
    EntityHistory,
    EntityProfile,
    Notify,
    Parameters,
    QueryAggregates,
    ReplayPreview,
    RunJob,
    SimilarAlerts,
)
from agent.planning.curated import Views
from agent.planning.plans import Plan, Step, parsed_parameters, references
from agent.planning.refusals import Refusal, Refused, refused
from agent.planning.sql_guard import CheckedQuery, check_query
from schemas.counts import count_of
from schemas.errors import nearest
from schemas.policy import ActionLimits, JobLimits, NotifyLimits, Policy, QueryLimits, RowLimits

Limits = TypeVar("Limits", bound=ActionLimits)

_READS_THE_LAKE = frozenset({"query_aggregates", *(name for name, kind in CATALOGUE.items() if kind.reads)})


@dataclass(frozen=True)
class Ground:
    """What a plan is about.

    Attributes:
        home: folder that the policy's paths are relative to.
        lake: folder of the agent's tables.
        entities: kinds of entities.
        views: the curated views.
        by_model: whether a model makes the plan: its queries are then about what may leave alone.
    """

    home: Path
    lake: Path
    entities: tuple[str, ...]
    views: Views
    by_model: bool = False

    def query(self, sql: str, policy: Policy) -> CheckedQuery:
        """Check a query of the plan; see agent.planning.sql_guard.

        Raises:
            Refused: naming the rule.
        """
        limits = limits_of(policy, "query_aggregates", QueryLimits)
        model_policy = policy if self.by_model else None
        return check_query(sql, self.views, policy.dataAccess.tables, limits.rows, model_policy=model_policy)


def check_plan(plan: Plan, policy: Policy, ground: Ground) -> tuple[Refusal, ...]:
    """Check a plan as a whole, before anything runs; return every refusal, none when it may run."""
    return tuple(
        refusal
        for part in (_of_the_whole(plan, policy), _of_references(plan), _of_steps(plan, policy, ground))
        for refusal in part
    )


def check_step(step: Step, policy: Policy, ground: Ground) -> tuple[Refusal, ...]:
    """Check one step, as planned or with the values that its references stand for."""
    limits = policy.actions.limits(step.action)
    if step.action in CATALOGUE and limits is None:
        return (Refusal(f"actions.{step.action}", "not allowed", step.id),)
    try:
        parameters = parsed_parameters(step)
    except Refused as fault:
        return fault.refusals
    faults = [
        *_data_access(step, policy, ground),
        *_RULES.get(type(parameters), _nothing_more)(parameters, policy, ground),
    ]
    return tuple(Refusal(rule, detail, step.id) for rule, detail in faults)


def limits_of(policy: Policy, action: str, kind: type[Limits]) -> Limits:
    """Return the limits of an action that the policy allows.

    Raises:
        Refused: it does not.
    """
    found = policy.actions.limits(action)
    if not isinstance(found, kind):
        raise refused(f"actions.{action}", "not allowed")
    return found


Faults = Iterator[tuple[str, str]]


def _of_the_whole(plan: Plan, policy: Policy) -> Iterator[Refusal]:
    if not policy.auditLogging:
        yield Refusal("auditLogging", "actions run only under a policy that has them audited")
    if len(plan.steps) > policy.budgets.steps:
        yield Refusal("budgets.steps", f"{len(plan.steps)} steps are planned, at most {policy.budgets.steps}")
    for action, count in Counter(step.action for step in plan.steps).items():
        limits = policy.actions.limits(action)
        if limits is not None and count > limits.calls:
            yield Refusal(f"actions.{action}.calls", f"planned {count} times, at most {limits.calls}")


def _of_references(plan: Plan) -> Iterator[Refusal]:
    earlier: set[str] = set()
    for step in plan.steps:
        if step.id in earlier:
            yield Refusal("plan.steps", "two steps have the same id", step.id)
        kind = CATALOGUE.get(step.action)
        for name, reference in references(step.parameters):
            if reference.step not in earlier:
                yield Refusal("plan.references", f"no step {reference.step!r} comes before it", step.id)
            elif kind is not None and name not in kind.referable:
                yield Refusal("plan.references", f"{name!r} must be given, not taken from a result", step.id)
        earlier.add(step.id)


def _of_steps(plan: Plan, policy: Policy, ground: Ground) -> Iterator[Refusal]:
    for step in plan.steps:
        yield from check_step(step, policy, ground)


def _data_access(step: Step, policy: Policy, ground: Ground) -> Faults:
    if step.action in _READS_THE_LAKE:
        yield from _path(ground.lake, policy, ground)
    allowed = policy.dataAccess.tables
    for table in CATALOGUE[step.action].reads if step.action in CATALOGUE else ():
        if table not in allowed:
            yield "dataAccess.tables", f"{table!r} may not be read"


def _path(path: Path, policy: Policy, ground: Ground) -> Faults:
    """Links and `..` are followed first, so that no path leads out of where it seems to lie."""
    if "\0" in str(path):
        yield "dataAccess.readOnlyPaths", "no path holds a null character"
        return
    real = (ground.home / path).resolve()
    folders = [(ground.home / each).resolve() for each in policy.dataAccess.readOnlyPaths]
    if not any(real.is_relative_to(folder) for folder in folders):
        named = ", ".join(policy.dataAccess.readOnlyPaths) or "none is named"
        yield "dataAccess.readOnlyPaths", f"{path} lies in none of them ({named})"


def _query(parameters: QueryAggregates, policy: Policy, ground: Ground) -> Faults:
    try:
        query = ground.query(parameters.sql, policy)
    except Refused as fault:
        yield from ((each.rule, each.detail) for each in fault.refusals)
        return
    if query.placeholders != len(parameters.values):
        yield "query.values", f"{query.placeholders} are wanted, {len(parameters.values)} given"


def _entity(parameters: EntityProfile | EntityHistory, policy: Policy, ground: Ground) -> Faults:
    if parameters.entity not in ground.entities:
        hint = nearest(parameters.entity, ground.entities)
        yield "plan.parameters.entity", f"no kind of entity {parameters.entity!r}; {hint}"
    if isinstance(parameters, EntityHistory):
        yield from _rows("entity_history", parameters.limit, policy)


def _similar(parameters: SimilarAlerts, policy: Policy, _: Ground) -> Faults:
    yield from _rows("similar_alerts", parameters.limit, policy)


def _rows(action: str, wanted: int, policy: Policy) -> Faults:
    most = limits_of(policy, action, RowLimits).rows
    if wanted > most:
        yield f"actions.{action}.rows", f"{count_of(wanted, 'row')} wanted, at most {most}"


def _replay(parameters: ReplayPreview, policy: Policy, ground: Ground) -> Faults:
    if (parameters.threshold is None) == (parameters.candidate is None):
        yield "plan.parameters", "expected one of threshold and candidate"
    if parameters.from_time >= parameters.to_time:
        yield "plan.parameters", "from_time must come before to_time"
    if parameters.candidate is not None:
        yield from _path(Path(parameters.candidate), policy, ground)


def _job(parameters: RunJob, policy: Policy, _: Ground) -> Faults:
    notebooks = limits_of(policy, "run_job", JobLimits).notebooks
    if parameters.notebook not in notebooks:
        yield "actions.run_job.notebooks", f"{parameters.notebook!r} may not run"


def _notify(parameters: Notify, policy: Policy, _: Ground) -> Faults:
    targets = limits_of(policy, "notify", NotifyLimits).targets
    if parameters.target not in targets:
        hint = nearest(parameters.target, targets)
        yield "actions.notify.targets", f"{parameters.target!r} may not be notified; {hint}"


def _nothing_more(*_: object) -> Faults:
    yield from ()


Rule = Callable[[Any, Policy, Ground], Faults]
_RULES: Mapping[type[Parameters], Rule] = {
    QueryAggregates: _query,
    EntityProfile: _entity,
    EntityHistory: _entity,
    SimilarAlerts: _similar,
    ReplayPreview: _replay,
    RunJob: _job,
    Notify: _notify,
}
