"""`flagstream init`: the files of a new agent, from three answers or from a sample."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.documents import named_file, parse_yaml
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.spec import TopicName, load_spec
from streaming.commands.contract import SampleWanted, sampled
from streaming.commands.feeds import say_how_read
from streaming.definition.agent_definition import AgentDefinition
from streaming.drafting.agent_files import CONTRACT, SPEC, NewAgent, contract_template
from streaming.drafting.draft import ContractDraft, draft_of
from streaming.files.dialect import FOUND, TextOptions
from streaming.home.private_files import open_to_others
from streaming.home.settings import Settings
from streaming.output.shell import program
from streaming.output.terminal import print_json, say_error, say_line

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_RECORDS = 1_000
_ALERTS_PER_DAY = 100.0
_MOST_ALERTS_PER_DAY = 1e9
_TOPIC = "topic"
_NO_FILE = (_TOPIC, "none")
_HOW_MANY = "How many alerts a day can people look into?"
_WHICH_SAMPLE = (
    "Where is a sample of them: a file (CSV, JSON, Parquet), `topic` for what is on the topic, or none?"
)

Answer = TypeVar("Answer")
Ask = Callable[[str, str], str]
"""Asks a person: the question and the answer that Enter gives → the answer."""


@dataclass(frozen=True)
class InitOptions:
    """What is known of the new agent without asking.

    Attributes:
        name: of the agent.
        to: the folder to make; by default one of the agent's name.
        file: a sample of its events.
        topic: that it reads.
        from_topic: whether the sample is the newest of the topic; without it and `file` there is none.
        alerts_per_day: None where it is to be asked.
        options: how text files are written, where that need not be found.
    """

    name: str
    to: Path | None = None
    file: Path | None = None
    topic: str | None = None
    from_topic: bool = False
    alerts_per_day: float | None = None
    options: TextOptions = FOUND

    @property
    def is_template(self) -> bool:
        """Whether there is no sample."""
        return self.file is None and not self.from_topic


def init_agent(settings: Settings, known: InitOptions, ask: Ask | None, *, as_json: bool) -> None:
    """Write the files of a new agent into a new folder, check them, and say how to go on.

    Args:
        ask: asks for what is not known; None to take what is usual.

    Raises:
        ConfigurationError: the name is none, the folder exists, or the sample cannot be used.
    """
    if not _NAME.fullmatch(known.name):
        raise ConfigurationError(
            f"expected a name of a-z, 0-9 and dashes that begins with a letter, got {known.name!r}",
            where="NAME",
        )
    folder = known.to or Path(known.name)
    _refuse_existing(folder)
    if known.alerts_per_day is not None:
        _checked(known.alerts_per_day, known.alerts_per_day)
    wanted = known if ask is None else answered(known, ask)
    agent = _agent_of(settings, wanted)
    _write(agent.files(), folder)
    following = next_commands(folder, wanted, agent.topic)
    if as_json:
        written = [str(folder / name) for name in agent.files()]
        print_json({"name": agent.name, "written": written, "next": list(following)})
        return
    for name in agent.files():
        say_line(f"wrote {folder / name}")
    if wanted.is_template:
        say_line(f"{folder / CONTRACT} is a template: put the names of your own fields into it first.")
    say_line("Next:")
    for command, why in following.items():
        say_line(f"  # {why}\n  {command}")


def asks_on(*, terminal: bool, yes: bool, known: InitOptions) -> bool:
    """Return whether a person is asked.

    Raises:
        ConfigurationError: somebody would have to be, and there is no terminal.
    """
    if yes or not known.is_template:
        return False
    if terminal:
        return True
    raise ConfigurationError(
        "there is no terminal to ask on: give --file or --topic for a sample, or --yes for a template",
        where="flagstream init",
    )


def answered(known: InitOptions, ask: Ask) -> InitOptions:
    """Ask for topic, sample and number of alerts, each until it will do; return what is known then."""
    topic = _usable(ask, "Which topic will the transactions come on?", known.name, _topic)
    sample = _usable(ask, _WHICH_SAMPLE, "none", _sample)
    alerts = known.alerts_per_day or _usable(ask, _HOW_MANY, "100", _number)
    return replace(
        known,
        topic=topic,
        from_topic=sample == _TOPIC,
        file=None if sample in _NO_FILE else Path(sample),
        alerts_per_day=alerts,
    )


def _usable(ask: Ask, question: str, usual: str, read: Callable[[str], Answer]) -> Answer:
    """Ask again, with what is wrong, until an answer can be read; what is usual always can."""
    while True:
        try:
            return read(ask(question, usual))
        except ConfigurationError as refused:
            say_error(str(refused))


def _topic(answer: str) -> str:
    try:
        return TypeAdapter(TopicName).validate_python(answer)
    except ValidationError:
        problem = f"expected a topic of letters, digits, dots, dashes and underscores, got {answer!r}"
        raise ConfigurationError(problem, where="init") from None


def _sample(answer: str) -> str:
    return answer if answer in _NO_FILE else str(named_file(Path(answer), "sample"))


def next_commands(folder: Path, wanted: InitOptions, topic: str) -> dict[str, str]:
    """Return how to go on, as it can be pasted, and what each command is for."""
    spec, contract = (shlex.quote(str(folder / name)) for name in (SPEC, CONTRACT))
    command = program()
    found = {f"{command} spec validate {spec}": "checks all four files"}
    if wanted.file is not None:
        file = shlex.quote(str(wanted.file))
        found |= {
            f"{command} contract check {contract} {file}": "shows which records of the sample are refused",
            f"{command} produce {file} --contract {contract} --topic {topic}": "sends the sample",
        }
    follow = f"alerts --spec {spec} --follow"
    return found | {
        f"{command} run --spec {spec}": "decides what comes, until Ctrl-C",
        f"{command} {follow}": "prints alerts meanwhile, in a second terminal",
    }


def _agent_of(settings: Settings, wanted: InitOptions) -> NewAgent:
    topic = wanted.topic or wanted.name
    alerts = wanted.alerts_per_day or _ALERTS_PER_DAY
    if wanted.is_template:
        text = contract_template(wanted.name)
        contract = parse_document(parse_yaml(text, where=CONTRACT), EventContract, where=CONTRACT)
        return NewAgent(wanted.name, topic, alerts, contract, text, None)
    draft, largest = _drafted(settings, wanted)
    contract = parse_document(draft.document(), EventContract, where=draft.sample)
    return NewAgent(wanted.name, topic, alerts, contract, draft.text(), largest)


def _drafted(settings: Settings, wanted: InitOptions) -> tuple[ContractDraft, float | None]:
    """Return a contract, and the largest amount of the sample under it."""
    source = None if wanted.file is not None else wanted.topic
    with sampled(settings, SampleWanted(wanted.file, source, _RECORDS, wanted.options)) as sample:
        draft = draft_of(sample)
        contract = parse_document(draft.document(), EventContract, where=sample.name)
        amounts = sample.tried(contract).decoded.valid["amount"]
        say_how_read(sample.said)
    records = count_of(draft.records, "record")
    say_error(f"transactions under the drafted contract: {draft.accepted:,} of {records}")
    return draft, pc.max(amounts).as_py()


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise ConfigurationError("it exists already; name another folder with --to", where=str(folder))


def _write(files: Mapping[str, str], folder: Path) -> None:
    """Write all files and load them as a run would, or leave nothing behind."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        _refuse_existing(folder)
        raise
    except OSError as fault:
        raise ConfigurationError(f"cannot be made: {fault.strerror}", where=str(folder)) from None
    try:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        AgentDefinition.load(load_spec(folder / SPEC), str(folder / SPEC))
        open_to_others([folder, *folder.iterdir()])
    except BaseException:
        shutil.rmtree(folder)
        raise


def _number(answer: str) -> float:
    try:
        number = float(answer)
    except ValueError:
        number = 0.0
    return _checked(number, answer)


def _checked(number: float, given: object) -> float:
    if not 0 < number < _MOST_ALERTS_PER_DAY:
        problem = f"expected a number of alerts above 0 and below a billion, got {given!r}"
        raise ConfigurationError(problem, where="init")
    return number


def ask_on_terminal(question: str, usual: str) -> str:
    """Ask on the terminal, see Ask."""
    shown = f" [{usual}]" if usual else ""
    say_error(f"{question}{shown}: ", end="")
    return sys.stdin.readline().strip() or usual
