"""Tells that an agent is still learning: under a budget, scores raise no alert before its pace is known."""

from __future__ import annotations

from schemas.counts import count_of
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.output.log import log


def learning_line(known: int, needed: int) -> str | None:
    """Say how many transactions are known of how many, None where that is enough.

    Args:
        known: transactions stored so far.
        needed: how many must be known before a score can raise an alert, see AgentSpec.rows_to_learn.
    """
    if known >= needed:
        return None
    whole = count_of(needed, "transaction")
    return f"{known:,} of {whole}; until then rules alone raise alerts, and no score does"


def log_learning(agent: HasLake) -> None:
    """Log at start that an agent is still learning under the spec in force, if it is."""
    table = LakeReader.of(agent).table("batches")
    known = 0 if table is None else table.maximum("next_sequence") or 0
    said = learning_line(known, agent.spec.rows_to_learn)
    if said is not None:
        log("still_learning", f"the agent is still learning: {said}", agent=agent.spec.name)
