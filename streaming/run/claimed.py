"""What an agent has taken over: its tables, and what they say is answered, spent and labelled."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.budget import SpendingBudget
from agent.model.steady_clock import SteadyClock
from schemas.counts import count_of
from schemas.errors import ConfigurationError, DataLossError
from schemas.instants import utc_now
from schemas.lake_tables import lake_schemas
from streaming.batch.backfill_mark import unfinished_backfill
from streaming.batch.decision import Decision
from streaming.batch.spending import restored_budget
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake import Lake, Tenure
from streaming.delta.lake_reader import LakeReader
from streaming.delta.ledger import LakeLedger
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels


@dataclass(frozen=True)
class Claimed:
    """The lake of an agent and all that rests on it alone.

    Attributes:
        clock: never goes back, also not behind what is on record as spent.
    """

    lake: Lake
    ledger: LakeLedger
    budget: SpendingBudget
    clock: SteadyClock
    entity_labels: EntityLabels


def claim(settings: Settings, definition: AgentDefinition, tenure: Tenure | None) -> Claimed:
    """Claim the tables of an agent, which fences its predecessor.

    Args:
        tenure: what a process keeps that opens the agent again and again.

    Raises:
        ConfigurationError: a backfill is not finished.
        DataLossError: `batches` does not belong to `transactions`.
        FencedError: another driver is taking over at the same moment, or has since this one's tenure.
    """
    agent, spec, contract = PlacedAgent(settings, definition.spec), definition.spec, definition.contract
    _check_loaded(agent)
    lake = Lake.open(agent.lake, spec, lake_schemas(contract), retention=spec.replay_horizon, tenure=tenure)
    _check_closed(lake)
    labels = LakeReader.of(agent).place("labels")
    clock, book = SteadyClock(utc_now), LabelBook(labels, retention=spec.replay_horizon)
    return Claimed(
        lake=lake,
        ledger=LakeLedger(lake.ledger, spec.name, utc_now),
        budget=restored_budget(spec.llm.budget, lake, clock),
        clock=clock,
        entity_labels=EntityLabels(
            book, lake.transactions.place, lake.alerts.place, contract.labelled_columns
        ),
    )


def _check_loaded(agent: PlacedAgent) -> None:
    left = unfinished_backfill(agent)
    if left is not None:
        raise ConfigurationError(
            f"the backfill of {left.source} was left after {count_of(left.rows, 'row')}: "
            "finish it with `flagstream backfill`",
            where=str(agent.lake),
        )


def _check_closed(lake: Lake) -> None:
    """Check that at most the newest decided batch is not closed.

    Raises:
        DataLossError: `batches` does not belong to `transactions`: one of them was removed or replaced.
    """
    newest = lake.transactions.newest_metadata()
    if newest is None:
        return
    decision, closed = Decision.from_metadata(newest), lake.batches.maximum("next_sequence") or 0
    if closed not in (decision.first_sequence, decision.next_sequence):
        raise DataLossError(
            f"{lake.batches.place} closes transactions up to sequence {closed}, but the newest batch stored "
            f"holds {decision.first_sequence} to {decision.next_sequence}: restore what was removed"
        )
