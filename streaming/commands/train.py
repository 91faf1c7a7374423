"""`flagstream train` around the training: reads options, shows progress, writes the artefact."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from schemas.errors import ConfigurationError
from schemas.loading import parse_duration
from streaming.audit.access import record_read
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.learning.training import Known, TrainingOrder, save_next, train_on_lake
from streaming.output.facts import show_facts
from streaming.output.terminal import progress_bar
from streaming.store.opening import folders_of
from streaming.versions.arithmetic import with_arithmetic


def show_training(
    agent: PlacedAgent,
    until: datetime | None,
    labels: str,
    label_delay: str | None,
    seed: int,
    *,
    as_json: bool,
) -> None:
    """Train and print where the artefact lies; see run_training."""
    trained = run_training(agent, until, labels, label_delay, seed)
    record_read(agent, "train", [agent.spec.tables.transactions, agent.spec.tables.labels])
    show_facts(trained, as_json=as_json)


def run_training(
    agent: PlacedAgent,
    until: datetime | None,
    labels: str,
    label_delay: str | None,
    seed: int,
) -> dict[str, Any]:
    """Train with a progress bar when stderr is a terminal; return where the artefact lies and its notes.

    Raises:
        ConfigurationError: an option cannot be used, or there is nothing to learn from.
    """
    try:
        delay = None if label_delay is None else parse_duration(label_delay)
    except ValueError as fault:
        raise ConfigurationError(str(fault), where="--label-delay") from None
    moment = None if until is None else until.replace(tzinfo=UTC)
    order = TrainingOrder(moment, cast("Known", labels), delay, seed)
    contract = AgentDefinition.of(agent.spec).contract
    with progress_bar() as progress:
        task = progress.add_task("scoring stored rows", total=None)
        trained = train_on_lake(
            agent.with_spec(with_arithmetic(agent.spec, agent)),
            contract.entity_names,
            order,
            lambda done, rows: progress.update(task, completed=done, total=rows),
            refunds=contract.has_direction,
        )
    place = save_next(trained, folders_of(agent.settings.models(agent.name), agent.settings.spool))
    return {"artefact": str(place), **trained.training}
