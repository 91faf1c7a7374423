"""`flagstream replay`: an exact replay, and what it found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.counts import count_of
from schemas.spec import AgentSpec
from streaming.audit.access import record_read
from streaming.history.replay_runs import OnProgress, ReplaySpan, run_replay
from streaming.history.replayed import ExactReplay
from streaming.history.tolerance import Tolerated
from streaming.home.placed_agent import PlacedAgent
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json, progress_bar

_SHOWN = 20
_DIFFERS, _WITHIN = 1, 6  # exit codes; those between are of errors, see schemas.errors


def replay_exactly(agent: PlacedAgent, wanted: ReplaySpan, *, as_json: bool) -> int:
    """Replay a span and print what differs; return the exit code.

    Raises:
        ConfigurationError: the span cannot be had.
    """
    with replay_progress() as moved_on:
        found = run_replay(agent, wanted, moved_on)
    record_read(agent, "replay", tables_read(agent.spec))
    print_json(found.facts(), default=str) if as_json else show_replay(found, Terminal())
    if found.differences:
        return _DIFFERS
    return _WITHIN if found.tolerated is not None and found.tolerated.was_needed else 0


_NEWEST = (
    "The versions of the tables that these batches have pinned were made unreadable by an erasure or by "
    "retention; the newest ones were read instead, by sequence."
)


def tables_read(spec: AgentSpec) -> list[str]:
    """Return the tables that every replay reads."""
    return [spec.tables.transactions, spec.tables.alerts, spec.tables.labels]


@contextmanager
def replay_progress() -> Iterator[OnProgress]:
    """Show a bar that what is yielded moves on."""
    with progress_bar() as progress:
        task = progress.add_task("replaying", total=None)
        yield lambda rows, total: progress.update(task, advance=rows, total=total)


def show_replay(found: ExactReplay, console: Terminal) -> None:
    """Print what an exact replay found."""
    show_text(
        console,
        f"{found.span}: {count_of(found.rows, 'transaction')} decided anew, "
        f"{count_of(found.alerts, 'published alert')} compared, "
        f"{count_of(len(found.differences), 'difference')}"
        + (f"; {count_of(found.backfilled, 'backfilled one')} passed over" if found.backfilled else ""),
    )
    if found.reads_newest:
        show_text(console, _NEWEST)
    if found.tolerated is not None:
        show_text(console, within_tolerance(found.tolerated))
    if found.differences:
        rows = (
            (each.alert_id, each.transaction_id, each.what, ", ".join(each.fields))
            for each in found.differences[:_SHOWN]
        )
        show_table(console, ("alert", "transaction", "what", "fields"), rows)
        if len(found.differences) > _SHOWN:
            show_text(console, f"and {len(found.differences) - _SHOWN} more; --json lists all")


def within_tolerance(found: Tolerated) -> str:
    """Say what was compared within a tolerance, and how much of it was needed."""
    batches = count_of(found.batches, "batch", "batches")
    said = (
        f"{batches} computed by a machine of another fingerprint, or after one: compared within a tolerance, "
        f"by which scores may lie {found.scores_within:g} apart; "
    )
    if not found.was_needed:
        return said + "none of it was needed"
    largest = ", ".join(f"{name} {value:.2g}" for name, value in sorted(found.largest.items()) if value)
    said += f"{count_of(found.alerts, 'alert')} differ within it, at most by: {largest or 'a rounded text'}"
    if found.flipped:
        said += (
            f"; {count_of(len(found.flipped), 'alert')} on one side alone, with scores at their thresholds"
        )
    return said
