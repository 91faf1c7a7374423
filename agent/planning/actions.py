"""What the declared actions give back, and what carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agent.planning.catalogue import JobParameter, Parameters, ReplayPreview
from agent.planning.finding import Finding
from agent.planning.sql_guard import CheckedQuery
from agent.triage.pseudonyms import TokenBook
from agent.triage.untrusted_text import cleaned
from schemas.policy import ENTITIES, JobLimits, Policy, QueryLimits, ReplayLimits

Scalar = str | int | float | bool | None
ROWS = "rows"
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class ActionResult:
    """What an action found.

    Attributes:
        facts: name → value.
        rows: rows of name → value.
        reveals: name of a fact or column → fields of the policy that its values reveal.
        dry_run: whether nothing was done, only said what would be.
        without: fields of the policy that it was found without, since they may not leave.
    """

    facts: Mapping[str, Scalar] = field(default_factory=dict)
    rows: tuple[Mapping[str, Scalar], ...] = ()
    reveals: Mapping[str, frozenset[str]] = field(default_factory=dict)
    dry_run: bool = False
    without: frozenset[str] = frozenset()

    def leaving(self, policy: Policy, tokens: TokenBook) -> ActionResult:
        """Return what of it may leave the machine: ids as tokens, other texts cleaned and shortened."""
        kept = {name for name in self._names() if all(map(policy.allows, self.reveals.get(name, ())))}
        kinds = {name: _kind(self.reveals.get(name, frozenset()), policy) for name in kept}

        def shown(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
            return {
                name: _shown(value, kinds[name], tokens) for name, value in values.items() if name in kept
            }

        return replace(self, facts=shown(self.facts), rows=tuple(map(shown, self.rows)))

    def withheld(self, policy: Policy) -> tuple[str, ...]:
        """Return the fields that do not leave."""
        fields = self.without.union(*(self.reveals.get(name, frozenset()) for name in self._names()))
        return tuple(sorted(name for name in fields if not policy.allows(name)))

    def values(self) -> dict[str, Scalar]:
        """Return every value by its path: `payments`, `rows.0.terminal`."""
        listed = {f"{ROWS}.{place}.{name}": row[name] for place, row in enumerate(self.rows) for name in row}
        return {**self.facts, **listed}

    def plain(self) -> dict[str, Any]:
        """Return it JSON-serialisable."""
        return {**self.facts, ROWS: [dict(row) for row in self.rows]}

    def _names(self) -> set[str]:
        return {*self.facts, *(name for row in self.rows for name in row)}


def _kind(fields: frozenset[str], policy: Policy) -> str | None:
    """Return the kind of the token that stands for a value, None for a value that leaves as it is."""
    kinds = sorted(name.removeprefix(ENTITIES) for name in fields if policy.as_token(name))
    return kinds[0] if kinds else None


def _shown(value: Scalar, kind: str | None, tokens: TokenBook) -> Scalar:
    if kind is not None and value is not None:
        return tokens.token(kind, str(value))
    return cleaned(value, _SHOWN_CHARACTERS) if isinstance(value, str) else value


class Actions(Protocol):
    """Carries actions out, each within its limits; what they are given was checked before.

    Every method raises a FlagstreamError when it cannot be done.
    """

    def query_aggregates(
        self, query: CheckedQuery, values: tuple[str, ...], limits: QueryLimits, seconds: float
    ) -> ActionResult:
        """Answer a query within `seconds` and the limits; reads only the views it names."""

    def look_up(self, wanted: Parameters) -> ActionResult:
        """Carry out an action that reads the lake and needs nothing but its parameters."""

    def replay_preview(self, wanted: ReplayPreview, limits: ReplayLimits) -> ActionResult:
        """Decide a span anew under a candidate, in a sandbox of its own."""

    def post_finding(self, finding: Finding) -> ActionResult:
        """Keep a finding in the sandbox table and, when it is valid, in the table of findings."""

    def run_job(
        self, notebook: str, parameters: tuple[JobParameter, ...], limits: JobLimits, token: str
    ) -> ActionResult:
        """Run a notebook, once for one `token`; a dry run unless `limits.submit`."""

    def notify(self, address: str, message: str) -> ActionResult:
        """Send one line to an address."""
