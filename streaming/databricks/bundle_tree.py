"""A bundle as it was read: its files put together, one target chosen, paths led to the workspace."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.documents import parse_yaml, read_text
from schemas.errors import ConfigurationError, nearest

CONFIGURATION = "databricks.yml"
FILES, WHEELS = "${workspace.file_path}", "${workspace.artifact_path}"
RESOURCES = ("jobs", "schemas", "volumes", "secret_scopes")
_KNOWN = (
    "bundle", "include", "variables", "artifacts", "run_as", "permissions", "targets", "resources",
    "workspace",
)  # fmt: skip
_OF_A_TARGET = ("mode", "default", "variables", "workspace", "run_as", "permissions", "resources")
_BY_CLI = "`databricks bundle deploy` takes it, this deployment does not"
# What tells the elements of a list apart, where two lists are put together.
_NAMED_BY = ("task_key", "job_cluster_key", "name", "principal")

Tree = dict[str, Any]


def read_bundle(folder: Path, target: str) -> Tree:
    """Return a bundle's configuration for one target, references not followed yet.

    Raises:
        ConfigurationError: a file cannot be read, holds what this deployment does not know, or there is no
            such target.
    """
    main = folder / CONFIGURATION
    if not main.exists():
        raise ConfigurationError(
            f"no bundle is here, as there is no {CONFIGURATION}: name its folder with --bundle; "
            "`flagstream deploy databricks --spec SPEC --to FOLDER` writes one",
            where=str(folder.absolute()),
        )
    tree = _document(main, folder)
    for pattern in tree.pop("include", []):
        for path in sorted(folder.glob(str(pattern))):
            tree = merged(tree, _document(path, folder))
    targets = tree.pop("targets", None) or {}
    if target not in targets:
        raise ConfigurationError(
            f"no such target; {nearest(target, targets)}", where=str(main), key="targets"
        )
    chosen = targets[target] or {}
    _check_keys(chosen, _OF_A_TARGET, main, f"targets.{target}")
    given = {"variables": _with_values(chosen.get("variables") or {}), "bundle": {"target": target}}
    return merged(tree, {**{name: each for name, each in chosen.items() if name != "default"}, **given})


def merged(below: Tree, above: Mapping[str, Any]) -> Tree:
    """Return one mapping with another laid over it; elements of lists meet by their names."""
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _merged(below: object, above: object) -> object:
    if isinstance(below, dict) and isinstance(above, dict):
        return merged(below, above)
    if isinstance(below, list) and isinstance(above, list):
        return _joined(below, above)
    return above


def _joined(below: list[Any], above: list[Any]) -> list[Any]:
    found = list(below)
    for each in above:
        place = next((at for at, old in enumerate(found) if _same(old, each)), None)
        if place is None:
            found.append(each)
        else:
            found[place] = merged(found[place], each)
    return found


def _same(one: object, other: object) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    return any(key in one and one[key] == other.get(key) for key in _NAMED_BY)


def _document(path: Path, folder: Path) -> Tree:
    content = parse_yaml(read_text(path), where=str(path))
    if not isinstance(content, dict):
        raise ConfigurationError("expected a mapping of keys to values", where=str(path))
    _check_keys(content, _KNOWN, path, "")
    kinds = content.get("resources") or {}
    _check_keys(kinds, RESOURCES, path, "resources")
    base = path.parent.relative_to(folder).as_posix()
    for job in (kinds.get("jobs") or {}).values():
        for task in job.get("tasks") or []:
            _lead_from_the_folder(task, base)
    return content


def _check_keys(content: object, known: tuple[str, ...], path: Path, key: str) -> None:
    if not isinstance(content, dict):
        raise ConfigurationError("expected a mapping of keys to values", where=str(path), key=key)
    for name in content:
        if name not in known:
            inner = f"{key}.{name}" if key else str(name)
            raise ConfigurationError(f"unknown here: {_BY_CLI}", where=str(path), key=inner)


def _lead_from_the_folder(task: Tree, base: str) -> None:
    """Have the relative paths of a task lead to where its files will be on the workspace."""
    notebook = task.get("notebook_task") or {}
    if _is_relative(notebook.get("notebook_path")):
        notebook["notebook_path"] = _placed(base, notebook["notebook_path"]).removesuffix(".py")
    for library in task.get("libraries") or []:
        if _is_relative(library.get("requirements")):
            library["requirements"] = _placed(base, library["requirements"])
        if _is_relative(library.get("whl")):
            library["whl"] = f"{WHEELS}/*.whl"


def _is_relative(path: object) -> bool:
    return isinstance(path, str) and not path.startswith(("/", "$"))


def _placed(base: str, path: str) -> str:
    return f"{FILES}/{posixpath.normpath(posixpath.join(base, path))}"


def _with_values(variables: Mapping[str, Any]) -> Tree:
    """A target gives a variable as it is, or as a mapping."""
    return {name: each if isinstance(each, dict) else {"default": each} for name, each in variables.items()}
