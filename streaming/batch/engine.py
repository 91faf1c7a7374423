"""What decides under one spec: contract, rules, labeller, scorer and triage, with the state's recovery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import RulesAlone, Triage
from schemas.contract import EventContract
from schemas.spec import AgentSpec
from streaming.arrays.arrow_arrays import matrix_column
from streaming.arrays.compilation import Flags, Ints
from streaming.delta.stored import StoredTable
from streaming.detection import checkpoints
from streaming.detection.checkpoints import ScorerSnapshot
from streaming.detection.features import rule_fields
from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from streaming.labels.entity_labels import at_positions
from streaming.rules.pattern import CompiledPattern
from streaming.rules.patterns import Patterns, Recognised
from streaming.rules.rule_set import RuleSet
from streaming.rules.rules_in_force import Stretch
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker

_FOLD_ROWS = 250_000
SCORE = "score"
OURS = "alert."  # names columns that no contract's column can be called
CONTRIBUTIONS = f"{OURS}contributions"
_ALWAYS_SEEN = ("sequence", "transaction_id", "event_time", "amount", "currency")


def rule_schema(contract: EventContract, scorer: Scorer) -> pa.Schema:
    """Return what rules can look at: the contract's columns, then `score` and the features."""
    decoded = contract.arrow_schema()
    known = [SCORE, *rule_fields(scorer.feature_names)]
    return pa.schema(
        [*decoded, *(pa.field(name, pa.float64()) for name in known if name not in decoded.names)]
    )


@dataclass(frozen=True)
class Judged:
    """One batch, scored and looked at by all rules, and the state that committing it leads to.

    Attributes:
        hits: bool[rows, rules], see rules.Held.
        recognised: what rules over two events found.
    """

    scored: ScoredBatch
    hits: Flags
    recognised: Recognised


@dataclass(eq=False)
class Engine:
    """All that turns stored transactions into alerts under one spec.

    Attributes:
        checkpoints: folder of profile checkpoints.
        model: name of the model that triage asks, None on rules alone.
        patterns: what rules over two events remember; like the scorer it outlives a change of rules.
        health: told when checkpoints cannot be written.
    """

    spec: AgentSpec
    contract: EventContract
    rules: RuleSet
    labeller: RuleClassifier
    scorer: Scorer
    triage: Triage | RulesAlone
    checkpoints: Path
    model: str | None
    patterns: Patterns = field(default_factory=Patterns)
    health: Health = field(default_factory=Health, repr=False)
    _checkpointed: int = 0
    _committed_rows: bool = False
    _writing: Worker | None = field(default=None, repr=False)

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
        schema = rule_schema(self.contract, self.scorer)
        rules = RuleSet.compile(spec.rules, schema, self.contract.entity_names, spec.arithmetic_in_force)
        return replace(self, spec=spec, rules=rules, labeller=RuleClassifier(spec.rules))

    def scores_as(self, other: Engine) -> bool:
        """Whether both score the same rows alike, so that the state of one fits the other."""
        return self.scorer.definition_hash == other.scorer.definition_hash

    def start_from(self, other: Engine) -> None:
        """Take a copy of the state that another engine, which scores alike, has reached."""
        state = other.snapshot()
        self.scorer.restore(state)
        self.patterns.restore(state.patterns)

    def going_on_as(self, other: Engine) -> Engine:
        """Return `other`, which scores alike, with the state that this one has reached."""
        self.scorer.heed(other.spec)
        return replace(
            self,
            spec=other.spec,
            rules=other.rules,
            labeller=other.labeller,
            triage=other.triage,
            model=other.model,
            checkpoints=other.checkpoints,
            _checkpointed=self._checkpointed if other.checkpoints == self.checkpoints else 0,
        )

    def pins(self) -> dict[str, Any]:
        """Return everything a later attempt or a replay needs to decide the same way."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "spec_digest": self.spec.digest,
            "contract": self.contract.model_dump(mode="json"),
            "contract_digest": self.contract.digest,
            "rules_version": self.rules.version,
            "model": self.model,
            "prompt": f"{self.spec.llm.prompt.id}/{self.spec.llm.prompt.version}",
            "scoring": self.scorer.definition_hash,
            **self.triage.digests,
        }

    def judge(self, transactions: pa.Table, verdicts: pa.Table | None) -> Judged:
        """Score rows and look where rules hold, leaving all state as it is; see Scorer.score."""
        return self._judge(transactions, verdicts, self.rules.patterns)

    def commit(self, judged: Judged) -> None:
        """Make the state after a batch the current one; see Scorer.commit."""
        self._commit(judged)
        self._committed_rows |= len(judged.scored) > 0

    def absorb(self, transactions: pa.Table) -> None:
        """Move the state past rows that nobody is to be alerted about, as if they had been decided."""
        if self.rules.patterns:
            self._commit(self.judge(transactions, None))
        else:
            self.scorer.fold(transactions)
        self._committed_rows |= transactions.num_rows > 0

    def restore(
        self,
        transactions: StoredTable,
        next_sequence: int,
        verdicts_of: Callable[[int, int], pa.Table],
        stretches_of: Callable[[int, int], Sequence[Stretch]],
        cold_from: int = 0,
    ) -> None:
        """Bring the state to just before `next_sequence`: newest checkpoint plus the rows stored since.

        Args:
            transactions: the rows.
            next_sequence: the first row not to be folded.
            verdicts_of: the verdicts that rows from one `sequence` on, below another, are the first to know.
            stretches_of: which patterns were in force from one `sequence` on, below another.
            cold_from: without a checkpoint, where profiles begin blank instead of at the first row.
        """
        if self.scorer.next_sequence == next_sequence:
            return
        found = checkpoints.newest(self.checkpoints, self.scorer.definition_hash, through=next_sequence)
        saved = found.snapshot
        if saved is not None and self._is_ahead_by(saved, stretches_of):
            self.scorer.restore(saved)
            self.patterns.restore(saved.patterns)
        elif cold_from:
            self.scorer.begin(cold_from)
        self._checkpointed, self._committed_rows = self.scorer.next_sequence, False
        missing = (self._checkpointed, next_sequence)
        verdicts, stretches = verdicts_of(*missing), [Stretch(*missing, frozenset())]
        for stretch in stretches_of(*missing) if self.rules.patterns else stretches:
            self._fold(transactions, stretch, verdicts)

    def _is_ahead_by(
        self, saved: ScorerSnapshot, stretches_of: Callable[[int, int], Sequence[Stretch]]
    ) -> bool:
        """Whether a checkpoint is newer, and none of our rules that were in force then is missing from it."""
        reached, ours = saved.next_sequence, {each.digest for each in self.rules.patterns}
        if reached <= self.scorer.next_sequence or not ours:
            return reached > self.scorer.next_sequence
        return stretches_of(reached - 1, reached)[-1].patterns & ours <= saved.patterns.keys()

    def _fold(self, transactions: StoredTable, stretch: Stretch, verdicts: pa.Table) -> None:
        patterns = [each for each in self.rules.patterns if each.digest in stretch.patterns]
        for first in range(stretch.first, stretch.end, _FOLD_ROWS):
            end = min(first + _FOLD_ROWS, stretch.end)
            rows, known = transactions.read("sequence", first, end), at_positions(verdicts, first, end)
            if self.rules.patterns:
                self._commit(self._judge(rows, known, patterns))
            else:
                self.scorer.fold(rows, known)

    def _judge(
        self, transactions: pa.Table, verdicts: pa.Table | None, patterns: Sequence[CompiledPattern]
    ) -> Judged:
        scored = self.scorer.score(transactions, verdicts)
        held = self.rules.held(self._with_features(transactions, scored))
        recognised = self.patterns.advance(
            patterns,
            transactions,
            held.starts,
            held.ends,
            lambda positions: self._described_for_later(transactions, scored, positions),
        )
        return Judged(scored, held.hits, recognised)

    def _commit(self, judged: Judged) -> None:
        self.scorer.commit(judged.scored)
        self.patterns.commit(judged.recognised)

    def described(self, transactions: pa.Table, scored: ScoredBatch, positions: Ints) -> pa.Table:
        """Return what alerts tell of rows, int64[m] positions, but for reasons and rules."""
        chosen = pa.array(positions)
        columns = [*_ALWAYS_SEEN, *self.contract.entity_names, *self.contract.untrusted_text]
        rows = transactions.select(list(dict.fromkeys(columns))).take(chosen)
        own_evidence = scored.own_evidence()
        for name in ("score", "log_odds", "base"):
            rows = rows.append_column(f"{OURS}{name}", pa.array(getattr(scored, name)[positions]))
        return rows.append_column(f"{OURS}own_evidence", pa.array(own_evidence[positions]))

    def _described_for_later(self, transactions: pa.Table, scored: ScoredBatch, positions: Ints) -> pa.Table:
        rows = self.described(transactions, scored, positions)
        return rows.append_column(CONTRIBUTIONS, matrix_column(scored.contributions_of(positions)))

    def _with_features(self, transactions: pa.Table, scored: ScoredBatch) -> pa.Table:
        """Add what the rules look at beyond the event's own fields; unknown features are null."""
        wanted = [name for name in self.rules.columns if name not in transactions.column_names]
        if not wanted:
            return transactions
        names, features = self.scorer.feature_names, scored.features()
        fields = rule_fields(names)
        for name in wanted:
            values = scored.score if name == SCORE else features[:, names.index(fields[name])]
            column = pa.array(values.astype(np.float64), from_pandas=True)
            transactions = transactions.append_column(name, column)
        return transactions

    def checkpoint_if_due(self) -> None:
        """Write a checkpoint in the background once enough rows were stored since the last.

        Only after a batch of its own: then the patterns remembered are all of those in force.
        """
        rows = self.scorer.next_sequence - self._checkpointed
        if self._committed_rows and rows >= self.spec.profiles.checkpoint_rows:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Start writing a checkpoint of the profiles as they stand, unless one is being written."""
        if self._writing is not None and self._writing.is_working:
            return
        self._checkpointed = self.scorer.next_sequence
        snapshot = self.snapshot()

        def write() -> None:
            checkpoints.write(snapshot, self.checkpoints)

        self._writing = Worker("checkpoint", write, Condition.CHECKPOINT_FAILING, self.health, fatal=())
        self._writing.start()

    def snapshot(self) -> ScorerSnapshot:
        """Copy the whole state; see Scorer.snapshot."""
        return replace(self.scorer.snapshot(), patterns=self.patterns.snapshot())

    def close(self) -> None:
        """Wait for a checkpoint that is being written."""
        if self._writing is not None:
            self._writing.close()
