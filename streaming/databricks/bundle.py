"""An agent as a bundle: plain files, which are the user's from the moment they are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from databricks.bundles.core import Resource

from schemas.errors import ConfigurationError, nearest
from schemas.spec import AgentSpec
from streaming.databricks.catalog import schema_of, secret_scope_of, volume_of
from streaming.databricks.cluster import secrets_of
from streaming.databricks.definition_files import definition_files
from streaming.databricks.jobs import jobs_of
from streaming.databricks.notebooks import smoke_notebook, tables_notebook
from streaming.databricks.runtime import PINNED
from streaming.databricks.wheel import pinned_requirements

CONFIGURATION = "databricks.yml"
TARGETS = ("dev", "staging", "prod")
_HEAD = """\
# An agent of flagstream as a bundle, written by `flagstream deploy databricks --to FOLDER`.
# It is yours to edit: nothing overwrites it. What has no default below has to be given, here or as
# BUNDLE_VAR_name in the environment.
"""
_IGNORED = "dist/\n.databricks/\n"
_AGENT = "${var.service_principal}"


def bundle_files(spec: AgentSpec, defaults: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a bundle by their paths.

    Args:
        spec: the agent.
        defaults: variable → its value in all targets.

    Raises:
        ConfigurationError: the definition cannot be used, or there is no such variable.
    """
    jobs, catalog = _jobs(spec), _catalog(spec)
    return {
        CONFIGURATION: _HEAD.encode() + _yaml(_configuration(spec, defaults)),
        "resources/jobs.yml": _yaml(jobs),
        "resources/catalog.yml": _yaml(catalog),
        "notebooks/smoke.py": smoke_notebook().encode(),
        "notebooks/tables.py": tables_notebook(spec).encode(),
        "requirements.txt": pinned_requirements().encode(),
        "README.md": _readme(spec).encode(),
        ".gitignore": _IGNORED.encode(),
        **definition_files(spec),
    }


def write_bundle(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write a bundle's files into a folder, and return where they are.

    Raises:
        ConfigurationError: one of them is there: what is somebody's is never overwritten.
    """
    for path in files:
        if (folder / path).exists():
            raise ConfigurationError(
                "is there already and may have been edited: name another folder, or remove it",
                where=str(folder / path),
            )
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return [folder / path for path in files]


def _configuration(spec: AgentSpec, defaults: Mapping[str, str]) -> dict[str, Any]:
    return {
        "bundle": {"name": spec.name},
        "include": ["resources/*.yml"],
        "variables": _variables(spec, defaults),
        "artifacts": {
            "flagstream": {"type": "whl", "build": "flagstream databricks wheel dist", "path": "."}
        },
        "run_as": {"service_principal_name": _AGENT},
        "permissions": [{"level": "CAN_VIEW", "service_principal_name": _AGENT}],
        "targets": {
            "dev": {"mode": "development", "default": True},
            **{name: _production() for name in TARGETS[1:]},
        },
    }


def _production() -> dict[str, Any]:
    place = f"/Workspace/Users/{_AGENT}/.bundle/${{bundle.name}}/${{bundle.target}}"
    return {"mode": "production", "workspace": {"root_path": place}}


def _variables(spec: AgentSpec, defaults: Mapping[str, str]) -> dict[str, dict[str, str]]:
    known: dict[str, tuple[str, str | None]] = {
        "service_principal": ("Application id of the service principal that all jobs run as.", None),
        "store": ("External location of the lakes: s3://bucket/prefix or abfss://container@account/…", None),
        "kafka": ("Bootstrap address of the brokers, host:port.", None),
        "node_type": ("Node of a job: four cores and 16 GB are a good start.", None),
        "notify": ("Address that hears of failures, backlogs and runs that take too long.", None),
        "catalog": ("Catalog of Unity Catalog, which exists.", "main"),
        "schema": ("Schema of the tables and views.", f"{spec.name.replace('-', '_')}_${{bundle.target}}"),
        "volume": ("Volume for small files that outlive a node.", "state"),
        "secret_scope": (
            "Scope of the secrets; its keys stand in README.md.",
            f"{spec.name}-${{bundle.target}}",
        ),
        "credentials": ("Of the store: configured on the node, or vended by Unity Catalog.", "configured"),
        "readers": ("Group that may read the curated views and see runs.", "analysts"),
        "operators": ("Group that may start and stop runs, and put secrets.", "operators"),
        "runtime": (f"Databricks Runtime; this one is built on Spark {PINNED.spark}.", PINNED.version),
    }
    for name in defaults:
        if name not in known:
            raise ConfigurationError(
                f"no variable of the bundle; {nearest(name, known)}", where=f"--var {name}"
            )
    return {
        name: _variable(meaning, defaults.get(name, default)) for name, (meaning, default) in known.items()
    }


def _variable(meaning: str, default: str | None) -> dict[str, str]:
    return {"description": meaning} if default is None else {"description": meaning, "default": default}


def _jobs(spec: AgentSpec) -> dict[str, Any]:
    return _resources("jobs", jobs_of(spec))


def _catalog(spec: AgentSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, resource in (
        ("schemas", {"schema": schema_of(spec)}),
        ("volumes", {"state": volume_of(spec)}),
        ("secret_scopes", {"secrets": secret_scope_of()}),
    ):
        found |= _resources(kind, resource)["resources"]
    return {"resources": found}


def _resources(kind: str, found: Mapping[str, Resource]) -> dict[str, Any]:
    plain = {name: each.as_dict() for name, each in found.items()}  # type: ignore[attr-defined]  # of every kind
    return {"resources": {kind: plain}}


def _readme(spec: AgentSpec) -> str:
    secrets = "\n".join(f"| `{key}` | `{name}` |" for name, key in secrets_of(spec).items())
    return f"""\
# {spec.name} on Databricks

`databricks.yml` says which variables have to be given. Then, with a workspace's address and login in the
environment (`DATABRICKS_HOST`, and a service principal, a profile or a token):

    flagstream deploy databricks --bundle . --target dev --dry-run
    flagstream deploy databricks --bundle . --target dev --follow

The Databricks CLI deploys the same files (`databricks bundle deploy -t dev`): use one of the two for a
target.

Secrets, put by an operator (`databricks secrets put-secret SCOPE KEY`):

| key in the scope | variable of a run |
|---|---|
{secrets}

Those of flagstream's own, `audit-key` and `pseudonym-key`, are random texts of at least 32 characters, such
as `openssl rand -hex 32` prints. They stay as they are as long as the lake is there.

The service principal needs, from an administrator: `USE CATALOG` on the catalog, and `CREATE EXTERNAL TABLE`,
`READ FILES`, `WRITE FILES` and `EXTERNAL USE LOCATION` on the external location.
"""


def _yaml(content: object) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110).encode()
