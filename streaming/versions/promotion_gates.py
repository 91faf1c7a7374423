"""The gates of a promotion: each checks the evidence and says why it is closed, None when it is open.

What they ask for is the active spec's `promotion`: a candidate does not choose what it is measured by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.triage.triage import POLICIES
from schemas.counts import count_of
from schemas.errors import ConfigurationError
from schemas.loading import format_duration
from schemas.policy import load_policy
from schemas.spec import AgentSpec, Promotion
from streaming.versions.stages import NEXT, VersionStage


@dataclass(frozen=True)
class PromotionCase:
    """A version that asks to be promoted.

    Attributes:
        beside: the version that stands where it wants to go, None when the place is free.
        replay: the newest report of a replay under it, None without one; see replay_evidence.
        evaluations: `prompts eval` runs, newest last.
        prompt_digest: of the candidate's prompt as it is now.
        endpoint_change: why another policy, model, endpoint or key is meant, None where nobody has said so.
        replayed_otherwise: there is a report of a version of this name with other contents.
    """

    candidate: VersionStage
    active: VersionStage
    beside: VersionStage | None
    replay: Mapping[str, Any] | None
    evaluations: Sequence[Mapping[str, Any]]
    prompt_digest: str
    endpoint_change: str | None = None
    replayed_otherwise: bool = False

    @property
    def asked(self) -> Promotion:
        """What the active spec asks for."""
        return self.active.spec.promotion


@dataclass(frozen=True)
class GateState:
    """A gate as it stands for one version.

    Attributes:
        name: such as `replay`.
        asks: what it asks for, in a sentence.
        closed: why it is closed, None where it is open.
    """

    name: str
    asks: str
    closed: str | None


def gates(case: PromotionCase) -> list[GateState]:
    """Return how each gate stands, in the order in which they are asked."""
    return [GateState(name, asks, why_closed(case)) for name, asks, why_closed in _GATES]


def closed_gates(case: PromotionCase) -> list[str]:
    """Return why the version may not be promoted, nothing when all gates are open."""
    return [each.closed for each in gates(case) if each.closed is not None]


def place_gate(case: PromotionCase) -> str | None:
    """One version at a time stands in shadow and in canary."""
    if case.beside is None or NEXT[case.candidate.stage] == "active":
        return None
    return f"place: version {case.beside.version} is in {case.beside.stage}; promote it or roll it back first"


def replay_gate(case: PromotionCase) -> str | None:
    """A replay under the candidate is on record, compared since the active version became active."""
    if case.replay is None:
        why = _OTHER_CONTENTS if case.replayed_otherwise else _BEFORE_THE_REGISTRY
        return f"replay: no report of version {case.candidate.version} is on record, {why}; {_REPLAY_HINT}"
    if case.replay["active_digest"] != case.active.digest:
        return f"replay: the newest report is from before {case.active.version} became active; {_REPLAY_HINT}"
    return None


def precision_gate(case: PromotionCase) -> str | None:
    """On enough matured labels, the candidate's alerts are right as often as those published."""
    if case.replay is None:
        return "precision: unknown without a replay"
    sides = [case.replay["matured"][side] for side in ("published", "candidate")]
    fewest, asked = min(side["judged"] for side in sides), case.asked.least_labels
    if fewest < asked:
        few = f"{count_of(fewest, 'alert')} of one side with a matured label, {asked} needed"
        return f"precision: {few} (`promotion.least_labels`); {_when_mature(case, case.replay)}"
    before, after = (side["frauds"] / side["judged"] for side in sides)
    if after < before:
        return f"precision: {after:.4f} on matured labels, that of published alerts is {before:.4f}"
    return None


def alerts_gate(case: PromotionCase) -> str | None:
    """Alerts per day, those by rules included, are within the candidate's budget and the tolerance.

    Without a budget in the candidate, what was published is the budget.
    """
    if case.replay is None:
        return "alerts: unknown without a replay"
    rates = case.replay["alerts_per_day"]
    budget = case.candidate.spec.alerts_per_day or rates["published"]
    limit = budget * (1 + case.asked.alerts_tolerance)
    if rates["candidate"] <= limit:
        return None
    return (
        f"alerts: {rates['candidate']:g} a day, at most {limit:g} ({budget:g} and the tolerance) are allowed"
    )


def prompt_gate(case: PromotionCase) -> str | None:
    """Where prompt or model differ from the active version's, the newest evaluation of them has passed."""
    llm, before = case.candidate.spec.llm, case.active.spec.llm
    if llm.provider == "none" or _asked_model(case.candidate.spec) == _asked_model(case.active.spec):
        return None
    name = f"{llm.prompt.id}/{llm.prompt.version}"
    runs = [run for run in case.evaluations if _is_about(run, name, llm.model, case.prompt_digest)]
    if not runs:
        kept = f"prompt {name}" if llm.prompt != before.prompt else f"model {llm.model or 'by default'}"
        return f"prompt: {kept} differs from the active version's and has no evaluation; run `prompts eval`"
    return None if runs[-1]["passed"] else f"prompt: the newest evaluation of {name} has not passed"


def endpoint_gate(case: PromotionCase) -> str | None:
    """Where what leaves, to whom or with which key differs, somebody has said that it is meant."""
    before, after = _reaches(case.active.spec), _reaches(case.candidate.spec)
    changed = [name for name, value in after.items() if value != before.get(name)]
    if not changed or case.endpoint_change is not None:
        return None
    return (
        f"endpoint: {', '.join(changed)} differ from the active version's; check who is sent what, "
        "and promote with --allow-endpoint-change WHY"
    )


# Name, what it asks for, and who says why it is closed; in the order in which they are asked.
_GATES: Sequence[tuple[str, str, Callable[[PromotionCase], str | None]]] = (
    (
        "place",
        "One version at a time stands in shadow and in canary.",
        place_gate,
    ),
    (
        "replay",
        "A replay under the candidate is on record, compared since the active version became active.",
        replay_gate,
    ),
    (
        "precision",
        "On enough matured labels, the candidate's alerts are right as often as those published.",
        precision_gate,
    ),
    (
        "alerts",
        "Alerts per day, those by rules included, are within the candidate's budget and the tolerance.",
        alerts_gate,
    ),
    (
        "prompt",
        "Where prompt or model differ from the active version's, the newest evaluation of them has passed.",
        prompt_gate,
    ),
    (
        "endpoint",
        "Where what leaves, to whom or with which key differs, somebody has said that it is meant.",
        endpoint_gate,
    ),
)
_BEFORE_THE_REGISTRY = "one from before the agent had a registry does not count"
_OTHER_CONTENTS = "only of other contents than those registered"
_REPLAY_HINT = "run `flagstream what-if CANDIDATE`"


def _when_mature(case: PromotionCase, replay: Mapping[str, Any]) -> str:
    """Reports from before the oldest alert's day was kept say nothing of it."""
    maturity, oldest = case.asked.maturity, replay.get("oldest_alert")
    said = f"labels count once their transaction is {format_duration(maturity)} old (`promotion.maturity`)"
    if oldest is None:
        return said
    first = datetime.fromisoformat(oldest).replace(tzinfo=UTC) + maturity
    return f"{said}, and the oldest do from {first:%Y-%m-%d}"


def _asked_model(spec: AgentSpec) -> tuple[object, ...]:
    llm = spec.llm
    return (llm.provider, llm.prompt, llm.model, llm.base_url)


def _reaches(spec: AgentSpec) -> dict[str, str | None]:
    llm = spec.llm
    if llm.provider == "none":
        return {"policy": _policy_of(spec)}
    return {
        "policy": _policy_of(spec),
        "llm.provider": llm.provider,
        "llm.model": llm.model,
        "llm.base_url": llm.base_url,
        "llm.api_key_env": llm.api_key_env,
        "llm.api_version": llm.api_version,
        "llm.fallbacks": "; ".join(each.model_dump_json() for each in llm.fallbacks) or None,
    }


def _policy_of(spec: AgentSpec) -> str:
    """Return which policy it is, wherever a copy of it lies; one that cannot be read is but itself."""
    try:
        return load_policy(spec.policy, POLICIES).digest
    except ConfigurationError:
        return spec.policy


def _is_about(run: Mapping[str, Any], prompt: str, model: str | None, digest: str) -> bool:
    """Rules alone evaluate no prompt; a spec that names no model leaves the choice to the environment."""
    if run["prompt"] != prompt or run["prompt_digest"] != digest or run["model"] == "none":
        return False
    return model is None or run["model"] == model
