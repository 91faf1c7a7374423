"""`flagstream spec`: what a spec names is checked and described."""

from __future__ import annotations

from schemas.alert_documents import alert_json_schema
from schemas.contract import load_contract
from schemas.label import label_json_schema
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.output.facts import show_facts
from streaming.output.terminal import print_json, say_line
from streaming.store.place import Place
from streaming.versions.clients import check_endpoint


def validate(spec: AgentSpec, file: str, *, as_json: bool) -> None:
    """Check a spec with all that it names, and print which one it is.

    Raises:
        ConfigurationError: something cannot be used.
    """
    AgentDefinition.load(spec, file)
    check_endpoint(spec, file)
    if spec.store is not None:
        Place.parse(spec.store, f"{file}: store")
    facts = {"valid": True, "name": spec.name, "version": spec.version, "file_digest": spec.digest}
    show_facts(facts, as_json=as_json)


def show_columns(spec: AgentSpec, *, as_json: bool) -> None:
    """Print what the rules of a spec can be about, with their types."""
    schema = AgentDefinition.of(spec).content.rule_schema
    show_facts({field.name: str(field.type) for field in schema}, as_json=as_json)


def show_event_schema(contract: str, *, ddl: bool) -> None:
    """Print the JSON Schema of an event, or with `ddl` the decoded columns as Spark DDL."""
    loaded = load_contract(contract)
    say_line(loaded.spark_schema_ddl()) if ddl else print_json(loaded.json_schema(), indent=2, readable=True)


def show_alert_schema() -> None:
    """Print the JSON Schema of an alert on the topic."""
    print_json(alert_json_schema(), indent=2)


def show_label_schema() -> None:
    """Print the JSON Schema of a label on the topic."""
    print_json(label_json_schema(), indent=2)
