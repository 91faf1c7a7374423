"""The local model's server over the wire, asked by the real OpenAI client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from openai import OpenAI
from openai.types.shared_params import ResponseFormatJSONSchema

from agent.model.local_llm import LocalLlm, weights_file

FORMAT = cast(
    ResponseFormatJSONSchema,
    {
        "type": "json_schema",
        "json_schema": {
            "name": "verdict",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"id": {"const": "abc123"}, "kind": {"enum": ["fraud", "legitimate"]}},
                "required": ["id", "kind"],
                "additionalProperties": False,
            },
        },
    },
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two commands that start the model together get one server."""
    model = LocalLlm(tmp_path_factory.mktemp("llm"))
    try:
        with ThreadPoolExecutor(2) as commands:
            first, second = commands.map(LocalLlm.start, [model, LocalLlm(model.folder)])
        assert first == second == model.status()
        yield first
    finally:
        model.stop()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(client: OpenAI) -> str:
    reply = client.chat.completions.create(
        model="local",
        messages=[{"role": "user", "content": "Is a payment of 900 EUR fraud?"}],
        response_format=FORMAT,
        temperature=0,
        max_completion_tokens=60,
    )
    assert reply.choices[0].finish_reason == "stop"
    return reply.choices[0].message.content or ""


def test_the_model_goes_by_its_name_and_not_by_a_path(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [weights_file().stem]


def test_the_schema_binds_the_answer_and_the_same_question_gets_the_same_one(client: OpenAI) -> None:
    answers = [ask(client) for _ in range(2)]
    answer = json.loads(answers[0])
    assert answer["id"] == "abc123"
    assert answer["kind"] in ("fraud", "legitimate")
    assert answers[0] == answers[1]
