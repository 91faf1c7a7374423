"""Whom each version of a spec asks, within what its process was told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model import llm_client
from agent.model.llm_client import LlmClient
from agent.model.local_llm import LocalLlm
from agent.model.model_client import Question
from agent.model.prompt_files import Messages
from agent.triage.triage import POLICIES
from schemas.errors import ConfigurationError
from schemas.llm import Llm
from schemas.policy import load_policy
from schemas.spec import AgentSpec
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing import scripted_llm as scripted
from streaming.versions import clients as module
from streaming.versions.clients import Clients, check_endpoint, known_endpoints
from tests.unit.scoring_samples import agent_spec

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


SECRET = "wJalrXUtnFEMI"
OPENAI = "https://api.openai.com/v1"
ELSEWHERE = "https://llm.example.org:8443/v1"


def policy_with(folder: Path, **binding: Any) -> str:
    model = {"name": "small", "provenance": "ours", "region": "EU", **binding}
    path = folder / "policy.json"
    path.write_text(json.dumps({"policyName": "bound", "allowedModels": [model]}), encoding="utf-8")
    return str(path)


def asked_with(
    home: Path, environ: dict[str, str], binding: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **llm: Any
) -> dict[str, Any]:
    """What the client of a spec would have been opened with."""
    opened: dict[str, Any] = {}
    monkeypatch.setattr(llm_client, "LlmClient", lambda _, **given: opened.update(given))
    spec = agent_spec(policy=policy_with(home, **binding), llm={"model": "small", **llm})
    module.endpoint_client(PlacedAgent(Settings.load(home, environ), spec))
    key = opened.get("api_key")
    return {**opened, "api_key": None if key is None else key.get_secret_value()}


BOUND = {"origin": "https://LLM.example.org:8443/", "api_key_env": "DESK_KEY"}


@pytest.mark.parametrize(
    ("llm", "environ", "binding", "expected"),
    [
        ({}, {"OPENAI_API_KEY": SECRET}, {}, (OPENAI, SECRET, "public")),
        ({"base_url": OPENAI}, {"OPENAI_API_KEY": SECRET}, {}, (OPENAI, SECRET, "public")),
        ({"base_url": AT}, {"OPENAI_API_KEY": SECRET}, {}, (AT, None, "public")),
        (
            {},
            {"OPENAI_API_KEY": SECRET, "FLAGSTREAM_LLM_BASE_URL": ELSEWHERE},
            {},
            (ELSEWHERE, SECRET, "public"),
        ),
        ({}, {"OPENAI_API_KEY": SECRET, "FLAGSTREAM_LLM_BASE_URL": AT}, {}, (AT, SECRET, "public")),
        (
            {"base_url": ELSEWHERE, "api_key_env": "DESK_KEY"},
            {"DESK_KEY": SECRET},
            BOUND,
            (ELSEWHERE, SECRET, "named"),
        ),
        (
            {"base_url": ELSEWHERE},
            {"DESK_KEY": SECRET, "OPENAI_API_KEY": "x"},
            BOUND,
            (ELSEWHERE, SECRET, "named"),
        ),
        (
            {"base_url": "http://10.0.0.7:8000/v1"},
            {"OPENAI_API_KEY": SECRET},
            {"origin": "http://10.0.0.7:8000", "http": True},
            ("http://10.0.0.7:8000/v1", None, "named"),
        ),
    ],
)
def test_the_key_goes_to_the_origin_that_it_is_bound_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    llm: dict[str, Any],
    environ: dict[str, str],
    binding: dict[str, Any],
    expected: tuple[str, str | None, str],
) -> None:
    opened = asked_with(tmp_path, environ, binding, monkeypatch, **llm)
    assert (opened["base_url"], opened["api_key"], opened["reach"]) == expected


@pytest.mark.parametrize(
    ("llm", "environ", "binding"),
    [
        ({"api_key_env": "AWS_SECRET_ACCESS_KEY"}, {"AWS_SECRET_ACCESS_KEY": SECRET}, {}),
        ({"base_url": AT, "api_key_env": "AWS_SECRET_ACCESS_KEY"}, {"AWS_SECRET_ACCESS_KEY": SECRET}, {}),
        ({"base_url": ELSEWHERE, "api_key_env": "AWS_SECRET_ACCESS_KEY"}, {}, BOUND),
        ({"base_url": ELSEWHERE}, {"OPENAI_API_KEY": SECRET}, {}),
        ({"base_url": "http://api.openai.com/v1"}, {"OPENAI_API_KEY": SECRET}, {}),
        ({"base_url": "https://api.openai.com:8443/v1"}, {"OPENAI_API_KEY": SECRET}, {}),
        ({"base_url": "https://api.openai.com.evil.example/v1"}, {"OPENAI_API_KEY": SECRET}, {}),
        ({"base_url": "http://169.254.169.254/latest"}, {}, {}),
        ({"base_url": OPENAI}, {"DESK_KEY": SECRET}, BOUND),
        ({}, {"OPENAI_API_KEY": SECRET}, BOUND),
        ({}, {"FLAGSTREAM_LLM_BASE_URL": "http://llm.example.org/v1"}, {}),
        ({}, {"FLAGSTREAM_LLM_BASE_URL": "https://169.254.169.254/v1"}, {}),
        ({}, {"FLAGSTREAM_LLM_BASE_URL": "https://[fd00::1]/v1"}, {}),
        ({}, {"FLAGSTREAM_LLM_BASE_URL": "https://[::ffff:10.0.0.1]/v1"}, {}),
        ({}, {"FLAGSTREAM_LLM_BASE_URL": "https://2852039166/v1"}, {}),
        ({}, {"FLAGSTREAM_LLM_BASE_URL": "https://0251.0376.0251.0376/v1"}, {}),
        ({}, {"FLAGSTREAM_LLM_BASE_URL": ELSEWHERE}, {**BOUND, "origin": "https://llm.example.org"}),
    ],
)
def test_what_the_policy_does_not_bind_is_refused_without_the_key(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    llm: dict[str, Any],
    environ: dict[str, str],
    binding: dict[str, Any],
) -> None:
    with pytest.raises(ConfigurationError, match=r"llm\.(base_url|api_key_env).*allowedModels") as caught:
        asked_with(tmp_path, environ, binding, monkeypatch, **llm)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "binding",
    [
        {"api_key_env": "DESK_KEY"},
        {"http": True},
        {"origin": "http://llm.example.org"},
        {"origin": "https://user:key@llm.example.org"},
        {"origin": "https://llm.example.org/v1"},
        {"origin": "ftp://llm.example.org"},
        {"origin": "https://"},
        {"origin": "llm.example.org"},
        {"origin": "https://llm.example.org", "api_key_env": "sk-secret"},
    ],
)
def test_a_binding_that_binds_nothing_is_refused(tmp_path: Path, binding: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_policy(policy_with(tmp_path, **binding), POLICIES)
    assert "unknown key" not in str(refused.value)


def test_a_policy_that_binds_nothing_keeps_its_digest() -> None:
    assert load_policy("default", POLICIES).digest == (
        "a798ebb19bfd86e19aa2cd7cac88d7493fc4eb840fdde2b85a67f8fe71a13c9a"
    )


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'local'"):
        clients(tmp_path, "locale")


def two_models(folder: Path) -> str:
    models = [
        {"name": "small", "provenance": "ours", "region": "EU"},
        {"name": "desk", "provenance": "ours", "region": "EU", **BOUND},
    ]
    path = folder / "two.json"
    path.write_text(json.dumps({"policyName": "two", "allowedModels": models}), encoding="utf-8")
    return str(path)


def falling_back(folder: Path, **fallback: Any) -> AgentSpec:
    llm = {"base_url": AT, "model": "small", "fallbacks": [{"model": "desk", **fallback}]}
    return agent_spec(policy=two_models(folder), llm=llm)


def test_each_fallback_is_asked_at_its_own_origin_with_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, dict[str, Any]] = {}

    class Opened(LlmClient):
        def __init__(self, llm: Llm, **given: Any) -> None:
            opened[given["model"]] = given
            super().__init__(llm, **given)

    monkeypatch.setattr(llm_client, "LlmClient", Opened)
    settings = Settings.load(tmp_path, {"DESK_KEY": SECRET, "OPENAI_API_KEY": "sk-other"})
    with Clients(settings, "auto") as found:
        client = found.of(falling_back(tmp_path, base_url=ELSEWHERE, api_key_env="DESK_KEY"))
        assert client is not None
        assert [each.model for each in client.fallbacks] == ["desk"]
        assert found.of(falling_back(tmp_path, base_url=ELSEWHERE)) is not client, "another list"
        found.abandon()
    assert (opened["small"]["api_key"], opened["small"]["base_url"]) == (None, AT)
    assert opened["desk"]["base_url"] == ELSEWHERE
    assert opened["desk"]["api_key"].get_secret_value() == SECRET


@pytest.mark.parametrize(
    "fallback",
    [{}, {"base_url": "https://elsewhere.example.org/v1"}, {"base_url": ELSEWHERE, "api_key_env": "AWS_KEY"}],
)
def test_a_fallback_that_the_policy_does_not_bind_is_refused_as_a_model_is(
    tmp_path: Path, fallback: dict[str, Any]
) -> None:
    spec = falling_back(tmp_path, **fallback)
    with pytest.raises(ConfigurationError, match="allowedModels"), clients(tmp_path) as found:
        found.of(spec)
    with pytest.raises(ConfigurationError, match="allowedModels"):
        check_endpoint(spec, "spec.yaml")


def test_told_to_ask_the_local_model_no_fallback_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalLlm, "status", lambda _: LOCAL_AT)
    with clients(tmp_path, "local") as found:
        client = found.of(falling_back(tmp_path, base_url=ELSEWHERE))
        assert client is not None
        assert client.fallbacks == ()


def test_the_local_model_can_be_a_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalLlm, "status", lambda _: LOCAL_AT)
    spec = agent_spec(
        policy=two_models(tmp_path), llm={"base_url": AT, "model": "small", "fallbacks": [{"model": "local"}]}
    )
    with clients(tmp_path) as found:
        client = found.of(spec)
        assert client is not None
        assert [(each.model, each.url) for each in client.fallbacks] == [("local", LOCAL_AT)]


def test_what_is_wrong_with_a_model_is_said_with_its_name(tmp_path: Path) -> None:
    with scripted.scripted_llm(default=scripted.fails(401)) as server, clients(tmp_path) as found:
        client = found.of(version(base_url=server.base_url))
        assert client is not None
        assert found.trouble() is None
        client.ask([Question(Messages("", ""), {}, 16, 16)], 30.0)
        assert str(found.trouble()).startswith("small: the key is refused")
        spec = version(base_url=server.base_url)
        (known,) = known_endpoints(PlacedAgent(Settings.load(tmp_path, {}), spec))
        assert known.trouble == client.trouble
