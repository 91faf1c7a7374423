"""`flagstream spec`: what a spec names is checked and described."""

from __future__ import annotations

from pathlib import Path

from schemas.alert_documents import alert_json_schema
from schemas.contract import load_contract
from schemas.label import label_json_schema
from schemas.spec import AgentSpec
from streaming.commands.brokers_of import reached_as
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.content import placed
from streaming.definition.layout import column_meanings
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json, say_line
from streaming.setup.cluster import check_cluster
from streaming.store.place import Place
from streaming.versions.clients import check_endpoint

_NO_HOME = Path("var")  # nothing is looked for there


def validate(spec: AgentSpec, file: str, *, as_json: bool) -> None:
    """Check a spec with all that it names, and print which one it is.

    Raises:
        ConfigurationError: something cannot be used.
    """
    AgentDefinition.load(spec, file)
    check_endpoint(spec, file)
    if spec.store is not None:
        Place.parse(spec.store, f"{file}: store")
    if spec.execution == "cluster":
        _check_cluster(spec, file)
    facts = {"valid": True, "name": spec.name, "version": spec.version, "file_digest": spec.digest}
    show_facts(facts, as_json=as_json)


def _check_cluster(spec: AgentSpec, file: str) -> None:
    """Refuse what a run would refuse, with the brokers that this environment or the spec names."""
    settings = reached_as(PlacedAgent(Settings.load(_NO_HOME), spec))
    with placed(file):
        check_cluster(AgentDefinition.of(spec).contract, settings.kafka, settings.environ)


def show_columns(spec: AgentSpec, *, as_json: bool) -> None:
    """Print what the rules of a spec can be about, with types and meanings."""
    content = AgentDefinition.of(spec).content
    meanings = column_meanings(content.contract, content.layout)
    types = {field.name: str(field.type) for field in content.rule_schema}
    if as_json:
        print_json({name: {"type": kind, "meaning": meanings[name]} for name, kind in types.items()})
        return
    rows = [(name, kind, meanings[name]) for name, kind in types.items()]
    show_table(Terminal(), ("column", "type", "meaning"), rows)


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
