"""`flagstream status`: what an agent has done so far and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from agent.triage.worth import Worth
from schemas.counts import count_of
from schemas.errors import StoreError
from streaming.batch.moved import ComputedOn
from streaming.commands.known_agents import check_known
from streaming.home.placed_agent import PlacedAgent
from streaming.output.tables import show_block, show_table, show_text
from streaming.output.terminal import Terminal, print_json, print_json_text
from streaming.run.input_now import read_input
from streaming.run.progress import condition_line
from streaming.run.running_agent import RunningAgent
from streaming.run.status import Status, read_status
from streaming.service.health import ActiveCondition
from streaming.store.presence import store_away
from streaming.versions.clients import known_endpoints
from streaming.versions.shadow_status import SideBySide

_WHO = {"llm": "the model", "rules": "rules"}
_TOTALS = {
    "read": "records read",
    "stored": "  stored",
    "quarantined": "  quarantined",
    "duplicates": "  duplicates",
    "filtered": "  filtered",
    "late": "late transactions",
    "alerts": "alerts",
    "llm_alerts": "  classified by the model",
    "degraded": "  by rules for want of the model",
    "llm_calls": "calls of the model",
    "input_tokens": "  tokens of questions",
    "output_tokens": "  tokens of answers",
}


def show_status(agent: PlacedAgent, *, as_json: bool) -> None:
    """Print an agent's totals, its newest batch and the conditions it stands under.

    Raises:
        ConfigurationError: see check_known.
        StoreError: the lake lies in a store that is away; what the running agent says is printed before.
    """
    lake, health = agent.lake, agent.settings.health(agent.name)
    away = store_away(lake)
    if away is not None:
        _show_without_lake(RunningAgent.of(health, lake), as_json=as_json)
        raise StoreError(away)
    check_known(agent)
    input_now = read_input(agent.settings, agent.spec.data_sources.transactions.subscription)
    status = read_status(agent, input_now).with_health(health, lake)
    print_status(status.with_endpoints(known_endpoints(agent)), as_json=as_json)


def _show_without_lake(found: RunningAgent, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found), default=lambda moment: moment.isoformat())
        return
    show_block(Terminal(), {"running": "yes" if found.running else "no"})
    _show_conditions(found.conditions)


def _show_conditions(conditions: Iterable[ActiveCondition]) -> None:
    console = Terminal()
    for state in conditions:
        show_text(console, condition_line(state.condition, state))


def print_status(status: Status, *, as_json: bool) -> None:
    """Print an agent's totals."""
    if as_json:
        print_json_text(status.to_json())
        return
    parts = (_about_records, _about_input, _about_alerts, _about_batch)
    console = Terminal()
    show_block(console, {name: said for rows in parts for name, said in rows(status)})
    _show_conditions(status.conditions)
    for each in status.beside:
        _show_versions(each, console)


def _about_records(status: Status) -> Iterator[tuple[str, str]]:
    yield "running", "yes" if status.running else "no"
    if status.executors is not None:
        yield "executors of the Spark cluster", f"{status.executors:,}"
    if status.mode is not None:
        yield "execution that pays", f"{status.mode.pays or 'not measured'}: {status.mode.why}"
    yield from _about_buckets(status)
    for name, value in status.totals.items():
        yield _TOTALS[name], f"{value:,}"
    yield from _about_reasons(status)
    yield "batches", f"{status.batches:,}"
    balanced = "in every batch: read = stored + quarantined + duplicates + filtered"
    yield "records accounted for", balanced if status.balanced else "NO: run `flagstream reconcile`"


def _about_reasons(status: Status) -> Iterator[tuple[str, str]]:
    for reason, count in status.quarantine_reasons.items():
        yield f"waiting in quarantine, {reason}", f"{count:,}"
    if status.requests_waiting:
        yield "requeue requests", f"{status.requests_waiting:,}"
    for reason, count in status.filtered_reasons.items():
        yield f"filtered, {reason}", f"{count:,}"
    for reason, share in status.rejected_shares.items():
        yield f"rejected in the last hour, {reason}", f"{share:.2%} of the records"


def _about_buckets(status: Status) -> Iterator[tuple[str, str]]:
    facts = status.buckets
    if facts is None:
        return
    mebibytes = f"{facts.nbytes / 2**20:,.0f} MiB, the largest {facts.most_bytes / 2**20:,.0f}"
    yield (
        "buckets of profiles",
        f"{facts.buckets:,}, of {facts.entities:,} entities, {mebibytes}",
    )
    share = facts.largest / facts.rows if facts.rows else 0.0
    yield "  most rows of a batch in one bucket", f"{facts.largest:,} ({share:.0%})"
    yield "  built anew since the start", f"{facts.rebuilt:,}"


def _about_input(status: Status) -> Iterator[tuple[str, str]]:
    if status.monitoring:
        problems = "" if status.problems is None else f": {status.problems}"
        yield "newest batch", f"{status.monitoring}{problems}"
    if status.lost:
        yield "given up unread", f"{status.lost:,}, with --accept-loss"
    yield "lag", "unknown: no broker answers" if status.lag is None else f"{status.lag:,}"
    if len(status.lag_by_topic) > 1:
        for topic, lag in status.lag_by_topic.items():
            yield f"  lag of {topic}", f"{lag:,}"
    for each in status.open_transactions:
        held = count_of(each.records, "record")
        yield f"  held up in {each.topic}/{each.partition}", f"{held}, by {each}"


def _about_alerts(status: Status) -> Iterator[tuple[str, str]]:
    if status.learning:
        yield "still learning", status.learning
    for name, count in status.late.items():
        yield f"late answers, {name.replace('_', ' ')}", f"{count:,}"
    yield "labels", f"{status.labels:,}"
    for source, worth in status.agreement.items():
        yield f"labelled alerts classified by {_WHO[source]}", _worth_line(worth)
    yield "share by rules for want of the model", f"{status.degraded_share:.1%}"
    yield "cost of the model", f"{status.cost_usd:.4f} USD"
    for each in status.endpoints:
        yield f"model {each.model} at {each.url}", "; ".join(each.differs) or "takes everything that is sent"
        if each.trouble:
            yield "  does not answer", each.trouble


def _worth_line(worth: Worth) -> str:
    """Say how classifications compare with labels, and whether they put frauds before the rest."""
    agreeing = (
        "none decided" if worth.agreeing is None else f"{worth.agreeing:.0%} of {worth.decided:,} agree"
    )
    return (
        f"{worth.alerts:,}: {agreeing} with the label; precision of the first {worth.budget:,}: "
        f"{worth.precision_by_classification:.0%} by classification, {worth.precision_by_score:.0%} by score"
    )


def _about_batch(status: Status) -> Iterator[tuple[str, str]]:
    never = "never" if status.running else "never; `flagstream run` starts the agent"
    yield "last closed", str(status.last_closed_at or never)
    for step, seconds in status.durations.items():
        yield f"last batch, {step}", f"{seconds:.3f} s"
    if status.version:
        yield "version of the spec", status.version
    if status.computed_on is not None:
        yield from _about_machine(status.computed_on)


def _about_machine(found: ComputedOn) -> Iterator[tuple[str, str]]:
    yield "fingerprint of the machine", found.fingerprint
    if found.before is not None:
        yield (
            f"  since batch {found.batch_id}, closed {found.closed_at}",
            f"{found.before} before: scores may differ in their last bits from that batch on, and "
            "`flagstream replay` compares them within a tolerance",
        )


def _show_versions(found: SideBySide, console: Terminal) -> None:
    agreement = "-" if found.agreement is None else f"{found.agreement:.0%}"
    batches = count_of(found.batches, "batch", "batches")
    title = f"over {count_of(found.transactions, 'transaction')} in {batches}; "
    title += f"agreement {agreement}" if found.percent is None else f"{found.percent:g} % of the entities"
    heads = ("published" if found.percent is None else found.published.stage, found.beside.stage)
    rows = (
        (name.replace("_", " "), *(getattr(side, name) for side in (found.published, found.beside)))
        for name in ("version", "alerts", "alerts_per_day", "judged", "precision")
    )
    console.print()
    show_table(console, ("", *heads), rows, title)
