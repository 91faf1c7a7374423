"""Checks every spec, policy, file of rules and prompt below some folders, and tells all faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.model.prompt_files import load_prompt, load_wording
from agent.planning.planning import PLACEHOLDERS
from agent.triage.prompt_evaluation import load_cases
from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from schemas.llm import PromptReference
from schemas.loading import load_document
from schemas.policy import load_policy
from schemas.rules import RuleFile
from schemas.spec import load_spec
from streaming.definition.agent_definition import AgentDefinition
from streaming.versions.clients import check_endpoint

_NOTES_OF = "simulator"  # any contract's notes fill a prompt's placeholder


@dataclass(frozen=True)
class Checked:
    """One file, and what is wrong with it; None when nothing is."""

    kind: str
    path: Path
    fault: str | None


def check_content(folders: Iterable[Path]) -> list[Checked]:
    """Check the files of each kind, known by their places.

    These are `specs/*.yaml`, `policies/*.json`, `rules/*.yaml`, `prompts/ID/vN.md` and its `cases.yaml`.

    Raises:
        ConfigurationError: a folder is not there, or none of them holds a spec.
    """
    found = [checked for folder in folders for checked in _below(folder)]
    if not any(each.kind == "spec" for each in found):
        raise ConfigurationError("no specs/*.yaml below these folders", where="FOLDERS")
    return found


def specs_below(folders: Iterable[Path]) -> list[Path]:
    """Return the files of specs."""
    return [path for folder in folders for path in _matching(folder, "specs/*.yaml")]


def _below(folder: Path) -> Iterator[Checked]:
    if not folder.is_dir():
        raise ConfigurationError("no such folder", where=str(folder))
    for kind, (pattern, check) in _KINDS.items():
        for path in _matching(folder, pattern):
            yield Checked(kind, path, _fault(check, path))


def _matching(folder: Path, pattern: str) -> list[Path]:
    return sorted({*folder.glob(pattern), *folder.glob(f"*/{pattern}")})


def _fault(check: Callable[[Path], object], path: Path) -> str | None:
    try:
        check(path)
    except ConfigurationError as fault:
        return str(fault)
    return None


def _check_spec(path: Path) -> None:
    spec = load_spec(path)
    AgentDefinition.load(spec, str(path))
    check_endpoint(spec, str(path))


def _check_rules(path: Path) -> None:
    load_document(path, RuleFile)


def _check_policy(path: Path) -> None:
    load_policy(str(path.resolve()), path.parent)


def _check_prompt(path: Path) -> None:
    if not path.stem[1:].isdecimal():
        raise ConfigurationError("expected a name such as v1.md", where=str(path))
    reference = PromptReference(id=path.parent.name, version=int(path.stem[1:]))
    folder = path.parent.parent
    if reference.id in PLACEHOLDERS:
        load_wording(reference, *PLACEHOLDERS[reference.id], folder)
    else:
        load_prompt(reference, load_contract(_NOTES_OF).prompt_notes(), folder)


def _check_cases(path: Path) -> None:
    load_cases(path.parent.name, path)


_KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "spec": ("specs/*.yaml", _check_spec),
    "policy": ("policies/*.json", _check_policy),
    "rules": ("rules/*.yaml", _check_rules),
    "prompt": ("prompts/*/v*.md", _check_prompt),
    "cases": ("prompts/*/cases.yaml", _check_cases),
}
