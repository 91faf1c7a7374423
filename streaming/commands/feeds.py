"""`flagstream simulate` and `produce`: events for a topic or a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from streaming.commands.broker import broker_of
from streaming.files.dialect import FOUND, TextOptions
from streaming.files.event_files import open_events
from streaming.home.settings import Settings
from streaming.kafka.feeds import Simulated, produce_file, simulate_to_file, simulate_to_topic
from streaming.kafka.topic_admin import ensure_topic
from streaming.output.facts import show_facts
from streaming.output.terminal import progress_bar, say_error

_SECONDS_PER_DAY = 86_400
_SHOWN_FILES = 3


@dataclass(frozen=True)
class Simulation:
    """A stream to be simulated.

    Attributes:
        rate: payments per second.
        seconds: for how long.
        days: of event time that pass meanwhile, on a topic.
    """

    rate: float
    seconds: float
    seed: int
    days: float


def simulate(settings: Settings, wanted: Simulation, topic: str, file: Path | None, *, as_json: bool) -> None:
    """Send simulated payments to a topic, or write them to a file, and print how many.

    Raises:
        ConfigurationError: the file's ending is unknown, or event time would run ahead.
    """
    sent = _to_topic(settings, wanted, topic) if file is None else _to_file(wanted, file)
    counts = {"sent": sent.events, "frauds": sent.frauds, "labels": str(sent.labels), "seed": wanted.seed}
    show_facts(counts, as_json=as_json)


def produce(
    settings: Settings,
    file: Path,
    contract: EventContract,
    *,
    topic: str | None,
    rate: float | None,
    partitions: int,
    as_json: bool,
    options: TextOptions = FOUND,
) -> None:
    """Send a file's rows as events, to a topic that is created when absent, and print how many.

    Raises:
        ConfigurationError: the file cannot be read under the contract, or its records are not plain JSON.
    """
    if not contract.reads_plain_json:
        raise ConfigurationError(
            "produce sends records of plain JSON, and this contract reads another format or fields beside "
            "the value",
            where=contract.name,
        )
    with broker_of(settings) as bootstrap:
        topic = topic or contract.name
        events = open_events(file, contract, options=options)  # a file that cannot be read makes no topic
        say_how_read(events.said)
        ensure_topic(bootstrap, topic, partitions)
        with progress_bar() as progress:
            task = progress.add_task(f"{file.name} → {topic}", total=events.rows)
            done = produce_file(
                bootstrap, events, topic=topic, rate=rate,
                on_progress=lambda sent: progress.update(task, completed=sent),
            )  # fmt: skip
    per_s = round(done.sent / max(done.seconds, 1e-9), 1)
    facts = {"sent": done.sent, "seconds": round(done.seconds, 3), "events_per_s": per_s, "topic": topic}
    show_facts(facts, as_json=as_json)


def _to_file(wanted: Simulation, file: Path) -> Simulated:
    return simulate_to_file(file, rate=wanted.rate, seconds=wanted.seconds, seed=wanted.seed)


def _to_topic(settings: Settings, wanted: Simulation, topic: str) -> Simulated:
    labels = settings.home / "labels" / f"{topic}-{datetime.now(UTC):%Y%m%dT%H%M%S}.parquet"
    with broker_of(settings) as bootstrap:
        return simulate_to_topic(
            bootstrap, topic, rate=wanted.rate, seconds=wanted.seconds, seed=wanted.seed,
            compress=max(wanted.days * _SECONDS_PER_DAY / wanted.seconds, 1.0), labels=labels,
        )  # fmt: skip


def say_how_read(said: Sequence[str]) -> None:
    """Say on stderr how the text of files was taken, the first few of many."""
    for line in said[:_SHOWN_FILES]:
        say_error(line)
    if len(said) > _SHOWN_FILES:
        say_error(f"and {len(said) - _SHOWN_FILES:,} more files")
