"""Scores of stored transactions, computed anew under their pins: the lake holds those of alerts alone."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from streaming.definition.agent_definition import AgentDefinition
from streaming.history.decided import DecidedHistory
from streaming.history.replay import Replayer
from streaming.history.replayed import Slice
from streaming.home.placed_agent import PlacedAgent


@dataclass(frozen=True)
class ScoredTransaction:
    """What a transaction was found to be.

    Attributes:
        score: in (0, 1), see ScoredBatch.
        threshold: the score from which on it would have been flagged.
        reason: name of what raised the score most, None where nothing did.
    """

    transaction_id: str
    score: float
    threshold: float
    reason: str | None


def scored_again(agent: PlacedAgent, wanted: AbstractSet[str]) -> Iterator[ScoredTransaction]:
    """Yield what was found of the transactions wanted, in the order they were decided.

    Args:
        wanted: transaction ids.

    Raises:
        ConfigurationError: nothing was decided yet, or what decided it is gone.
    """
    history = DecidedHistory(agent)
    replayer = Replayer(agent.settings, AgentDefinition.of(agent.spec), history)
    transactions = history.tables(history.whole).transactions
    for part in history.pinned(history.whole):
        if not part.backfilled:
            for each in replayer.slices(part.spec, transactions, part.span):
                yield from _found(each, wanted)


def _found(part: Slice, wanted: AbstractSet[str]) -> Iterator[ScoredTransaction]:
    scored = part.decided.judged[0].scored
    ids = part.rows["transaction_id"].to_pylist()
    rows = np.array([row for row, identifier in enumerate(ids) if identifier in wanted], np.int64)
    for row, reasons in zip(rows.tolist(), scored.reasons_of(rows), strict=True):
        strongest = next((each.name for each in reasons if each.contribution > 0), None)
        yield ScoredTransaction(ids[row], float(scored.score[row]), float(scored.threshold[row]), strongest)
