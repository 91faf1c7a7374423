"""Every error of the project has a status, and what a client reads of it holds no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from starlette.exceptions import HTTPException

from schemas import errors
from schemas.errors import ConfigurationError, FlagstreamError, NotFoundError, StoreError
from streaming.output.redaction import keep_secret
from streaming.serve.problems import STATUSES, RequestRefusedError, answer_to, status_of, unfit


def descendants(kind: type[FlagstreamError]) -> Iterator[type[FlagstreamError]]:
    for each in kind.__subclasses__():
        yield each
        yield from descendants(each)


def test_every_error_of_the_tree_has_the_status_of_its_nearest_class() -> None:
    own = [each for each in descendants(FlagstreamError) if each.__module__ == errors.__name__]
    assert len(own) >= 9
    for each in own:
        found = status_of(each)
        nearest = next(base for base in each.__mro__ if base in STATUSES)
        assert found == STATUSES[nearest]
        assert found >= HTTPStatus.BAD_REQUEST
    assert status_of(NotFoundError) == 404
    assert status_of(StoreError) == 503


def test_a_problem_says_what_is_wrong_where_and_no_secret() -> None:
    keep_secret("sk-very-secret-1")
    fault = ConfigurationError("the key sk-very-secret-1 is none", where="agent.yaml", key="llm.key")
    answer = answer_to(fault)
    response = answer.response("r1")
    found = json.loads(bytes(response.body))
    assert response.status_code == 400
    assert found["where"] == "llm.key"
    assert found["request_id"] == "r1"
    assert "sk-very-secret-1" not in json.dumps(found)
    assert found["title"] == "Bad Request"


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("--warm-up", "warm_up"), ("--from-time/--to-time", "from_time/to_time"), ("a.yaml", "a.yaml"),
    ],
)  # fmt: skip
def test_no_client_is_told_of_an_option_of_a_command(where: str, named: str) -> None:
    found = json.loads(bytes(answer_to(ConfigurationError("none", where=where)).response("r1").body))
    assert (found["where"], found["detail"]) == (named, f"{named}: none")


def test_a_body_that_cannot_be_read_is_said_and_not_quoted() -> None:
    found = json.loads(bytes(answer_to(HTTPException(400, "c42 paid")).response("r1").body))
    assert "cannot be read" in found["detail"]
    assert "c42" not in json.dumps(found)


def test_what_may_pass_says_when_to_come_again() -> None:
    assert answer_to(StoreError("away")).headers["Retry-After"] == "5"
    assert "Retry-After" not in answer_to(ConfigurationError("wrong")).headers


@pytest.mark.parametrize("fault", [ValueError("c42 paid"), KeyError("c42"), OSError(28, "full", "/c42")])
def test_what_was_not_raised_on_purpose_says_nothing(fault: Exception) -> None:
    response = answer_to(fault).response("r1")
    assert response.status_code == 500
    assert b"c42" not in bytes(response.body)


def test_a_refused_request_brings_its_own_status_and_facts() -> None:
    refused = RequestRefusedError(HTTPStatus.FORBIDDEN, "no", {"missing_scope": "triage"}, {"X-A": "b"})
    response = answer_to(refused).response("r1")
    assert json.loads(bytes(response.body))["missing_scope"] == "triage"
    assert response.headers["x-a"] == "b"


def test_a_request_of_another_shape_names_each_part() -> None:
    found = json.loads(bytes(unfit(["query.limit: too large"] * 5).response("r").body))
    assert found["status"] == 422
    assert len(found["problems"]) == 5
