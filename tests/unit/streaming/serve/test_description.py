"""The description of the API is OpenAPI 3.1, names every route and every answer, and is what is served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fastapi.routing import APIRoute

from streaming.home.settings import Settings
from streaming.serve.api import ALWAYS
from streaming.serve.routers import ROUTERS
from streaming.serve.serving import serving_router
from streaming.testing.api import ApiClient, api_of
from streaming.testing.live_lake import agent

SPEC = agent()
PUBLIC = {"/livez", "/readyz"}
READS = {"/v1/score"}  # by POST, since what is asked about is a body


@pytest.fixture
def client(settings: Settings) -> Iterator[ApiClient]:
    with api_of(settings, SPEC) as asked:
        yield asked


def routes() -> list[APIRoute]:
    found = [each for router in (serving_router, *ROUTERS) for each in router.routes]
    return [each for each in found if isinstance(each, APIRoute)]


def test_it_is_openapi_3_1_and_needs_no_token(client: ApiClient) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1.")
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_is_described_with_every_answer_that_any_request_may_get(client: ApiClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    found = [(each.path_format, method.lower()) for each in routes() for method in each.methods]
    assert sorted(found) == sorted((path, method) for path, each in described.items() for method in each)
    for path, method in found:
        operation: dict[str, Any] = described[path][method]
        assert {str(int(status)) for status in ALWAYS} <= set(operation["responses"]), path
        assert operation["description"], path
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert list(answer["content"]) == ["application/problem+json"], (path, status)


def test_every_answer_about_a_case_has_its_etag(client: ApiClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    about_a_case = [
        answer
        for path in described.values()
        for operation in path.values()
        for answer in [operation["responses"].get("200", {})]
        if re.search("/(CaseState|CaseDetail)\\b", json.dumps(answer))
    ]
    assert len(about_a_case) > 10
    assert all("ETag" in answer.get("headers", {}) for answer in about_a_case)


def test_every_route_but_those_of_health_needs_a_token(client: ApiClient) -> None:
    for each in routes():
        for method in each.methods:
            path = each.path_format.replace("{", "").replace("}", "")
            answer = client.request(method, path)
            is_open = each.path_format in PUBLIC
            assert (answer.status_code == 401) is not is_open, (method, path, answer.text)


def test_what_reads_takes_read_and_what_writes_takes_more(client: ApiClient) -> None:
    headers = client.bearer(SPEC, "read")
    for each in routes():
        if each.methods & {"POST", "PUT", "PATCH", "DELETE"} and each.path_format not in READS:
            for method in each.methods:
                answer = client.request(method, each.path_format, headers=headers, json={})
                assert answer.status_code == 403, (each.path, answer.text)
