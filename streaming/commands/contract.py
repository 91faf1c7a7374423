"""`flagstream contract`: contracts drafted from samples, and tried on them before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.contract import EventContract, load_contract
from schemas.counts import count_of
from schemas.documents import is_path
from schemas.errors import ConfigurationError
from streaming.commands.broker import broker_of
from streaming.commands.feeds import say_how_read
from streaming.drafting.checking import SampleCheck, check_sample
from streaming.drafting.draft import ContractDraft, draft_of
from streaming.drafting.sample import EventSample, FileSample, TopicSample
from streaming.files.dialect import FOUND, TextOptions
from streaming.home.private_files import open_to_others
from streaming.home.settings import Settings
from streaming.kafka.schema_registry import schema_source
from streaming.kafka.topic import newest_messages
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json, say_error, say_line

_OFTEN, _ENOUGH_ROWS = 0.2, 20


@dataclass(frozen=True)
class SampleWanted:
    """Which sample is taken.

    Attributes:
        file: a file, folder or Delta table; None for a topic.
        topic: a topic; None for a file.
        records: how many, the first of a file or the newest of a topic.
        options: how text files are written, where that need not be found.
    """

    file: Path | None
    topic: str | None
    records: int
    options: TextOptions = FOUND


def one_file(given: Path | None, named: Path | None) -> Path | None:
    """Return the file of a sample, which is given as it is or by an option.

    Raises:
        ConfigurationError: both are given.
    """
    if given is not None and named is not None:
        raise ConfigurationError("the sample is given twice: leave one out", where="--file")
    return given or named


def contract_for(contract: str, sample: Path | None) -> EventContract:
    """Return a contract by its file or the name of a shipped one.

    Raises:
        ConfigurationError: it cannot be read; where the sample stands in its place that is said.
    """
    try:
        return load_contract(contract)
    except ConfigurationError:
        is_swapped = sample is not None and _is_contract(sample)
        if not is_swapped and (is_path(contract) or not Path(contract).exists()):
            raise
    right = shlex.join(
        ["flagstream", "contract", "check", str(sample) if is_swapped else "CONTRACT", contract]
    )
    raise ConfigurationError(f"the contract comes first: {right}", where="contract check")


def _is_contract(file: Path) -> bool:
    try:
        load_contract(str(file.absolute()))
    except ConfigurationError:
        return False
    return True


def infer(settings: Settings, wanted: SampleWanted, to: Path | None, *, as_json: bool) -> None:
    """Draft a contract and print it, or write it to a file.

    Raises:
        ConfigurationError: the sample cannot be read, or lacks what a contract must say; or the file exists.
    """
    with sampled(settings, wanted) as sample:
        draft = draft_of(sample)
        say_how_read(sample.said)
    if to is not None:
        _write(draft, to)
    if as_json:
        print_json(_described(draft))
    elif to is None:
        say_line(draft.text(), end="")
    share = draft.accepted / max(draft.records, 1)
    say_error(
        f"{draft.accepted:,} of {count_of(draft.records, 'record')} ({share:.1%}) are payments under this "
        "contract"
    )


def check(
    settings: Settings, contract: EventContract, wanted: SampleWanted, most: float, *, as_json: bool
) -> bool:
    """Try a contract on a sample and print what became of it; return whether at most a share is rejected.

    Args:
        most: the share of the records that may be rejected.

    Raises:
        ConfigurationError: the sample cannot be read.
    """
    with sampled(settings, wanted) as sample:
        found = check_sample(sample, contract)
        say_how_read(sample.said)
    passed = found.rejected_share <= most
    if as_json:
        print_json({**asdict(found), "rejected_share": found.rejected_share, "passed": passed})
    else:
        _show(found, most)
    return passed


@contextmanager
def sampled(settings: Settings, wanted: SampleWanted) -> Iterator[EventSample]:
    """Yield a sample.

    Raises:
        ConfigurationError: a file and a topic are named, or neither, or the topic holds nothing.
    """
    if (wanted.file is None) == (wanted.topic is None):
        raise ConfigurationError("expected a file or --topic, and not both")
    if wanted.file is not None:
        yield FileSample(wanted.file, wanted.records, wanted.options)
    elif wanted.topic is not None:
        with broker_of(settings) as bootstrap:
            messages = newest_messages(bootstrap, wanted.topic, wanted.records)
        if not messages:
            raise ConfigurationError("the topic holds no records", where=wanted.topic)
        yield TopicSample(wanted.topic, messages, schema_source(settings))


def _write(draft: ContractDraft, to: Path) -> None:
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(draft.text())
        open_to_others([to])
    except FileExistsError:
        raise ConfigurationError("it exists already; name another file", where=str(to)) from None
    except OSError as fault:
        raise ConfigurationError(f"cannot be written: {fault.strerror}", where=str(to)) from None


def _described(draft: ContractDraft) -> dict[str, Any]:
    guesses = [
        {"key": each.key, "value": each.value, "share": each.share, "why": each.why} for each in draft.guesses
    ]
    return {
        "contract": draft.document(),
        "guesses": guesses,
        "possible_labels": list(draft.left_out),
        "records": draft.records,
        "accepted": draft.accepted,
        "share": draft.accepted / max(draft.records, 1),
    }


def _show(found: SampleCheck, most: float) -> None:
    counts = {"records": found.records, "accepted": found.accepted, "repeated ids": found.repeated}
    show_facts(
        {**counts, "rejected": f"{found.rejected_share:.2%} of the records; {most:.2%} allowed"},
        as_json=False,
    )
    console = Terminal()
    reasons = [("filtered", *each) for each in found.filtered.items()]
    reasons += [("rejected", *each) for each in found.rejected.items()]
    reasons += [("field unused", *each) for each in found.faults.items()]
    if reasons:
        cells = [(what, why, f"{count:,}", f"{count / found.records:.2%}") for what, why, count in reasons]
        show_table(console, ("what", "reason", "records", "share"), cells)
    for reason, examples in found.examples.items():
        rows = [(each.place, each.detail or "", each.value) for each in examples]
        show_table(console, ("record", "detail", "begins"), rows, reason)
    if found.shown_twice:
        say_error(
            f"{count_of(found.shown_twice, 'payment')} of an hour that clocks show twice: the first was taken"
        )
    for name, share in found.largest.items():
        if share > _OFTEN and found.accepted >= _ENOUGH_ROWS:
            say_error(f"one {name} has {share:.0%} of the payments: is that one {name}, or a placeholder?")
