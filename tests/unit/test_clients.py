"""Whom each version of a spec asks, within what its agent was started with."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scoring_samples import agent_spec

from agent.llm_client import LlmClient
from schemas.spec import AgentSpec
from streaming.settings import Settings
from streaming.versions.clients import Clients, endpoint_client

AT = "http://127.0.0.1:9/v1"  # nothing is asked there


def version(**llm: Any) -> AgentSpec:
    return agent_spec(llm={"base_url": AT, "model": "small", **llm})


def clients(started: AgentSpec, first: LlmClient | None, stack: ExitStack, home: Path) -> Clients:
    if first is not None:
        stack.enter_context(first)
    return Clients(Settings.load(home, {}), started, first, stack)


@pytest.fixture
def asking(tmp_path: Path) -> Any:
    started = version()
    with ExitStack() as stack:
        first = endpoint_client(Settings.load(tmp_path, {}), started)
        yield first, clients(started, first, stack, tmp_path)


def test_a_version_can_switch_the_model_off_and_another_one_on_again(asking: Any) -> None:
    first, found = asking
    assert found.of(version()) is first
    assert found.of(version(provider="none")) is None
    assert found.of(version(prompt={"id": "triage", "version": 1})) is first


def test_another_model_gets_a_client_of_its_own_once(asking: Any) -> None:
    first, found = asking
    other = found.of(version(model="large"))
    assert other is not first
    assert other.model == "large"
    assert found.of(version(model="large")) is other


def test_other_rate_limits_are_kept_from_their_version_on(asking: Any) -> None:
    first, found = asking
    slower = version(rate={"requests_per_minute": 10})
    assert found.of(slower) is not first
    assert found.of(slower) is found.of(slower)


def test_an_agent_with_the_local_model_asks_no_other(tmp_path: Path) -> None:
    started = agent_spec()
    with ExitStack() as stack:
        local = LlmClient(started.llm, base_url=AT)
        found = clients(started, local, stack, tmp_path)
        assert found.of(version(model="large")) is local


def test_an_agent_started_without_a_model_stays_without(tmp_path: Path) -> None:
    with ExitStack() as stack:
        assert clients(version(provider="none"), None, stack, tmp_path).of(version()) is None
