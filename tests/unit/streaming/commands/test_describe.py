"""An agent on one page: what stands there follows from the definition, and holds no secret."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import SPECS
from agent.triage.triage import POLICIES
from schemas.spec import AgentSpec, load_spec
from streaming.commands.describe import describe_spec, description
from streaming.definition.agent_definition import AgentDefinition

SHIPPED = sorted(path.stem for path in SPECS.glob("*.yaml"))


def spec(name: str = "card-fraud", **changes: Any) -> AgentSpec:
    found = load_spec(SPECS / f"{name}.yaml")
    return AgentSpec.model_validate({**found.model_dump(), **changes})


def rows(found: AgentSpec) -> dict[str, dict[str, str]]:
    described = description(AgentDefinition.load(found))
    return {name: dict(rows) for name, rows in described.sections.items()}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_agent_fits_on_a_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    describe_spec(spec(name), name, None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 100
    assert max(map(len, lines)) <= 80
    for section in ("data sources", "permissions", "prompts", "models", "guardrails"):
        assert section in lines


def test_every_data_source_and_every_right_is_named() -> None:
    found = rows(spec())
    assert found["data sources"]["transactions"] == "topic transactions"
    assert found["permissions"]["Kafka topic transactions"] == "Read: read events"
    assert found["permissions"]["Kafka topic alerts"] == "Read, Write: publish alerts"
    assert found["permissions"]["policy"] == "default"
    assert "action run_job" not in found["permissions"]


def asked(**changes: Any) -> dict[str, dict[str, str]]:
    return rows(spec(llm={**spec().llm.model_dump(), **changes}))


def test_of_a_model_it_says_who_made_it_where_it_runs_and_by_which_variable() -> None:
    found = asked(model="gpt-4o-mini", base_url="https://api.openai.com/v1")["models"]
    assert found["gpt-4o-mini"].startswith("OpenAI, hosted; runs in:")
    assert found["gpt-4o-mini is asked at"] == "https://api.openai.com/v1, with the key in OPENAI_API_KEY"


def test_where_no_model_is_asked_it_says_so_and_the_switch_is_off() -> None:
    found = asked(provider="none")
    assert found["models"]["triage"] == "no model is asked: rules classify"
    assert found["features"]["model"] == "none"


def test_each_switch_stands_as_the_spec_has_it() -> None:
    detectors = {**spec().detectors.model_dump(), "rate": {"enabled": False}}
    found = rows(spec(detectors=detectors, alerts_per_day=50))["features"]
    assert (found["detector rate"], found["detector amount"], found["alert budget"]) == ("off", "on", "on")


def test_addresses_of_webhooks_are_secrets(tmp_path: Path) -> None:
    policy = json.loads((POLICIES / "default.json").read_text(encoding="utf-8"))
    policy["actions"]["notify"] = {"calls": 1, "targets": {"desk": "https://hooks.example.org/T0/SECRET"}}
    (tmp_path / "p.json").write_text(json.dumps(policy), encoding="utf-8")
    content = {**spec().model_dump(mode="json"), "policy": "./p.json"}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    found = rows(load_spec(tmp_path / "s.yaml"))
    assert found["permissions"]["action notify"] == "calls 1, targets desk"
    assert "SECRET" not in repr(found)


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts, self.tags = list[str](), set[str]()

    def handle_starttag(self, tag: str, _: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_of_html_says_the_same_and_refers_to_nothing_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"name": "a", "when": "amount > 5", "severity": "low", "reason": "<script>alert(1)</script>"}
    described = spec(rules=[rule])
    describe_spec(described, "s", tmp_path / "page.html", as_json=False)
    assert str(tmp_path / "page.html") in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    parser = Texts()
    parser.feed(page)
    for section in rows(described).values():
        for name, value in section.items():
            assert name in parser.texts
            assert value in parser.texts
    assert not {"script", "img", "link", "a", "iframe"} & parser.tags
