"""What tests of the workspace share: an agent, its bundle, and what its variables are given."""

from __future__ import annotations

from pathlib import Path

from agent import SPECS
from schemas.spec import AgentSpec, load_spec
from streaming.databricks.bundle import bundle_files, write_bundle
from streaming.databricks.wheel import PlatformWheel, platform_wheel

GIVEN = {
    "service_principal": "11111111-2222-3333-4444-555555555555",
    "store": "s3://payments/lakes",
    "kafka": "broker.example.org:9092",
    "node_type": "m6gd.xlarge",
    "notify": "oncall@example.org",
}
USER = "anna.schmidt@example.org"


def card_fraud() -> AgentSpec:
    """The shipped agent, with a model that a workspace can reach."""
    spec = load_spec(SPECS / "card-fraud.yaml")
    return spec.model_copy(update={"llm": spec.llm.model_copy(update={"model": "gpt-4o-mini"})})


def written(folder: Path, spec: AgentSpec | None = None) -> Path:
    write_bundle(bundle_files(spec or card_fraud(), {}), folder)
    return folder


def wheel() -> PlatformWheel:
    return platform_wheel()
