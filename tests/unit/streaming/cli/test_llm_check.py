"""`flagstream llm check`: what it finds out of an endpoint, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent import SPECS
from streaming.cli.root import app
from streaming.testing import picky_llm as picky
from streaming.testing import scripted_llm as scripted

RUNNER = CliRunner()


def check(home: Path, url: str, *more: str) -> Any:
    given = ["llm", "check", "--home", str(home), "--base-url", url, "--model", "gpt-4o-mini", *more]
    return RUNNER.invoke(app, given)


def figures(home: Path, step: scripted.LlmStep, *more: str) -> tuple[int, dict[str, Any], int]:
    """The exit code, what was printed, and how many requests it took."""
    with scripted.scripted_llm(default=step) as server:
        result = check(home, server.base_url, "--json", *more)
        return result.exit_code, json.loads(result.stdout), len(server.requests)


def test_three_questions_show_what_an_endpoint_takes_and_what_a_day_costs(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    prices = "llm:\n  prices: {gpt-4o-mini: {input: 1.0, output: 4.0}}\n"
    spec.write_text((SPECS / "card-fraud.yaml").read_text("utf-8").replace("llm:\n", prices), "utf-8")
    code, found, requests = figures(tmp_path, picky.mistral, "--spec", str(spec), "--alerts-per-day", "2000")
    assert (code, found["answered"], found["questions"], requests) == (0, 3, 3, 5)
    assert found["form"] == "json_schema"
    assert found["differs"] == ["without seed", "the limit is called max_tokens"]
    assert (found["input_tokens"], found["output_tokens"], found["alerts_per_day"]) == (100, 20, 2000)
    assert found["usd_per_day"] == pytest.approx(2000 * (100 * 1.0 + 20 * 4.0) / 1e6)
    assert found["seconds"] > 0 and found["trouble"] is None


def test_what_was_known_is_found_out_anew(tmp_path: Path) -> None:
    with scripted.scripted_llm(default=picky.mistral) as server:
        for _ in range(2):
            before = len(server.requests)
            assert check(tmp_path, server.base_url).exit_code == 0
            assert len(server.requests) - before == 5


def test_no_fallback_answers_for_the_endpoint_that_is_tried(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    with scripted.scripted_llm() as other:
        fallback = f"llm:\n  fallbacks: [{{model: gpt-4.1, base_url: '{other.base_url}'}}]\n"
        text = (SPECS / "card-fraud.yaml").read_text("utf-8")
        spec.write_text(text.replace("llm:\n", fallback), "utf-8")
        code, found, _ = figures(tmp_path, scripted.fails(503), "--spec", str(spec))
        assert (code, found["answered"], other.requests) == (1, 0, [])


def test_without_a_price_no_cost_is_told(tmp_path: Path) -> None:
    assert figures(tmp_path, picky.as_asked)[1]["usd_per_day"] is None


@pytest.mark.parametrize(
    ("step", "reason", "advice"),
    [
        (scripted.fails(401), "rejected", "llm.api_key_env"),
        (scripted.fails(429, code="insufficient_quota"), "rate_limited", "out of quota"),
        (scripted.not_json(), "server_error", "not an OpenAI-compatible answer"),
        (scripted.answer(evidence=["amount=-1"]), "evidence_mismatch", "prompts eval"),
    ],
)
def test_an_endpoint_without_answers_is_exit_1_and_says_what_to_do(
    tmp_path: Path, step: scripted.LlmStep, reason: str, advice: str
) -> None:
    with scripted.scripted_llm(default=step) as server:
        result = check(tmp_path, server.base_url, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failures"][reason] >= 1
    assert advice in result.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://llm.example.org/v1", "is not bound to 'gpt-4o-mini'"),
        ("ftp://x", "expected an address such as"),
        ("https://key@host/v1", "no user or password in the address"),
    ],
)
def test_where_nobody_may_be_asked_it_is_exit_2(tmp_path: Path, url: str, said: str) -> None:
    result = check(tmp_path, url)
    assert said in str(result.exception)
    assert getattr(result.exception, "exit_code", None) == 2


def test_a_model_that_the_policy_does_not_name_is_not_asked(tmp_path: Path) -> None:
    with scripted.scripted_llm() as server:
        result = RUNNER.invoke(
            app,
            ["llm", "check", "--home", str(tmp_path), "--base-url", server.base_url, "--model", "unheard-of"],
        )
        assert server.requests == []
    assert "does not name 'unheard-of'" in str(result.exception)
