"""What `status` says of model endpoints, and how an agent learns that one does not answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from agent.model.endpoint_memory import EndpointMemory, EndpointState
from agent.model.negotiation import ServerFeatures
from streaming.batch.runner import TopicWatch
from streaming.commands.status import show_status
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.beside import RunReporter
from streaming.run.display import progress_display
from streaming.service.health import Condition, Health
from tests.unit.scoring_samples import agent_spec

AT = "https://llm.example.org/v1"
SPEC = agent_spec(llm={"base_url": AT, "model": "desk", "fallbacks": [{"model": "other"}]})
NOW = datetime.now(UTC)
LEARNED = ServerFeatures(form="json_object", sampling=frozenset({"temperature"}), thinking_tokens=4_000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings.load(tmp_path, {})
    settings.lake(SPEC.name).path.mkdir(parents=True)  # an agent has run here
    memory = EndpointMemory(settings.endpoints)
    memory.keep(EndpointState(AT, "desk", LEARNED, NOW))
    memory.keep(EndpointState("https://api.openai.com/v1", "other", ServerFeatures(), NOW, "out of quota"))
    memory.keep(EndpointState(AT, "somebody else's", ServerFeatures(), NOW, "no concern of this agent"))
    return settings


def test_status_says_what_the_endpoints_of_a_spec_take_and_what_keeps_them_from_answering(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status(PlacedAgent(settings, SPEC), as_json=True)
    desk, other = json.loads(capsys.readouterr().out)["endpoints"]
    assert (desk["url"], desk["model"], desk["trouble"]) == (AT, "desk", "")
    assert desk["differs"][:2] == ["answers as json_object, the schema in the prompt", "without seed"]
    assert "llm.max_output_tokens" in desk["differs"][2]
    assert (other["model"], other["differs"], other["trouble"]) == ("other", [], "out of quota")
    show_status(PlacedAgent(settings, SPEC), as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "model desk at https://llm.example.org/v1" in shown
    assert "without seed" in shown and "out of quota" in shown
    assert "no concern of this agent" not in shown


class Idle:
    """A topic with nothing unread."""

    def unread_by_partition(self) -> dict[str, dict[str, int]]:
        return {}

    def open_transactions(self) -> tuple[()]:
        return ()


def test_an_endpoint_that_does_not_answer_is_a_condition_until_it_does() -> None:
    health, trouble = Health(), ["desk: the key is refused"]
    told: list[Any] = []
    report = RunReporter(
        cast("TopicWatch", Idle()), None, progress_display("cards", as_json=True), health,
        lambda: told.append("settled"), lambda: trouble[0] or None,
    )  # fmt: skip
    report.round()
    assert [(each.condition, each.cause) for each in health.active] == [
        (Condition.MODEL_FAILING, "desk: the key is refused")
    ]
    trouble[0] = ""
    report.round()
    assert (health.active, told) == ((), ["settled"] * 2)
