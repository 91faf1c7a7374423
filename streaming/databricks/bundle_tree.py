"""A bundle as it was read: its files put together, one target chosen, paths led to the workspace."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.documents import parse_yaml, read_text
from schemas.errors import ConfigurationError, nearest

CONFIGURATION = "databricks.yml"
FILES, WHEELS = "${workspace.file_path}", "${workspace.artifact_path}"
_FILES_OF_TASKS = {"notebook_task": "notebook_path", "spark_python_task": "python_file"}
RESOURCES = ("jobs", "schemas", "volumes", "secret_scopes")
_KNOWN = (
    "bundle", "include", "variables", "artifacts", "run_as", "permissions", "targets", "resources",
    "workspace",
)  # fmt: skip
_OF_A_TARGET = ("mode", "default", "variables", "workspace", "run_as", "permissions", "resources")
_BY_CLI = "`databricks bundle deploy` takes it, this deployment does not"
# Which keys hold a mapping or a list, from the outside in; `*` is any name, or each element of a list.
_MAPPING, _LIST = dict, list
_SHAPES: Mapping[str, type] = {
    "bundle": _MAPPING,
    "include": _LIST,
    "targets": _MAPPING,
    "variables": _MAPPING,
    "variables.*": _MAPPING,
    "artifacts": _MAPPING,
    "artifacts.*": _MAPPING,
    "run_as": _MAPPING,
    "permissions": _LIST,
    "permissions.*": _MAPPING,
    "workspace": _MAPPING,
    "resources": _MAPPING,
    "resources.*": _MAPPING,
    "resources.*.*": _MAPPING,
    "resources.*.*.permissions": _LIST,
    "resources.*.*.permissions.*": _MAPPING,
    "resources.*.*.grants": _LIST,
    "resources.*.*.grants.*": _MAPPING,
    "resources.*.*.tags": _MAPPING,
    "resources.jobs.*.tasks": _LIST,
    "resources.jobs.*.tasks.*": _MAPPING,
    "resources.jobs.*.tasks.*.libraries": _LIST,
    "resources.jobs.*.tasks.*.libraries.*": _MAPPING,
    "resources.jobs.*.tasks.*.notebook_task": _MAPPING,
    "resources.jobs.*.tasks.*.spark_python_task": _MAPPING,
    "resources.jobs.*.tasks.*.python_wheel_task": _MAPPING,
    "resources.jobs.*.job_clusters": _LIST,
    "resources.jobs.*.job_clusters.*": _MAPPING,
    "resources.jobs.*.continuous": _MAPPING,
    "resources.jobs.*.schedule": _MAPPING,
}
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
    for pattern in tree.pop("include", None) or ():
        for path in _included(folder, str(pattern)):
            tree = merged(tree, _document(path, folder))
    if not (tree.get("bundle") or {}).get("name"):
        raise ConfigurationError("has no name", where=str(main), key="bundle")
    targets = tree.pop("targets", None) or {}
    if target not in targets:
        raise ConfigurationError(
            f"no such target; {nearest(target, targets)}", where=str(main), key="targets"
        )
    chosen = targets[target] or {}
    _check_keys(chosen, _OF_A_TARGET, main, f"targets.{target}")
    own = _with_values(chosen["variables"]) if isinstance(chosen.get("variables"), dict) else None
    _check_shapes({**chosen, "variables": own or chosen.get("variables")}, main, f"targets.{target}.")
    _lead_resources(chosen, main, folder, f"targets.{target}.")
    given = {"variables": own or {}, "bundle": {"target": target}}
    return merged(tree, {**{name: each for name, each in chosen.items() if name != "default"}, **given})


def _included(folder: Path, pattern: str) -> list[Path]:
    """Return the files that a pattern names below the bundle's folder."""
    if pattern.startswith("/") or ".." in pattern.split("/") or not pattern:
        raise ConfigurationError(
            f"{pattern!r} leads out of the bundle", where=str(folder / CONFIGURATION), key="include"
        )
    return sorted(folder.glob(pattern))


def merged(below: Tree, above: Mapping[str, Any]) -> Tree:
    """Return one mapping with another laid over it; elements of lists meet by their names."""
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _merged(below: object, above: object) -> object:
    if isinstance(below, dict) and isinstance(above, dict):
        return merged(below, above)
    if isinstance(below, list) and isinstance(above, list):
        return _joined(below, above)
    is_left_out = above is None and isinstance(below, dict | list)
    return below if is_left_out else above


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
    _check_shapes(content, path)
    _lead_resources(content, path, folder)
    return content


def _lead_resources(content: Tree, path: Path, folder: Path, below: str = "") -> None:
    """Have the tasks of a document, or of one target in it, lead to where their files will be."""
    kinds = content.get("resources") or {}
    _check_keys(kinds, RESOURCES, path, f"{below}resources")
    base = path.parent.relative_to(folder).as_posix()
    for job in (kinds.get("jobs") or {}).values():
        for task in job.get("tasks") or []:
            _lead_from_the_folder(task, base, path, folder)


def _check_shapes(content: Tree, path: Path, below: str = "") -> None:
    """See that mappings and lists are where they are expected; a key without a value is as one left out."""
    for pattern, kind in _SHAPES.items():
        may_be_left_out = not pattern.endswith("*")
        for names, value in _at(content, pattern.split(".")):
            if not (isinstance(value, kind) or (value is None and may_be_left_out)):
                expected = "a list" if kind is list else "a mapping of keys to values"
                raise ConfigurationError(
                    f"expected {expected}", where=str(path), key=f"{below}{'.'.join(names)}"
                )


def _at(
    content: object, parts: Sequence[str], names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield what a pattern leads to, each with the names that lead there."""
    if not parts:
        yield names, content
        return
    inner: Iterable[tuple[object, object]] = enumerate(content) if isinstance(content, list) else ()
    if isinstance(content, dict):
        inner = content.items()
    for name, each in inner:
        if parts[0] in ("*", name):
            yield from _at(each, parts[1:], (*names, str(name)))


def _check_keys(content: object, known: tuple[str, ...], path: Path, key: str) -> None:
    if not isinstance(content, dict):
        raise ConfigurationError("expected a mapping of keys to values", where=str(path), key=key)
    for name in content:
        if name not in known:
            inner = f"{key}.{name}" if key else str(name)
            raise ConfigurationError(f"unknown here: {_BY_CLI}", where=str(path), key=inner)


def _lead_from_the_folder(task: Tree, base: str, path: Path, folder: Path) -> None:
    """Have the relative paths of a task lead to where its files will be on the workspace."""

    def placed(name: str) -> str:
        inner = posixpath.normpath(posixpath.join(base, name))
        if inner.split("/")[0] == ".." or not (folder / inner).is_file():
            raise ConfigurationError(
                f"{name!r} is no file of the bundle", where=str(path), key=str(task.get("task_key"))
            )
        return f"{FILES}/{inner}"

    for kind, key in _FILES_OF_TASKS.items():
        asked = task.get(kind) or {}
        if _is_relative(asked.get(key)):
            asked[key] = placed(asked[key]).removesuffix(".py" if kind == "notebook_task" else "")
    for library in task.get("libraries") or []:
        if _is_relative(library.get("requirements")):
            library["requirements"] = placed(library["requirements"])
        if _is_relative(library.get("whl")):
            library["whl"] = f"{WHEELS}/*.whl"


def _is_relative(path: object) -> bool:
    return isinstance(path, str) and not path.startswith(("/", "$"))


def _with_values(variables: Mapping[str, Any]) -> Tree:
    """A target gives a variable as it is, or as a mapping."""
    return {name: each if isinstance(each, dict) else {"default": each} for name, each in variables.items()}
