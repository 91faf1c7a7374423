"""`flagstream backfill`: checks that history may still come, puts the parts together, shows progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.errors import ConfigurationError
from schemas.instants import moment_of
from schemas.lake_tables import lake_schemas
from schemas.spec import AgentSpec
from streaming.audit.access import record_done
from streaming.audit.audit_log import AuditPlaces
from streaming.batch.backfill_mark import BackfillMark, contract_so_far, newest_decision, unfinished_backfill
from streaming.batch.engine import Engine
from streaming.batch.lake_left import check_none_left
from streaming.batch.mending import mend
from streaming.commands.feeds import say_how_read
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.content import keep_model
from streaming.delta.erasure_plan import check_none_under_way
from streaming.delta.lake import Lake
from streaming.delta.lake_reader import LakeReader
from streaming.files.dialect import FOUND, TextOptions
from streaming.history.backfill import Backfill, Loaded, Passed
from streaming.history.backfill_source import HistorySource, open_history
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts
from streaming.output.terminal import progress_bar, say_error
from streaming.run.ownership import owned
from streaming.setup.process import prepare_process
from streaming.store.opening import folders_of
from streaming.versions.arithmetic import with_arithmetic


def load_history(agent: PlacedAgent, path: Path, *, as_json: bool, options: TextOptions = FOUND) -> None:
    """Load a source and print what became of its rows; see run_backfill."""
    done = run_backfill(agent, path, options)
    if rejected := cast("int", done["quarantined"]):
        rows = f"{count_of(rejected, 'row')} of {done['read']:,}"
        say_error(f"{rows} went to quarantine: `flagstream quarantine list` says why")
    if done["history_until"] is not None:
        say_error(_where_to_go_on(agent.spec, str(done["history_until"])))
    record_done(agent, "backfill", cast("int", done["stored"]), begins_log=True)
    show_facts(done, as_json=as_json)


def run_backfill(agent: PlacedAgent, path: Path, options: TextOptions = FOUND) -> dict[str, object]:
    """Load a file or table into an agent's lake, with a progress bar when stderr is a terminal.

    Raises:
        MachineError: the state cannot be kept where it is to be.
        ConfigurationError: the source cannot be read, the agent has stored something else already, or its
            audit log needs a key; nothing was written.
    """
    if not agent.lake.is_local:
        AuditPlaces(agent).first_key()  # none is made in a store
    definition = AgentDefinition.load(agent.spec, kept=contract_so_far(agent))
    source = source_to_load(agent, definition.contract, path, options)
    say_how_read(source.said)
    with progress_bar() as progress:
        reading = progress.add_task(f"checking {path.name}", total=None)
        task = progress.add_task("loading", total=source.count())
        progress.remove_task(reading)
        began = time.monotonic()
        done = load(agent, source, lambda rows: progress.update(task, completed=rows))
    seconds = time.monotonic() - began
    per_s = round(done.read / max(seconds, 1e-9), 1)
    until = _history_until(agent)
    facts = {
        "seconds": round(seconds, 3),
        "events_per_s": per_s,
        "source": source.name,
        "history_until": until,
    }
    return {**asdict(done), **facts}


def _history_until(agent: PlacedAgent) -> str | None:
    """Return the latest event time that was stored, ISO 8601, None where nothing was."""
    decision = newest_decision(agent)
    if decision is None or not decision.next_sequence:
        return None
    return moment_of(decision.watermark_us).isoformat()


def _where_to_go_on(spec: AgentSpec, until: str) -> str:
    said = (
        f"history goes up to {until}. The topic is to be read from there on: what it holds of earlier "
        "payments is stored a second time"
    )
    key = "data_sources.transactions.starting_offsets"
    if spec.data_sources.transactions.starting_offsets == "latest":
        return f"{said}. {key} is latest: the first run begins at the topic's end, so start it at once"
    return (
        f"{said}. {key} is earliest, which reads all that it holds: set it to latest and start the agent at "
        "once, or load only payments that the topic does not hold"
    )


def source_to_load(
    agent: PlacedAgent,
    contract: EventContract,
    path: Path,
    options: TextOptions = FOUND,
) -> HistorySource:
    """Open a source that may be loaded: into a lake without transactions, or where it was left off.

    Raises:
        ConfigurationError: it may not, or cannot be read.
    """
    left = unfinished_backfill(agent)
    if left is None:
        source = open_history(path, contract, options=options)
        _check_nothing_stored(agent, source)
        return source
    source = open_history(path, contract, left.version, options)
    if source.digest != left.digest:
        raise ConfigurationError(
            f"the backfill of {left.source} is not finished, and this is another source", where=str(path)
        )
    return source


def load(
    agent: PlacedAgent,
    source: HistorySource,
    on_progress: Callable[[int], None] = lambda _: None,
    reached: Callable[[Passed], None] = lambda _: None,
) -> Loaded:
    """Take the agent over and load a source; see streaming.history.backfill.Backfill.

    Raises:
        MachineError: the state cannot be kept where it is to be.
        RetryableError: somebody else runs the agent.
        ConfigurationError: its lake was left elsewhere.
    """
    prepare_process(agent.settings.home)
    check_none_left(agent)
    check_none_under_way(agent.lake)
    mend(agent)
    definition = AgentDefinition.of(with_arithmetic(agent.spec, agent)).completed()
    spec, schemas = definition.spec, lake_schemas(definition.contract)
    with owned(agent):
        lake = Lake.open(agent.lake, spec, schemas, retention=spec.replay_horizon)
        engine = Engine.on_rules(agent.settings, definition)
        keep_model(spec.model, folders_of(agent.settings.artefacts(agent.name), agent.settings.spool))
        return Backfill(engine, lake, source, reached=reached).run(on_progress)


def _check_nothing_stored(agent: PlacedAgent, source: HistorySource) -> None:
    """What a first batch had set aside when it was cut off belongs to its source."""
    decision = newest_decision(agent)
    mark = None if decision is None else BackfillMark.of(decision.pins)
    if mark is not None:
        raise ConfigurationError(f"the backfill of {mark.source} is finished", where=str(agent.lake))
    reader = LakeReader.of(agent)
    stored = reader.count("transactions"), reader.count("batches")
    aside = reader.rows("quarantine", ["query_id"]), reader.rows("duplicates", ["query_id"])
    others = (set(rows["query_id"].to_pylist()) - {source.query_id} for rows in aside)
    if decision is not None or any(stored) or any(others):
        raise ConfigurationError(
            "the agent has stored transactions already, and history can only come before all else: "
            "give it a new name",
            where=str(agent.lake),
        )
