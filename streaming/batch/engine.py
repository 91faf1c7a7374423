"""A version at work: what decides, what it remembers, and where that is saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import pyarrow as pa

from agent.model.budget import SpendingBudget
from agent.model.model_client import ModelClient
from agent.triage.ledger import Ledger, MemoryLedger
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.batch.checkpointing import CheckpointWriter
from streaming.batch.decider import Decider, Judged
from streaming.batch.memory import Memory
from streaming.batch.patterns_in_force import Stretch
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.stored import StoredTable
from streaming.detection import checkpoints
from streaming.detection.checkpoint_files import ScorerSnapshot
from streaming.home.settings import Settings
from streaming.labels.entity_labels import at_positions
from streaming.service.health import Health
from streaming.store.folders import Folders
from streaming.store.opening import folders_of

_FOLD_ROWS = 250_000
_NOBODY_ELSE: AbstractContextManager[object] = nullcontext()


@dataclass(frozen=True)
class Engine:
    """A decider, the memory it decides with, and the writer of that memory's checkpoints.

    The decider never changes and the memory alone does: an engine that goes on from another's state holds
    the very same memory, so there is never a second idea of how far it has come.
    """

    decider: Decider
    memory: Memory
    checkpoints: CheckpointWriter

    @classmethod
    def under(
        cls,
        settings: Settings,
        definition: AgentDefinition,
        client: ModelClient | None,
        ledger: Ledger,
        budget: SpendingBudget,
        health: Health | None = None,
    ) -> Engine:
        """Return what decides under a definition, with a memory that has met no transaction.

        Args:
            client: the model, None for rules alone.
            health: hears when checkpoints cannot be written.

        Raises:
            ConfigurationError: a rule, prompt, policy, model or entity that cannot be used.
        """
        decider = Decider.under(settings, definition, client, ledger, budget)
        memory = Memory(definition.content.blank_scorer())
        kept = folders_of(settings.profiles(definition.spec.name), settings.spool)
        return cls(decider, memory, CheckpointWriter(kept, health))

    @classmethod
    def on_rules(
        cls, settings: Settings, definition: AgentDefinition, health: Health | None = None
    ) -> Engine:
        """Return what decides without a model; see `under`."""
        budget = SpendingBudget(definition.spec.llm.budget)
        return cls.under(settings, definition, None, MemoryLedger(), budget, health)

    @property
    def spec(self) -> AgentSpec:
        """What it decides under."""
        return self.decider.spec

    def with_rules(self, spec: AgentSpec) -> Engine:
        """Return an engine that differs in its rules alone; see Decider.with_rules."""
        return replace(self, decider=self.decider.with_rules(spec))

    def saved_in(self, folders: Folders) -> Engine:
        """Return an engine that writes its checkpoints to another place."""
        return replace(self, checkpoints=self.checkpoints.at(folders))

    def scores_as(self, other: Engine) -> bool:
        """Whether both score the same rows alike, so that the memory of one fits the other."""
        return self.decider.layout.definition == other.decider.layout.definition

    def continued_as(self, other: Engine) -> Engine:
        """Return `other`, which scores alike, with the memory of this one."""
        self.memory.scorer.adopt(other.spec)
        same = other.checkpoints.folders == self.checkpoints.folders
        return Engine(other.decider, self.memory, self.checkpoints if same else other.checkpoints)

    def judge(self, transactions: pa.Table, labels: pa.Table | None) -> Judged:
        """Score rows and look where rules hold, leaving the memory as it is; see Decider.judge."""
        return self.decider.judge(self.memory, transactions, labels)

    def commit(self, judged: Judged) -> None:
        """Make the state after a batch the current one; see Memory.commit."""
        self.memory.commit(judged.scored, judged.recognised)
        self.memory.has_decided |= len(judged.scored) > 0

    def absorb(self, transactions: pa.Table) -> None:
        """Move the memory past rows that nobody is to be alerted about, as if they had been decided."""
        if self.decider.rules.patterns:
            self.commit(self.judge(transactions, None))
            return
        self.memory.scorer.fold(transactions)
        self.memory.has_decided |= transactions.num_rows > 0

    def restore(
        self,
        transactions: StoredTable,
        next_sequence: int,
        labels_of: Callable[[int, int], pa.Table],
        stretches_of: Callable[[int, int], Sequence[Stretch]],
        cold_from: int = 0,
        *,
        exactly: bool = True,
        worth: int = 0,
        moving: AbstractContextManager[object] = _NOBODY_ELSE,
    ) -> None:
        """Bring the memory to just before `next_sequence`: newest checkpoint plus the rows stored since.

        Args:
            transactions: the rows.
            next_sequence: the first row not to be folded.
            labels_of: the labels that rows from one `sequence` on, below another, are the first to know.
            stretches_of: which patterns were in force from one `sequence` on, below another.
            cold_from: without a checkpoint, where profiles begin blank instead of at the first row.
            exactly: where retention has removed rows that are missing, say so; else begin blank behind them.
            worth: a memory that knows rows goes on by rows alone, unless a checkpoint is so many ahead.
            moving: is held while the memory changes, and not while anything is read; from one change to the
                next the memory is what it was after some row.

        Raises:
            ConfigurationError: rows that are missing were removed by retention.
        """
        if self.memory.next_sequence == next_sequence:
            return
        saved = self._saved(transactions, next_sequence, worth)
        is_ahead = saved is not None and self._is_ahead_by(saved, stretches_of)
        with moving:
            if saved is not None and is_ahead:
                self.memory.restore(saved)
            elif cold_from:
                self.memory.scorer.begin(cold_from)
            self._pass_over_removed(transactions, next_sequence, exactly=exactly)
            reached = self.memory.next_sequence
            self.checkpoints.reached, self.memory.has_decided = reached, False
        missing = (reached, next_sequence)
        labels, without_patterns = labels_of(*missing), [Stretch(*missing, frozenset())]
        for stretch in stretches_of(*missing) if self.decider.rules.patterns else without_patterns:
            self._fold(transactions, stretch, labels, moving)

    def _saved(self, transactions: StoredTable, through: int, worth: int) -> ScorerSnapshot | None:
        """Return the newest checkpoint that may be worth going on from; others are not read."""
        reached = self.memory.next_sequence
        folders, definition = self.checkpoints.folders, self.decider.layout.definition
        beyond = reached + worth if reached >= max(transactions.removed_before, 1) else reached
        return checkpoints.newest(folders, definition, through=through, beyond=beyond).snapshot

    def _pass_over_removed(self, transactions: StoredTable, end: int, *, exactly: bool) -> None:
        """Begin behind rows that are gone, where there is nothing yet that they would change."""
        reached, first = self.memory.next_sequence, transactions.removed_before
        if reached >= min(first, end):
            return
        if exactly or reached:
            raise ConfigurationError(
                f"transactions before sequence {first} were removed by retention, and no checkpoint of these "
                f"profiles says what they were like at sequence {first}: choose a later span, or one under "
                "the profiles that were in force",
                where=str(transactions.place),
            )
        block = self.spec.profiles.block_rows
        self.memory.scorer.begin(min(-(-first // block), end // block) * block)

    def checkpoint_if_due(self) -> None:
        """Begin to write a checkpoint where the spec wants one by now; see CheckpointWriter."""
        self.checkpoints.write_if_due(self.memory, self.spec.profiles.checkpoint_rows)

    def close(self) -> None:
        """Wait for a checkpoint that is being written."""
        self.checkpoints.close()

    def _is_ahead_by(
        self, saved: ScorerSnapshot, stretches_of: Callable[[int, int], Sequence[Stretch]]
    ) -> bool:
        """Whether a checkpoint is newer, and none of our rules that were in force then is missing from it."""
        reached, ours = saved.next_sequence, {each.digest for each in self.decider.rules.patterns}
        if reached <= self.memory.next_sequence or not ours:
            return reached > self.memory.next_sequence
        return stretches_of(reached - 1, reached)[-1].patterns & ours <= saved.patterns.keys()

    def _fold(
        self,
        transactions: StoredTable,
        stretch: Stretch,
        labels: pa.Table,
        moving: AbstractContextManager[object],
    ) -> None:
        rules = self.decider.rules
        patterns = [each for each in rules.patterns if each.digest in stretch.patterns]
        for first in range(stretch.first, stretch.end, _FOLD_ROWS):
            end = min(first + _FOLD_ROWS, stretch.end)
            rows, known = transactions.read("sequence", first, end), at_positions(labels, first, end)
            with moving:
                if rules.patterns:
                    judged = self.decider.judge(self.memory, rows, known, patterns)
                    self.memory.commit(judged.scored, judged.recognised)
                else:
                    self.memory.scorer.fold(rows, known)
