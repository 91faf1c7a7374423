"""A bundle for one target, resolved: what is to be on the workspace, typed and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from databricks.bundles.jobs import Job
from databricks.bundles.schemas import Schema
from databricks.bundles.secret_scopes import SecretScope
from databricks.bundles.volumes import Volume

from schemas.errors import ConfigurationError
from streaming.databricks.bundle_tree import CONFIGURATION, Tree, merged, read_bundle
from streaming.databricks.references import followed, in_tree
from streaming.databricks.wheel import PlatformWheel

_HOME = "/Workspace/Users/${workspace.current_user.userName}/.bundle/${bundle.name}/${bundle.target}"
_VERSION = "${deployment.version}"
_BUILD = "flagstream databricks wheel dist"
_LEFT_OUT = frozenset({"dist", "node_modules", "__pycache__"})
_MOST_BYTES = 10 * 1024 * 1024
_DIGEST_CHARACTERS = 12
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "jobs": ("name", "tasks"),
    "schemas": ("catalog_name", "name"),
    "volumes": ("catalog_name", "schema_name", "name"),
    "secret_scopes": ("name",),
}
_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "jobs": Job.from_dict,
    "schemas": Schema.from_dict,
    "volumes": Volume.from_dict,
    "secret_scopes": SecretScope.from_dict,
}


@dataclass(frozen=True)
class ResolvedBundle:
    """What a bundle asks for on one target.

    Attributes:
        version: tells it from any other content, files and wheel included.
        root: folder of all versions on the workspace.
        file_path: folder of this version's files.
        wheel: where the wheel goes.
        resources: kind → key → as the API takes it.
        run_as: identity of all jobs.
        permissions: on the folder.
        files: path below `file_path` → content.
    """

    name: str
    target: str
    version: str
    root: str
    file_path: str
    wheel: str
    resources: Mapping[str, Mapping[str, Tree]]
    run_as: Mapping[str, str]
    permissions: tuple[Mapping[str, str], ...]
    files: Mapping[str, bytes]

    @property
    def jobs(self) -> Mapping[str, Tree]:
        """The jobs by their keys."""
        return self.resources.get("jobs", {})

    def names(self) -> dict[str, str]:
        """Return the jobs' names on the workspace, by their keys."""
        return {key: str(each["name"]) for key, each in self.jobs.items()}


def resolve(
    folder: Path, target: str, given: Mapping[str, str], user: str, wheel: PlatformWheel
) -> ResolvedBundle:
    """Resolve a bundle for a target.

    Args:
        folder: of the bundle.
        target: one of those it has.
        given: variable → value, over what the bundle says.
        user: who deploys, as the workspace knows them.
        wheel: that the jobs run.

    Raises:
        ConfigurationError: the bundle cannot be used.
    """
    tree = _completed(read_bundle(folder, target), given, user)
    _check_build(tree)
    files = _files(folder)
    version = _digest(tree, files, wheel)
    tree = merged(tree, {"deployment": {"version": version}})
    found = followed(tree, lambda name: in_tree(tree, name))
    place = found["workspace"]
    _rooted(place["root_path"])  # also with all that its references have brought
    wheel_path = f"{place['artifact_path']}/{wheel.file_name}"
    resources = _checked(found.get("resources") or {}, wheel_path, place["artifact_path"])
    return ResolvedBundle(
        name=str(found["bundle"]["name"]),
        target=target,
        version=version,
        root=place["root_path"],
        file_path=place["file_path"],
        wheel=wheel_path,
        resources=resources,
        run_as=found.get("run_as") or {},
        permissions=tuple(found.get("permissions") or ()),
        files=files,
    )


def bundle_host(folder: Path, target: str) -> str | None:
    """Return the workspace that a target names, None where it leaves that to the environment.

    Raises:
        ConfigurationError: the bundle cannot be used, or its address is a reference.
    """
    workspace = read_bundle(folder, target).get("workspace") or {}
    host = workspace.get("host")
    if host is not None and "${" in str(host):
        raise ConfigurationError(
            "the login is chosen by it, before variables are known: write the address itself, or leave it to "
            "DATABRICKS_HOST",
            where=CONFIGURATION,
            key="workspace.host",
        )
    return None if host is None else str(host)


def _completed(tree: Tree, given: Mapping[str, str], user: str) -> Tree:
    """Add what everybody may leave out, and what a target for development changes."""
    for name in given:
        if name not in (tree.get("variables") or {}):
            raise ConfigurationError(f"the bundle has no variable {name!r}", where=f"--var {name}")
    root = _rooted((tree.get("workspace") or {}).get("root_path", _HOME))
    own = f"{root}/versions/{_VERSION}"
    workspace = {
        "root_path": root,
        "file_path": f"{own}/files",
        "artifact_path": f"{own}/artifacts",
        "current_user": {"userName": user},
    }
    values = {"variables": {name: {"default": value} for name, value in given.items()}}
    found = merged(merged(tree, {"workspace": workspace}), values)
    return _for_development(found, user) if found.get("mode") == "development" else found


def _rooted(path: object) -> str:
    """Return the folder of all versions; `~` is the home of whoever deploys, as the Databricks CLI has it."""
    text = str(path)
    if text.startswith("~/"):
        text = f"/Workspace/Users/${{workspace.current_user.userName}}{text[1:]}"
    if not text.startswith("/") or ".." in text.split("/"):
        raise ConfigurationError(
            f"expected a folder of the workspace such as /Workspace/Shared/agents, or ~/agents, not {text!r}",
            where=CONFIGURATION,
            key="workspace.root_path",
        )
    return text


def _for_development(tree: Tree, user: str) -> Tree:
    """Names say whose they are, and nothing begins by itself."""
    short = re.sub(r"\W+", "_", user.partition("@")[0])
    resources = tree.get("resources") or {}
    for job in (resources.get("jobs") or {}).values():
        job["name"] = f"[dev {short}] {job['name']}"
        for trigger in ("continuous", "schedule", "trigger"):
            if job.get(trigger):
                job[trigger] = {**job[trigger], "pause_status": "PAUSED"}
    for schema in (resources.get("schemas") or {}).values():
        schema["name"] = f"dev_{short}_{schema['name']}"
    return tree


def _check_build(tree: Tree) -> None:
    for name, each in (tree.get("artifacts") or {}).items():
        if each.get("build") != _BUILD or each.get("type") != "whl":
            raise ConfigurationError(
                f"only the wheel of flagstream is built here (`{_BUILD}`); the Databricks CLI builds others",
                where=CONFIGURATION,
                key=f"artifacts.{name}",
            )


def _files(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part in _LEFT_OUT for part in parts):
            if path.stat().st_size > _MOST_BYTES:
                raise ConfigurationError(
                    f"larger than {_MOST_BYTES >> 20} MiB, which no file of a workspace may be",
                    where=str(path),
                )
            found["/".join(parts)] = path.read_bytes()
    return found


def _digest(tree: Tree, files: Mapping[str, bytes], wheel: PlatformWheel) -> str:
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode())
    for path, content in sorted(files.items()):
        digest.update(f"\0{path}\0{len(content)}\0".encode() + content)
    digest.update(wheel.version.encode())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


def _checked(
    resources: Mapping[str, Mapping[str, Tree]], wheel: str, artifacts: str
) -> dict[str, dict[str, Tree]]:
    return {
        kind: {key: _typed(kind, key, _with_wheel(each, wheel, artifacts)) for key, each in found.items()}
        for kind, found in resources.items()
    }


def _with_wheel(resource: Tree, wheel: str, artifacts: str) -> Tree:
    for task in resource.get("tasks") or []:
        for library in task.get("libraries") or []:
            if library.get("whl") == f"{artifacts}/*.whl":
                library["whl"] = wheel
    return resource


def _typed(kind: str, key: str, resource: Tree) -> Tree:
    """Return a resource as its type writes it.

    Raises:
        ConfigurationError: it does not fit its type.
    """
    for name in _NEEDED[kind]:
        if not resource.get(name):
            raise ConfigurationError(f"has no {name}", where=CONFIGURATION, key=f"resources.{kind}.{key}")
    try:
        return dict(_TYPES[kind](resource).as_dict())
    except (ValueError, TypeError, AttributeError) as fault:
        raise ConfigurationError(
            f"does not fit: {fault}", where=CONFIGURATION, key=f"resources.{kind}.{key}"
        ) from None
