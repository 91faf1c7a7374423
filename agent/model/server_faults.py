"""What a server says when it gives no answer, read into one shape, whatever protocol and words it uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from schemas.alert import FallbackReason

TOO_MANY_REQUESTS, SERVER_FAULTS = 429, 500
_REDIRECTED, _BAD_REQUEST, _PAYMENT_REQUIRED, _NO_MORE_ERRORS = 300, 400, 402, 600
NOT_COMPATIBLE = "not an OpenAI-compatible answer"
_OUT_OF_QUOTA = "the account is out of quota"
_MOST_CHARACTERS = 8_000
_LONGEST_WAIT = 86_400.0
# What servers call a refusal by a filter, as the error's code or type.
_FILTERED = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "contentpolicyviolationerror",
        "data_inspection_failed",
        "datainspectionfailed",
        "invalid_prompt",
        "moderation_blocked",
        "responsibleaipolicyviolation",
    }
)
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
# The status that an error without a number stands for, by its code or type.
_STATUS_OF = {
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found_error": 404,
}
_CONTEXT = re.compile(r"context[ _-]?(length|window|size)|prompt is too long|too many (input )?tokens", re.I)
_ECHOED = frozenset({"input", "ctx", "url", "callstack"})


@dataclass(frozen=True)
class ServerFault:
    """An answer that is none.

    Attributes:
        status: of HTTP, or what the body says instead.
        codes: codes and types of the error, in lower case.
        named: the parts of the request that it names as such, most telling first.
        message: its words, for reading alone: they are shown nowhere and kept nowhere.
        wait: seconds that the server asks to wait, 0 where it names none.
        compatible: whether it is an answer of such a protocol at all.
    """

    status: int
    codes: frozenset[str] = frozenset()
    named: tuple[str, ...] = field(default=(), repr=False)
    message: str = field(default="", repr=False)
    wait: float = 0.0
    compatible: bool = True

    @property
    def is_refusal(self) -> bool:
        """Whether a filter has refused what was asked, which says nothing of the server."""
        return self.status < SERVER_FAULTS and not self.codes.isdisjoint(_FILTERED)

    @property
    def is_out_of_quota(self) -> bool:
        """Whether nothing will be answered until somebody pays or a period ends."""
        return not self.codes.isdisjoint(_NO_QUOTA) or self.status == _PAYMENT_REQUIRED

    @property
    def is_too_long(self) -> bool:
        """Whether this one request exceeds the model's context, which says nothing of shorter ones."""
        return "context_length_exceeded" in self.codes or _CONTEXT.search(self.message) is not None

    @property
    def may_pass(self) -> bool:
        """Whether the very same request may be answered a moment later."""
        passing = self.status == TOO_MANY_REQUESTS or self.status >= SERVER_FAULTS
        return passing and self.compatible and not self.is_out_of_quota

    @property
    def reason(self) -> FallbackReason:
        """What it comes to for the alerts that were asked about."""
        if self.is_refusal:
            return "refused"
        if self.status == TOO_MANY_REQUESTS or self.is_out_of_quota:
            return "rate_limited"
        return "server_error" if self.status >= SERVER_FAULTS or not self.compatible else "rejected"

    @property
    def advice(self) -> str:
        """What happened and what to do about it; "" where it passes or concerns one question."""
        if not self.compatible:
            return f"{NOT_COMPATIBLE}: llm.base_url must be the root of the API, such as https://host/v1"
        if self.is_out_of_quota:
            return f"{_OUT_OF_QUOTA}: raise its limit, or name another endpoint in llm.fallbacks"
        if self.is_refusal or self.may_pass:
            return ""
        if self.is_too_long:
            return "a request is longer than the model's context: lower llm.context_tokens"
        if self.status < _BAD_REQUEST:
            return "it redirects, which is not followed: check llm.base_url"
        return _ADVICE.get(self.status, f"requests are refused with status {self.status}")


_ADVICE = {
    401: "the key is refused: check the environment variable that llm.api_key_env names",
    403: "the key may not ask this model: check llm.model and the rights of the key",
    404: "no such model or address: check llm.model, llm.base_url and llm.api_version",
}


def read_fault(
    status: int, body: object, headers: Mapping[str, str], now: datetime | None = None
) -> ServerFault:
    """Read what came with a status that is no success, or an error that came with one.

    Args:
        status: of HTTP; the body's own counts where this one means success.
        body: parsed JSON, or text.
        headers: names in any case that the mapping understands.
        now: the wall clock, for dates in headers.
    """
    error = _error_in(body)
    codes = frozenset(_codes(error, body))
    if status < _REDIRECTED:
        status = _status_in(error, codes)
    named = tuple(dict.fromkeys(_named(error, body)))
    return ServerFault(status, codes, named, _words(body), _wait(headers, now or datetime.now(UTC)))


def is_error(body: object) -> bool:
    """Return whether a body is an error, whatever the status said."""
    if isinstance(body, Mapping) and body.get("choices"):
        choices = body["choices"]
        first = choices[0] if isinstance(choices, list) else None
        return isinstance(first, Mapping) and bool(first.get("error"))
    found = _error_in(body)
    return bool(found) and (isinstance(body, list) or _names_an_error(body))


def _names_an_error(body: object) -> bool:
    return isinstance(body, Mapping) and (bool(body.get("error")) or body.get("object") == "error")


def _error_in(body: object) -> Mapping[str, Any]:
    """Return the part of a body that describes the error, whatever it is wrapped in."""
    if isinstance(body, list):
        return _error_in(body[0]) if body else {}
    if not isinstance(body, Mapping):
        return {}
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return _error_in(choices[0])
    error = body.get("error", body)
    return error if isinstance(error, Mapping) else {"message": error}


def _codes(error: Mapping[str, Any], body: object) -> Iterator[str]:
    inner = error.get("innererror")
    outer = body if isinstance(body, Mapping) else {}
    for place in (error, inner if isinstance(inner, Mapping) else {}, outer):
        yield from (str(place[name]).lower() for name in ("code", "type") if place.get(name) is not None)


def _status_in(error: Mapping[str, Any], codes: frozenset[str]) -> int:
    for each in (error.get("code"), error.get("status"), error.get("status_code")):
        if str(each).isdecimal() and _BAD_REQUEST <= int(str(each)) < _NO_MORE_ERRORS:
            return int(str(each))
    if not codes.isdisjoint(_FILTERED):
        return _BAD_REQUEST
    return next((_STATUS_OF[each] for each in sorted(codes) if each in _STATUS_OF), SERVER_FAULTS)


def _named(error: Mapping[str, Any], body: object) -> Iterator[str]:
    """Yield the names in `param` and in each `loc`; those in a text of JSON, too."""
    if isinstance(error.get("param"), str):
        yield error["param"]
    yield from _places(_unpacked(body), depth=8)


def _places(value: Any, depth: int) -> Iterator[str]:
    if depth == 0:
        return
    if isinstance(value, Mapping):
        place = value.get("loc")
        if isinstance(place, list | tuple):
            yield ".".join(map(str, place))
        for name, inner in value.items():
            if name not in _ECHOED:
                yield from _places(_unpacked(inner), depth - 1)
    elif isinstance(value, list):
        for each in value[:32]:
            yield from _places(each, depth - 1)


def _unpacked(value: Any) -> Any:
    """Return what a text holds that is JSON itself, as gateways hand on the errors of others."""
    if isinstance(value, str) and value[:1] in ("{", "[") and len(value) <= _MOST_CHARACTERS:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _words(body: object) -> str:
    """Return the words of a body, without what it repeats of the request."""
    return " ".join(_texts(body, depth=8))[:_MOST_CHARACTERS]


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:_MOST_CHARACTERS]
    elif depth and isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _ECHOED:
                yield from _texts(inner, depth - 1)
    elif depth and isinstance(value, list):
        for each in value[:32]:
            yield from _texts(each, depth - 1)


def _wait(headers: Mapping[str, str], now: datetime) -> float:
    """Return the seconds that a server asks to wait: in milliseconds, in seconds, or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name), now) * unit
        if seconds > 0:  # not a number is no number of seconds
            return min(seconds, _LONGEST_WAIT)
    return 0.0


def _seconds(value: str | None, now: datetime) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return _until(str(value), now)


def _until(date: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
