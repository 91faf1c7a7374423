"""What decides under one spec: contract, rules, labeller, scorer and triage, with the scorer's recovery."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from agent.labels import Labeller
from agent.triage import RulesAlone, Triage
from schemas.contract import EventContract
from schemas.spec import AgentSpec
from streaming import checkpoints
from streaming.features import rule_fields
from streaming.rules import RuleSet
from streaming.scoring import Scorer
from streaming.stored import StoredTable
from streaming.verdicts import at_positions

_FOLD_ROWS = 250_000
SCORE = "score"
_ALWAYS_SEEN = ("sequence", "transaction_id", "event_time", "amount", "currency")


def rule_schema(contract: EventContract, scorer: Scorer) -> pa.Schema:
    """Return what rules can look at: the contract's columns, then `score` and the features."""
    decoded = contract.arrow_schema()
    known = [SCORE, *rule_fields(scorer.feature_names)]
    return pa.schema(
        [*decoded, *(pa.field(name, pa.float64()) for name in known if name not in decoded.names)]
    )


@dataclass
class Engine:
    """All that turns stored transactions into alerts under one spec.

    Attributes:
        checkpoints: folder of profile checkpoints.
        model: name of the model that triage asks, None on rules alone.
    """

    spec: AgentSpec
    contract: EventContract
    rules: RuleSet
    labeller: Labeller
    scorer: Scorer
    triage: Triage | RulesAlone
    checkpoints: Path
    model: str | None
    _checkpointed: int = 0
    _writing: threading.Thread | None = field(default=None, repr=False)

    def columns(self) -> list[str]:
        """Return the columns of the transactions table that decisions look at."""
        contract = self.contract
        seen = [*_ALWAYS_SEEN, *contract.entity_names, *contract.untrusted_text]
        seen += [*self.scorer.columns, *self.rules.columns]
        stored = contract.arrow_schema().names
        return [name for name in dict.fromkeys(seen) if name == "sequence" or name in stored]

    def under(self, spec: AgentSpec) -> Engine:
        """Return an engine that differs in its rules alone.

        Raises:
            ConfigurationError: a rule that cannot be used.
        """
        rules = RuleSet.compile(spec.rules, rule_schema(self.contract, self.scorer))
        return replace(self, spec=spec, rules=rules, labeller=Labeller(spec.rules))

    def pins(self) -> dict[str, Any]:
        """Return everything a later attempt or a replay needs to decide the same way."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "spec_digest": self.spec.digest,
            "contract_digest": self.contract.digest,
            "rules_version": self.rules.version,
            "model": self.model,
            "prompt": f"{self.spec.llm.prompt.id}/{self.spec.llm.prompt.version}",
            "scoring": self.scorer.definition_hash,
        }

    def restore(
        self, transactions: StoredTable, next_sequence: int, verdicts_of: Callable[[int, int], pa.Table]
    ) -> None:
        """Bring the profiles to just before `next_sequence`: newest checkpoint plus the rows stored since.

        Args:
            transactions: the rows.
            next_sequence: the first row not to be folded.
            verdicts_of: the verdicts that rows from one `sequence` on, below another, are the first to know.
        """
        if self.scorer.next_sequence == next_sequence:
            return
        self.scorer.load(self.checkpoints, through=next_sequence)
        self._checkpointed = self.scorer.next_sequence
        verdicts = verdicts_of(self.scorer.next_sequence, next_sequence)
        while self.scorer.next_sequence < next_sequence:
            first = self.scorer.next_sequence
            end = min(first + _FOLD_ROWS, next_sequence)
            self.scorer.fold(transactions.read("sequence", first, end), at_positions(verdicts, first, end))

    def checkpoint_if_due(self) -> None:
        """Write a checkpoint in the background once enough rows were stored since the last."""
        if self.scorer.next_sequence - self._checkpointed >= self.spec.profiles.checkpoint_rows:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Start writing a checkpoint of the profiles as they stand, unless one is being written."""
        if self._writing is not None and self._writing.is_alive():
            return
        snapshot = self.scorer.snapshot()
        self._checkpointed = self.scorer.next_sequence
        self._writing = threading.Thread(target=checkpoints.write, args=(snapshot, self.checkpoints))
        self._writing.start()

    def close(self) -> None:
        """Wait for a checkpoint that is being written."""
        if self._writing is not None:
            self._writing.join()
