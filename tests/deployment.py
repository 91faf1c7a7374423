"""The files that put an agent to work, read as their tools read them: Dockerfile, compose file, manifests."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE = DOCKER / "compose.yaml"
KUBERNETES = DOCKER / "kubernetes"
BASE = KUBERNETES / "base"
SCHEMAS = ROOT / "tests" / "fixtures" / "deployment_schemas"
OVERLAYS = sorted(each.parent for each in KUBERNETES.glob("overlays/*/kustomization.yaml"))

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, on one line."""

    name: str
    words: str


def instructions(file: Path = DOCKERFILE) -> list[Instruction]:
    """Return the instructions of a Dockerfile, without comments."""
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in whole if line.strip()]


def stages(file: Path = DOCKERFILE) -> list[list[Instruction]]:
    """Return the instructions of each stage, each list beginning with its FROM; those before are left out."""
    found: list[list[Instruction]] = []
    for each in instructions(file):
        if each.name == "FROM":
            found.append([])
        if found:
            found[-1].append(each)
    return found


def variables_of(stage: list[Instruction], name: str = "ENV") -> dict[str, str]:
    """Return what a stage sets by ENV, or the defaults of its ARG."""
    found = [re.findall(r'(\w+)=(".*?"|\S+)', each.words) for each in stage if each.name == name]
    return {variable: value.strip('"') for pairs in found for variable, value in pairs}


def compose() -> dict[str, Any]:
    """Return the compose file."""
    (content,) = documents(COMPOSE)
    return content


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the compose file, by their names."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def documents(file: Path) -> Iterator[Manifest]:
    """Yield the objects of a file of manifests; whoever changes one changes a copy."""
    yield from copy.deepcopy(_read(file))


@cache
def _read(file: Path) -> list[Manifest]:
    found = yaml.load_all(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return [each for each in found if each]


def manifests() -> Iterator[tuple[Path, Manifest]]:
    """Yield each object with its file: whole ones and patches, and what tells kustomize what to do."""
    for file in sorted(KUBERNETES.rglob("*.yaml")):
        if file.parent.name != "agent":
            yield from ((file, each) for each in documents(file))


def only(kind: str, folder: Path = BASE) -> Manifest:
    """Return the one object of a kind below a folder."""
    (found,) = (each for file, each in manifests() if each["kind"] == kind and file.is_relative_to(folder))
    return found


def agent_pod() -> dict[str, Any]:
    """Return the specification of the agent's pod, as in the base."""
    found: dict[str, Any] = only("StatefulSet")["spec"]["template"]["spec"]
    return found


def agent_container() -> dict[str, Any]:
    """Return its container."""
    (found,) = agent_pod()["containers"]
    return dict(found)


def project_version() -> str:
    """Return the version that pyproject.toml has."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
