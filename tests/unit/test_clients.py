"""Whom each version of a spec asks, within what its process was told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scoring_samples import agent_spec

from agent.local_llm import LocalLlm
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.settings import Settings
from streaming.versions.clients import Clients

AT = "http://127.0.0.1:9/v1"  # nothing is asked there
LOCAL_AT = "http://127.0.0.1:10/v1"


def version(**llm: Any) -> AgentSpec:
    return agent_spec(llm={"base_url": AT, "model": "small", **llm})


def clients(home: Path, choice: str = "auto") -> Clients:
    return Clients(Settings.load(home, {}), choice)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Clients]:
    with clients(tmp_path) as found:
        yield found


def test_a_version_can_switch_the_model_off_and_another_one_on_again(asking: Clients) -> None:
    first = asking.of(version())
    assert asking.of(version(provider="none")) is None
    assert asking.of(version(prompt={"id": "triage", "version": 1})) is first is not None


def test_the_first_version_may_ask_nobody_and_the_next_one_somebody(asking: Clients) -> None:
    assert asking.of(version(provider="none")) is None
    found = asking.of(version())
    assert found is not None
    assert found.model == "small"


def test_another_model_gets_a_client_of_its_own_once(asking: Clients) -> None:
    other = asking.of(version(model="large"))
    assert other is not None
    assert other is not asking.of(version())
    assert other.model == "large"
    assert asking.of(version(model="large")) is other


@pytest.mark.parametrize("other", [{"rate": {"requests_per_minute": 10}}, {"max_concurrency": 2}])
def test_other_limits_are_kept_from_their_version_on(asking: Clients, other: dict[str, Any]) -> None:
    first = asking.of(version())
    limited = version(**other)
    assert asking.of(limited) is not first
    assert asking.of(limited) is asking.of(limited)


def test_told_to_ask_nobody_no_version_asks(tmp_path: Path) -> None:
    with clients(tmp_path, "none") as found:
        assert found.of(version()) is None


def test_told_to_ask_the_local_model_no_version_asks_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalLlm, "status", lambda _: LOCAL_AT)
    with clients(tmp_path, "local") as found:
        client = found.of(version(model="large"))
        assert client is not None
        assert client.model == "local"
        assert found.of(version(provider="none")) is None


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'local'"):
        clients(tmp_path, "locale")
