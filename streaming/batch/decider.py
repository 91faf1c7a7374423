"""What decides under one spec: rules, their classifier, and triage. It never changes; `memory` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from agent.model.budget import SpendingBudget
from agent.model.model_client import ModelClient
from agent.triage.ledger import Ledger
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import RulesAlone, Triage
from schemas.contract import EventContract
from schemas.spec import AgentSpec
from streaming.arrays.arrow_arrays import matrix_column
from streaming.arrays.compilation import Flags, Ints
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.batch.memory import Memory
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.layout import SCORE, ScoreLayout
from streaming.delta.pins import FINGERPRINT
from streaming.detection.features import rule_fields
from streaming.detection.scored import ScoredBatch
from streaming.home.pseudonym_key import pseudonym_key
from streaming.home.settings import Settings
from streaming.rules.pattern import CompiledPattern
from streaming.rules.patterns import Recognised
from streaming.rules.rule_set import RuleSet

OURS = "alert."  # names columns that no contract's column can be called
CONTRIBUTIONS = f"{OURS}contributions"
_ALWAYS_SEEN = ("sequence", "transaction_id", "event_time", "amount", "currency")


@dataclass(frozen=True)
class Judged:
    """One batch, scored and checked by all rules, and the state that committing it leads to.

    Attributes:
        hits: bool[rows, rules], see rules.Held.
        recognised: what rules over two events found.
        unjudged: see rules.Held.
    """

    scored: ScoredBatch
    hits: Flags
    recognised: Recognised
    unjudged: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Decider:
    """All that turns stored transactions into alerts under one spec, but for what it has to remember.

    Attributes:
        model: name of the model that triage asks, None on rules alone.
    """

    definition: AgentDefinition
    rules: RuleSet
    classifier: RuleClassifier
    triage: Triage | RulesAlone
    model: str | None

    @classmethod
    def under(
        cls,
        settings: Settings,
        definition: AgentDefinition,
        client: ModelClient | None,
        ledger: Ledger,
        budget: SpendingBudget,
    ) -> Decider:
        """Return what decides under a definition; see Engine.under."""
        return cls(
            definition=definition,
            rules=definition.rules,
            classifier=RuleClassifier(definition.spec.rules),
            triage=triage_under(settings, definition, client, ledger, budget),
            model=None if client is None else client.model,
        )

    @property
    def spec(self) -> AgentSpec:
        """What it decides under."""
        return self.definition.spec

    @property
    def contract(self) -> EventContract:
        """What the records mean."""
        return self.definition.contract

    @property
    def layout(self) -> ScoreLayout:
        """Of the scores that the memory it judges with must give."""
        return self.definition.layout

    def with_rules(self, spec: AgentSpec) -> Decider:
        """Return one that differs in its rules alone.

        Raises:
            ConfigurationError: a rule that cannot be used.
        """
        definition, classifier = self.definition.with_rules(spec), RuleClassifier(spec.rules)
        return replace(self, definition=definition, rules=definition.rules, classifier=classifier)

    def columns(self) -> list[str]:
        """Return the columns of the transactions table that decisions read."""
        contract = self.contract
        seen = [*_ALWAYS_SEEN, *contract.labelled_columns, *contract.untrusted_text]
        seen += [*self.layout.columns, *self.rules.columns]
        stored = contract.arrow_schema().names
        return [name for name in dict.fromkeys(seen) if name == "sequence" or name in stored]

    def pins(self) -> dict[str, Any]:
        """Return everything a later attempt or a replay needs to decide the same way."""
        return {
            **self._documents,
            "model": self.model,
            "prompt": f"{self.spec.llm.prompt.id}/{self.spec.llm.prompt.version}",
            **self.definition.digests,
            **self.triage.digests,
            FINGERPRINT: machine_fingerprint(),
        }

    @cached_property
    def _documents(self) -> dict[str, Any]:
        """Spec and contract never change, and every batch pins them."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "contract": self.contract.model_dump(mode="json"),
        }

    def judge(
        self,
        memory: Memory,
        transactions: pa.Table,
        labels: pa.Table | None,
        patterns: Sequence[CompiledPattern] | None = None,
    ) -> Judged:
        """Score rows and look where rules hold, leaving the memory as it is; see Scorer.score.

        Args:
            patterns: the rules over two events that are in force; all of the spec's unless given.
        """
        scored = memory.scorer.score(transactions, labels)
        held = self.rules.held(self._with_features(transactions, scored))
        recognised = memory.patterns.advance(
            self.rules.patterns if patterns is None else patterns,
            transactions,
            held.starts,
            held.ends,
            lambda positions: self._described_for_later(transactions, scored, positions),
        )
        return Judged(scored, held.hits, recognised, held.unjudged)

    def described(self, transactions: pa.Table, scored: ScoredBatch, positions: Ints) -> pa.Table:
        """Return what alerts tell of rows, int64[m] positions, but for reasons and rules."""
        chosen = pa.array(positions)
        columns = [*_ALWAYS_SEEN, *self.contract.labelled_columns, *self.contract.untrusted_text]
        rows = transactions.select(list(dict.fromkeys(columns))).take(chosen)
        own_evidence = scored.own_evidence()
        for name in ("score", "log_odds", "base"):
            rows = rows.append_column(f"{OURS}{name}", pa.array(getattr(scored, name)[positions]))
        return rows.append_column(f"{OURS}own_evidence", pa.array(own_evidence[positions]))

    def _described_for_later(self, transactions: pa.Table, scored: ScoredBatch, positions: Ints) -> pa.Table:
        rows = self.described(transactions, scored, positions)
        return rows.append_column(CONTRIBUTIONS, matrix_column(scored.contributions_of(positions)))

    def _with_features(self, transactions: pa.Table, scored: ScoredBatch) -> pa.Table:
        """Add what the rules use beyond the event's own fields; unknown features are null."""
        wanted = [name for name in self.rules.columns if name not in transactions.column_names]
        if not wanted:
            return transactions
        names, features = self.layout.features, scored.features()
        fields = rule_fields(names)
        for name in wanted:
            values = scored.score if name == SCORE else features[:, names.index(fields[name])]
            column = pa.array(values.astype(np.float64), from_pandas=True)
            transactions = transactions.append_column(name, column)
        return transactions


def triage_under(
    settings: Settings,
    definition: AgentDefinition,
    client: ModelClient | None,
    ledger: Ledger,
    budget: SpendingBudget,
) -> Triage | RulesAlone:
    """Decide who classifies: a batch pinned to a prompt whose wording has gone is finished by rules alone."""
    policy = definition.policy
    if client is None or not definition.content.has_prompt:
        return RulesAlone({"policy_digest": policy.digest})
    pseudonyms = Pseudonyms(pseudonym_key(settings))
    llm, prompt = definition.spec.llm, definition.prompt
    return Triage(llm, prompt, client, ledger=ledger, budget=budget, policy=policy, pseudonyms=pseudonyms)
