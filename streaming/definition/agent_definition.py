"""An agent's definition: its spec with all that it names, loaded and checked once, and never changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from agent.model.prompt_files import Prompt, check_needs
from schemas.contract import EventContract
from schemas.errors import ConfigurationError, nearest
from schemas.loading import format_duration
from schemas.policy import Policy
from schemas.spec import AgentSpec
from streaming.definition.content import Content, placed
from streaming.definition.contracts import contract_of
from streaming.definition.layout import ScoreLayout
from streaming.rules.rule_file import RuleWatch
from streaming.rules.rule_set import RuleSet
from streaming.service.health import Health
from streaming.service.last_read import LastRead
from streaming.store.folders import Folders


@dataclass(frozen=True, eq=False)
class AgentDefinition:
    """One version of an agent, by its content.

    `load` gives one to decide with: everything is read and checked, the rules of the spec's file are in its
    spec. `of` gives one to read a lake with, which needs the contract alone. `pinned` gives one that a batch
    was decided under. Rules that are read again give another definition; see `with_rules`.
    """

    spec: AgentSpec
    content: Content = field(repr=False)

    @classmethod
    def load(
        cls, spec: AgentSpec, where: str | None = None, kept: EventContract | None = None
    ) -> AgentDefinition:
        """Load and check everything that a spec names.

        Args:
            where: the spec's file, for errors.
            kept: the contract that the lake has gone by so far; its horizon may stay as it is, and its
                reference currency has to.

        Raises:
            ConfigurationError: contract, rules, policy, prompt, model or entities cannot be used.
        """
        where = where or f"spec {spec.name}"
        with placed(where, "data_sources.transactions.contract"):
            found = cls.of(spec)
            _check_horizon(found.contract, kept)
            check_retention(spec, found.contract)
        with placed(where, "data_sources.rates.to"):
            _check_reference_currency(found.contract, kept)
        with placed(where, "llm.prompt"):
            check_needs(found.prompt, spec.llm)
        with placed(where, "policy"):
            policy = found.policy
        with placed(where):
            complete = found.completed()
            _check_model(spec, policy)
            return complete

    @classmethod
    def of(cls, spec: AgentSpec) -> AgentDefinition:
        """Read what a spec means by its contract; the rest follows when it is wanted.

        Raises:
            ConfigurationError: the contract cannot be used.
        """
        return cls(spec, Content(spec, contract_of(spec)))

    @classmethod
    def pinned(
        cls, spec: AgentSpec, contract: EventContract, artefacts: Folders | None = None
    ) -> AgentDefinition:
        """Return what a batch, or the registry, has pinned: a complete spec and a contract.

        Args:
            artefacts: trained models by their hash, which may have gone from their paths.
        """
        return cls(spec, Content(spec, contract, artefacts))

    @property
    def contract(self) -> EventContract:
        """What the records mean."""
        return self.content.contract

    @property
    def policy(self) -> Policy:
        """What may leave, and to which model."""
        return self.content.policy

    @property
    def prompt(self) -> Prompt:
        """The prompt of triage."""
        return self.content.prompt

    @property
    def layout(self) -> ScoreLayout:
        """What the spec's scores are made of."""
        return self.content.layout

    @cached_property
    def digests(self) -> dict[str, str]:
        """What tells spec, contract, rules and scores from any others, by the names they are pinned under."""
        return {
            "spec_digest": self.spec.digest,
            "contract_digest": self.contract.digest,
            "rules_version": self.rules.version,
            "scoring": self.layout.definition,
        }

    @cached_property
    def rules(self) -> RuleSet:
        """The spec's rules, compiled.

        Raises:
            ConfigurationError: a rule that cannot be used.
        """
        spec, entities = self.spec, self.contract.entity_names
        return RuleSet.compile(spec.rules, self.content.rule_schema, entities, spec.arithmetic_in_force)

    def completed(self) -> AgentDefinition:
        """Return the definition with the rules of its spec's file, and its model's hash, in its spec.

        Raises:
            ConfigurationError: a rule, or the model, that cannot be used.
        """
        return self.with_rules(self.rule_watch().load())

    def with_rules(self, spec: AgentSpec) -> AgentDefinition:
        """Return it with the rules of a spec that differs in nothing else; what was read stays."""
        return replace(self, spec=spec)

    def rule_watch(
        self,
        named: AgentSpec | None = None,
        health: Health | None = None,
        last_read: LastRead | None = None,
    ) -> RuleWatch:
        """Return what makes a spec complete: with the rules of its file, and with its model's hash.

        Args:
            named: the spec as somebody wrote it; this definition's own unless given.
            health: hears of a file that cannot be used.
            last_read: what the run has read of it before.
        """
        spec, model = named or self.spec, self.content.trained_model
        if spec.model is not None and model is not None:
            spec = spec.model_copy(update={"model": spec.model.model_copy(update={"sha256": model.digest})})
        return RuleWatch(spec, self.content.rule_schema, self.contract.entity_names, health, last_read)


def _check_horizon(contract: EventContract, kept: EventContract | None) -> None:
    if kept is not None and _stamps_of(contract) == _stamps_of(kept):
        return
    horizon, ahead = map(format_duration, _stamps_of(contract))
    if contract.duplicates.horizon < contract.event_time.max_ahead:
        raise ConfigurationError(
            f"duplicates.horizon is {horizon}, but a record may be stamped ahead by event_time.max_ahead, "
            f"{ahead}, when it is sent and not when it is sent again: give a horizon of at least {ahead}, "
            "or a shorter max_ahead"
        )


def check_retention(spec: AgentSpec, contract: EventContract) -> None:
    """Check that transactions are kept for as long as redeliveries of them are looked for.

    Raises:
        ConfigurationError: they are not.
    """
    try:
        spec.retention.check([("duplicates.horizon, twice,", 2 * contract.duplicates.horizon)])
    except ValueError as fault:
        raise ConfigurationError(str(fault)) from None


def _check_reference_currency(contract: EventContract, kept: EventContract | None) -> None:
    before, now = None if kept is None else kept.reference_currency, contract.reference_currency
    if before is not None and now is not None and before != now:
        raise ConfigurationError(
            f"what is stored was converted to {before}, and would be compared with amounts in {now}: "
            f"name {before}, or give the agent a new name"
        )


def _stamps_of(contract: EventContract) -> tuple[timedelta, timedelta]:
    return contract.duplicates.horizon, contract.event_time.max_ahead


def _check_model(spec: AgentSpec, policy: Policy) -> None:
    if spec.llm.model is not None and not policy.allows_model(spec.llm.model):
        raise ConfigurationError(
            f"policy {policy.policyName!r} does not allow this model; "
            f"{nearest(spec.llm.model, policy.model_names)}",
            key="llm.model",
        )
