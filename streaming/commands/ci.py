"""`flagstream ci`: checks all content, tries every spec on a fixture, and writes one report in Markdown."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.contract import load_contract
from schemas.counts import count_of
from schemas.errors import ConfigurationError
from schemas.spec import load_spec
from streaming.commands.content_check import Checked, check_content, specs_below
from streaming.commands.fixture_lake import Fixture, build_fixture
from streaming.commands.replay import within_tolerance
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.decided import DecidedHistory
from streaming.history.replay import Replayer
from streaming.history.replayed import ExactReplay
from streaming.history.what_if import what_if
from streaming.history.what_if_found import WhatIf
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.terminal import print_json, say_line

_FIXTURE_CONTRACT = "simulator"
_SIDES = ("alerts", "alerts_per_day", "judged", "frauds", "precision", "recall")


@dataclass(frozen=True)
class Tried:
    """A spec on the fixture.

    Attributes:
        exact: the fixture's own replay.
        changed: what the spec decides otherwise than the one before it, None where that says the same.
    """

    name: str
    version: str
    exact: ExactReplay
    changed: WhatIf | None

    def facts(self) -> dict[str, Any]:
        """Return it JSON-serialisable with `default=str`."""
        changed = None if self.changed is None else self.changed.facts()
        return {"name": self.name, "version": self.version, "replay": self.exact.facts(), "changed": changed}


@dataclass(frozen=True)
class CiReport:
    """What came of a run.

    Attributes:
        left_out: specs that no fixture fits.
    """

    checked: Sequence[Checked]
    tried: Sequence[Tried]
    left_out: Sequence[str]

    @property
    def exit_code(self) -> int:
        """2 for a file that cannot be used, 1 for a replay that differs from what was decided, else 0."""
        if any(each.fault for each in self.checked):
            return 2
        return 1 if any(each.exact.differences for each in self.tried) else 0

    def facts(self) -> dict[str, Any]:
        """Return it JSON-serialisable with `default=str`; a replay that was exact has tolerated nothing."""
        return {
            "checked": [asdict(each) for each in self.checked],
            "tried": [each.facts() for each in self.tried],
            "left_out": list(self.left_out),
            "exit_code": self.exit_code,
        }


def check_folders(
    folders: Sequence[Path],
    base: Sequence[Path],
    fixture: Fixture,
    summary: Path | None,
    *,
    as_json: bool = False,
) -> int:
    """Check folders, print the report or append it to `summary`, and return the exit code.

    Args:
        as_json: print what was found as JSON, beside the report in `summary`.
    """
    report = run_ci(folders, base, fixture)
    text = markdown(report)
    if summary is not None:
        write_report(text, summary)
    if as_json:
        print_json(report.facts(), default=str)
    elif summary is None:
        say_line(text, end="")
    return report.exit_code


def run_ci(folders: Sequence[Path], base: Sequence[Path], fixture: Fixture) -> CiReport:
    """Check everything below `folders`; where that is right, try each spec on simulated payments.

    Args:
        base: folders with the specs as they were, by name; without one of the same name a spec is its own.

    Raises:
        ConfigurationError: a folder is not there.
    """
    checked = check_content(folders)
    if any(each.fault for each in checked):
        return CiReport(checked, (), ())
    before = {each.spec.name: each for each in map(_complete, specs_below(base))}
    found = list(map(_complete, specs_below(folders)))
    contract = load_contract(_FIXTURE_CONTRACT)
    fitting = [each for each in found if each.contract.digest == contract.digest]
    tried = [_tried(before.get(each.spec.name, each), each, fixture) for each in fitting]
    return CiReport(checked, tried, [each.spec.name for each in found if each not in fitting])


def markdown(report: CiReport) -> str:
    """Return the report as a page of Markdown."""
    faults = [each for each in report.checked if each.fault]
    lines = ["# Specs", "", *_counts(report.checked), ""]
    lines += [f"- **{each.kind}** {_quoted(str(each.fault))}" for each in faults]
    for each in report.tried:
        lines += ["", *_section(each)]
    if report.left_out:
        lines += ["", f"Checked, but not tried on simulated payments: {', '.join(report.left_out)}."]
    return "\n".join(lines) + "\n"


def write_report(text: str, path: Path) -> None:
    """Append the report to a file, as the job summary of GitHub Actions wants it.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as fault:
        raise ConfigurationError(f"cannot be written: {fault.strerror}", where=str(path)) from None


def _tried(before: AgentDefinition, changed: AgentDefinition, fixture: Fixture) -> Tried:
    with tempfile.TemporaryDirectory(prefix="flagstream-ci-") as folder:
        settings = Settings.load(Path(folder), {})
        build_fixture(settings, before, fixture)
        history = DecidedHistory(PlacedAgent(settings, before.spec))
        replayer = Replayer(settings, before, history)
        exact, found, spec = replayer.exactly(history.whole), None, changed.spec
        if spec.digest != before.spec.digest:
            sandbox = settings.sandbox(spec.name) / spec.version
            found = what_if(replayer, history, before, changed, history.whole, sandbox)
        return Tried(spec.name, spec.version, exact, found)


def _complete(path: Path) -> AgentDefinition:
    return AgentDefinition.of(load_spec(path).anew()).completed()


def _counts(checked: Iterable[Checked]) -> list[str]:
    kinds = list(dict.fromkeys(each.kind for each in checked))
    rows = [[each for each in checked if each.kind == kind] for kind in kinds]
    table = [["checked", "files", "faults"]]
    table += [
        [kind, str(len(of)), str(sum(each.fault is not None for each in of))]
        for kind, of in zip(kinds, rows, strict=True)
    ]
    return _table(table)


def _section(tried: Tried) -> list[str]:
    exact, found = tried.exact, tried.changed
    lines = [
        f"## {tried.name} {tried.version}",
        "",
        f"Replay of {count_of(exact.rows, 'simulated transaction')}: {count_of(exact.alerts, 'alert')}, "
        f"**{count_of(len(exact.differences), 'difference')}**, {_compared(exact)}.",
    ]
    if found is None:
        return [*lines, "", "The spec decides as before."]
    pairs = [(name, getattr(found.published, name), getattr(found.replayed, name)) for name in _SIDES]
    table = [["", "before", "changed"]]
    table += [[name.replace("_", " "), *map(_shown, values)] for name, *values in pairs]
    moved = f"{count_of(found.added, 'alert')} added, {found.removed} removed, {found.kept} kept."
    return [*lines, "", *_table(table), "", moved]


def _compared(exact: ExactReplay) -> str:
    """Say how: a replay on another class of processors than decided lets the last bits of scores pass."""
    return (
        "bit for bit"
        if exact.tolerated is None
        else f"within a tolerance: {within_tolerance(exact.tolerated)}"
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _quoted(text: str) -> str:
    """Faults quote files: nothing in them may be read as Markdown."""
    return f"`` {' '.join(text.split())} ``".replace("```", "'''")
