"""`flagstream labels`: a file's labels recorded, and how many there are."""

from __future__ import annotations

from pathlib import Path

from streaming.audit.access import record_done
from streaming.commands.known_agents import check_known
from streaming.delta.lake_reader import LakeReader
from streaming.files.dialect import FOUND, TextOptions
from streaming.home.placed_agent import PlacedAgent
from streaming.labels.book import LabelBook, label_status
from streaming.labels.label_files import LabelColumns, import_labels, known_rows
from streaming.labels.recorded import Recorded
from streaming.output.facts import show_facts
from streaming.output.terminal import progress_bar, say_error
from streaming.store.place import Place

_SHOWN_REJECTS = 10


def record_labels(
    agent: PlacedAgent,
    file: Path,
    columns: LabelColumns,
    by: str,
    *,
    as_json: bool,
    options: TextOptions = FOUND,
) -> bool:
    """Record a file's labels and print the counts; return False where no row held a label.

    Args:
        by: who decided, where no column says.

    Raises:
        ConfigurationError: the file or a column cannot be read.
    """
    done = _imported(file, _book(agent), columns, by, options)
    record_done(agent, "labels-import", done.stored)
    counts = {"read": done.read, "stored": done.stored, "repeated": done.repeated, "rejected": done.rejected}
    rejects = {"rejects": done.rejects.slice(0, _SHOWN_REJECTS).to_pylist()} if as_json else {}
    show_facts({**counts, **rejects}, as_json=as_json)
    return not done.rejected or done.rejected < done.read


def show_label_status(agent: PlacedAgent, *, as_json: bool) -> None:
    """Print how many labels, labelled transactions and frauds there are.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(agent)
    show_facts(label_status(_labels(agent), agent.spec.replay_horizon).facts(), as_json=as_json)


def _book(agent: PlacedAgent) -> LabelBook:
    return LabelBook(_labels(agent), retention=agent.spec.replay_horizon)


def _labels(agent: PlacedAgent) -> Place:
    return LakeReader.of(agent).place("labels")


def _imported(file: Path, book: LabelBook, columns: LabelColumns, by: str, options: TextOptions) -> Recorded:
    with progress_bar() as progress:
        task = progress.add_task(f"{file.name} → labels", total=known_rows(file))
        recorded = import_labels(
            file, book, columns=columns, by=by, options=options, on_say=say_error,
            on_progress=lambda rows: progress.update(task, completed=rows),
        )  # fmt: skip
    _name_rejects(file, recorded)
    return recorded


def _name_rejects(file: Path, recorded: Recorded) -> None:
    for reject in recorded.rejects.slice(0, _SHOWN_REJECTS).to_pylist():
        say_error(f"{file}: row {reject['source_position']}: {reject['reason']}")
    if recorded.rejected > _SHOWN_REJECTS:
        say_error(f"{file}: and {recorded.rejected - _SHOWN_REJECTS:,} more rows")
