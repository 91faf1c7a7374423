"""One server that speaks `/v1/chat/completions`: what goes to it, and what its replies and faults come to."""

from __future__ import annotations

from typing import Any, cast

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from agent.model.guarded_http import Reach, guarded_client
from agent.model.model_client import Completion, Failure, Question
from agent.model.server_faults import SERVER_FAULTS, TOO_MANY_REQUESTS, is_refusal, retry_after
from schemas.alert import FallbackReason

OPENAI_URL = "https://api.openai.com/v1"
_FIRST_BACKOFF_SECONDS = 0.1
_MOST_TOKENS = 100_000_000  # no model reads or writes as much in one request
_OPTIONS = frozenset({"temperature", "seed", "max_completion_tokens"})


class ChatEndpoint:
    """Sends single requests; which options the server takes is learned from what it refuses.

    Args:
        model: what to ask for by name.
        base_url: the server's API root; OpenAI's own when None.
        api_key: sent as a bearer token; servers without keys get a placeholder.
        reach: whether the endpoint's name may lead to a private network.
    """

    def __init__(self, model: str, base_url: str | None, api_key: SecretStr | None, reach: Reach) -> None:
        self._model = model
        self._sampling: dict[str, Any] = {"temperature": 0, "seed": 0}
        self._output_limit = "max_completion_tokens"
        self._client = _openai_client(base_url, api_key, reach)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def send(self, question: Question, seconds: float) -> ChatCompletion:
        """Send a question and return what the server says, within some seconds.

        Raises:
            Exception: whatever the server or the way to it does; see `failure_of`.
        """
        messages = [
            {"role": "system", "content": question.messages.system},
            {"role": "user", "content": question.messages.user},
        ]
        form = {"name": "verdict", "strict": True, "schema": dict(question.schema)}
        options: dict[str, Any] = {**self._sampling, self._output_limit: question.max_output_tokens}
        completion = await self._client.chat.completions.create(
            model=self._model,
            messages=cast("Any", messages),
            response_format=cast("Any", {"type": "json_schema", "json_schema": form}),
            timeout=max(seconds, 0.001),
            **options,
        )
        return cast("ChatCompletion", completion)

    def wait_before_retry(self, fault: Exception, attempt: int) -> float | None:
        """Return the seconds until a question may be sent again, None when that would not help.

        An option that the server refused by name is left out from then on.
        """
        backoff = _FIRST_BACKOFF_SECONDS * 2**attempt
        if isinstance(fault, openai.BadRequestError) and fault.param in _OPTIONS:
            self._do_without(fault.param)
            return 0.0
        if isinstance(fault, openai.APIStatusError):
            passing = fault.status_code == TOO_MANY_REQUESTS or fault.status_code >= SERVER_FAULTS
            return max(retry_after(fault), backoff) if passing else None
        stale = isinstance(fault, openai.APIConnectionError) and not isinstance(fault, openai.APITimeoutError)
        return 0.0 if stale and attempt == 0 else None

    def _do_without(self, option: str) -> None:
        # reasoning models refuse sampling options by name, older servers the newer name of the limit
        self._sampling.pop(option, None)
        if option == self._output_limit:
            self._output_limit = "max_tokens"


def _openai_client(base_url: str | None, api_key: SecretStr | None, reach: Reach) -> AsyncOpenAI:
    key = api_key.get_secret_value() if api_key is not None else ""
    url = base_url or OPENAI_URL  # else the library would look into the environment for another one
    http = guarded_client(url, reach)
    return AsyncOpenAI(base_url=url, api_key=key or "none", max_retries=0, http_client=http)


def read_reply(completion: ChatCompletion) -> Completion | Failure:
    """Return a server's answer, or what is wrong with it."""
    tokens = _tokens_of(completion.usage)
    if not completion.choices:
        return Failure("invalid_json", True, *tokens)
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return Failure("refused", True, *tokens)
    if choice.finish_reason == "length":
        return Failure("truncated", True, *tokens)
    text: object = choice.message.content or ""  # the library takes a server's word for what it sends
    return Completion(text, *tokens) if isinstance(text, str) else Failure("invalid_json", True, *tokens)


def _tokens_of(usage: object) -> tuple[int, int]:
    """Return the counts of a server, (0, 0) for no count where one of them cannot be."""
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (each if type(each) is int and 0 <= each <= _MOST_TOKENS else -1 for each in counts)
    return (read, written) if min(read, written) >= 0 else (0, 0)


def failure_of(fault: Exception) -> Failure:
    """Return what a fault of the server or of the way to it comes to; none of its words are kept."""
    if isinstance(fault, openai.APITimeoutError | TimeoutError):
        return Failure("timeout")
    if isinstance(fault, openai.APIConnectionError):
        return Failure("unreachable")
    if isinstance(fault, openai.APIStatusError):
        if fault.status_code == TOO_MANY_REQUESTS:
            return Failure("rate_limited")
        if is_refusal(fault):
            return Failure("refused")
        reason: FallbackReason = "server_error" if fault.status_code >= SERVER_FAULTS else "rejected"
        return Failure(reason)
    return Failure("invalid_json")
