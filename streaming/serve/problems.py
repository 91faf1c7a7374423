"""What a client reads of a fault: problem details (RFC 9457), from one table of errors and their statuses.

A fault that was raised on purpose says its words. Any other says nothing but the request's id, under which
the log has its kind and place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import orjson
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from schemas.errors import (
    ConfigurationError,
    ConflictError,
    DataLossError,
    FencedError,
    FlagstreamError,
    MachineError,
    NotFoundError,
    RetryableError,
)
from streaming.cases.actions import CaseChangedError, CaseRefusedError, NoSuchCaseError
from streaming.output.redaction import redacted
from streaming.versions.registry import ClosedGateError

PROBLEM_JSON = "application/problem+json"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_UNREADABLE = "the body cannot be read: expected JSON in UTF-8, nested as deep as is usual"
_OPTION = "--"
_MOST_SAID = 2_000
_MOST_REASON = 300

# The nearest class of a fault counts; a test says that no class of the error tree is left out.
STATUSES: Mapping[type[FlagstreamError], HTTPStatus] = MappingProxyType(
    {
        ConfigurationError: HTTPStatus.BAD_REQUEST,
        NotFoundError: HTTPStatus.NOT_FOUND,
        ConflictError: HTTPStatus.CONFLICT,
        ClosedGateError: HTTPStatus.CONFLICT,
        CaseChangedError: HTTPStatus.PRECONDITION_FAILED,
        CaseRefusedError: HTTPStatus.CONFLICT,
        NoSuchCaseError: HTTPStatus.NOT_FOUND,
        MachineError: HTTPStatus.SERVICE_UNAVAILABLE,
        RetryableError: HTTPStatus.SERVICE_UNAVAILABLE,
        FencedError: HTTPStatus.SERVICE_UNAVAILABLE,
        DataLossError: HTTPStatus.INTERNAL_SERVER_ERROR,
        FlagstreamError: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    type: str = Field(default="about:blank", description="always about:blank: the status says the kind")
    title: str = Field(description="the status in words")
    status: int = Field(ge=400, le=599)
    detail: str | None = Field(default=None, description="what is wrong, in a sentence")
    request_id: str | None = Field(default=None, description="under which the server's log has it")
    where: str | None = Field(default=None, description="the parameter, key or id that cannot be used")
    missing_scope: str | None = Field(default=None, description="what the token would have to be allowed")
    problems: list[str] | None = Field(default=None, description="each of several things that are wrong")


class RequestRefusedError(FlagstreamError):
    """A request that is refused for what it is, not for what it asks.

    Args:
        status: of the answer.
        detail: what is wrong.
        facts: further members of the problem.
        headers: of the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        facts: Mapping[str, Any] = MappingProxyType({}),
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        self.status, self.detail, self.facts, self.headers = status, detail, dict(facts), dict(headers)
        super().__init__(detail)


@dataclass(frozen=True)
class ProblemAnswer:
    """A problem on its way to a client."""

    status: HTTPStatus
    detail: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> Response:
        """Return it as a response."""
        said = None if self.detail is None else redacted(self.detail)[:_MOST_SAID]
        problem = Problem(
            title=self.status.phrase, status=self.status, detail=said, request_id=request_id, **self.facts
        )
        content = orjson.dumps(problem.model_dump(exclude_none=True))
        return Response(content, self.status, dict(self.headers), PROBLEM_JSON)


def answer_to(fault: Exception) -> ProblemAnswer:
    """Return what a client reads of a fault."""
    if isinstance(fault, RequestRefusedError):
        return ProblemAnswer(fault.status, fault.detail, fault.facts, fault.headers)
    if isinstance(fault, FlagstreamError):
        return _known(fault)
    if isinstance(fault, HTTPException):
        status = HTTPStatus(fault.status_code)
        said = _UNREADABLE if status == HTTPStatus.BAD_REQUEST else None  # its own words may quote the body
        return ProblemAnswer(status, said, {}, fault.headers or _NO_HEADERS)
    return ProblemAnswer(HTTPStatus.INTERNAL_SERVER_ERROR)


def status_of(fault: type[FlagstreamError]) -> HTTPStatus:
    """Return the status of a class of faults: that of the nearest one that has one."""
    return next(STATUSES[each] for each in fault.__mro__ if each in STATUSES)


def unfit(problems: Sequence[str]) -> ProblemAnswer:
    """Return the answer to a request whose parts do not have the shape that the API's description gives."""
    said = "; ".join(problems[:3])
    return ProblemAnswer(
        HTTPStatus.UNPROCESSABLE_ENTITY, said, {"problems": [each[:_MOST_REASON] for each in problems]}
    )


def _known(fault: FlagstreamError) -> ProblemAnswer:
    status = status_of(type(fault))
    headers = {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    where = None
    if isinstance(fault, ConfigurationError):
        where = fault.key or _parameter(fault.where) or None
    facts: dict[str, Any] = {} if where is None else {"where": redacted(where)}
    if isinstance(fault, ClosedGateError):
        facts["problems"] = [redacted(each)[:_MOST_REASON] for each in fault.reasons]
    return ProblemAnswer(status, words_of(fault), facts, headers)


def words_of(fault: FlagstreamError) -> str:
    """Return what a fault says to a client: options of commands are called as requests call them."""
    if not isinstance(fault, ConfigurationError) or not fault.where.startswith(_OPTION):
        return str(fault)
    place = ": ".join(part for part in (_parameter(fault.where), fault.key) if part)
    return f"{place}: {fault.problem}"


def _parameter(where: str) -> str:
    """Return `from_time/to_time` for `--from-time/--to-time`; what is no option stays."""
    if not where.startswith(_OPTION):
        return where
    return "/".join(each.removeprefix(_OPTION).replace("-", "_") for each in where.split("/"))


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return answers as an endpoint's description names them, problems all."""
    return {
        int(status): {
            "description": status.phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
