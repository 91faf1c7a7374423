"""One server that speaks `/v1/chat/completions`: what goes to it, and what its replies and faults come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI
from pydantic import SecretStr

from agent.model.answer_text import object_in, without_thoughts
from agent.model.chat_request import body_of
from agent.model.endpoint_memory import EndpointMemory, Remembered
from agent.model.endpoints import OPENAI_URL
from agent.model.guarded_http import Reach, guarded_client
from agent.model.model_client import Completion, Failure, Question
from agent.model.negotiation import Negotiation, Offer, SentWith, ServerFeatures
from agent.model.server_faults import ServerFault, is_error, read_fault

_FIRST_BACKOFF_SECONDS = 0.1
_MOST_TOKENS = 100_000_000  # no model reads or writes as much in one request
_NOT_COMPATIBLE = ServerFault(200, compatible=False)
_THOUGHT_AWAY = "the model spends its whole limit on thinking: raise llm.max_output_tokens"


@dataclass(frozen=True)
class Attempt:
    """What came of sending a question.

    Attributes:
        outcome: the answer, or why there is none.
        wait: seconds until it may be sent again, None where that would not help.
        next: what to send it with then; where it is given, the server has only said what it does not take.
    """

    outcome: Completion | Failure
    wait: float | None = None
    next: Offer | None = None


class ChatEndpoint:
    """Sends single requests; what the server takes of them is learned from what it refuses.

    Args:
        model: what to ask for by name.
        base_url: the server's API root; OpenAI's own when None.
        api_key: sent as a bearer token; servers without keys get a placeholder.
        reach: whether the endpoint's name may lead to a private network.
        memory: keeps what is learned, for later processes and for `status`.
        api_version: of Azure OpenAI, whose deployments are asked by address; None for all others.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        api_key: SecretStr | None,
        reach: Reach,
        memory: EndpointMemory | None = None,
        api_version: str | None = None,
    ) -> None:
        self._model = model
        url = base_url or OPENAI_URL  # else the library would look into the environment for another one
        self.url = url
        self._known = Remembered(memory, url, model)
        self._negotiation = Negotiation(self._known.features, self._known.keep)
        self._client = _openai_client(url, api_key, reach, api_version)

    @property
    def features(self) -> ServerFeatures:
        """What the server is known to take."""
        return self._negotiation.features

    @property
    def trouble(self) -> str:
        """What keeps the server from answering and what to do about it, "" where nothing does."""
        return self._known.trouble

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def send(self, question: Question, seconds: float, offer: Offer | None, attempt: int) -> Attempt:
        """Send a question and read what the server says, within some seconds; nothing it does is raised.

        Args:
            offer: what an attempt before has left to try, None to send what is known to be taken.
            attempt: how often it has been sent before without having been answered.
        """
        offer = offer or Offer(self.features)
        tried = SentWith(offer, offer.features.output_tokens(question.max_output_tokens))
        try:
            reply = await self._post(body_of(self._model, question, tried), seconds)
        except Exception as fault:  # no fault of a model may stop a batch
            return _broken(fault, attempt)
        if isinstance(reply, ServerFault):
            return self._refused(tried, reply, attempt)
        return self._read(tried, question, reply)

    async def _post(self, body: Mapping[str, Any], seconds: float) -> Mapping[str, Any] | ServerFault:
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                **cast("Any", body), timeout=max(seconds, 0.001)
            )
        except openai.APIStatusError as fault:
            found = fault.response
            return read_fault(found.status_code, _parsed(found), found.headers)
        response = raw.http_response
        content = _parsed(response)
        if is_error(content):
            return read_fault(response.status_code, content, response.headers)
        is_answer = isinstance(content, Mapping) and isinstance(content.get("choices"), list)
        return cast("Mapping[str, Any]", content) if is_answer else _NOT_COMPATIBLE

    def _refused(self, tried: SentWith, fault: ServerFault, attempt: int) -> Attempt:
        following = self._negotiation.refused(tried, fault)
        failure = Failure(
            fault.reason,
            of_server=following is None and not fault.is_too_long,
            lasting=fault.is_out_of_quota,
        )
        if following is not None:
            return Attempt(failure, 0.0, following)
        if fault.advice:
            self._known.note(fault.advice)
        wait = max(fault.wait, _backoff(attempt)) if fault.may_pass else None
        return Attempt(failure, wait)

    def _read(self, tried: SentWith, question: Question, reply: Mapping[str, Any]) -> Attempt:
        outcome = read_reply(reply)
        if isinstance(outcome, Failure) and outcome.reason == "truncated" and _is_thought_away(reply):
            following = self._more_room(tried, question)
            return Attempt(outcome, None if following is None else 0.0, following)
        if isinstance(outcome, Completion):
            self._negotiation.answered(tried, has_object=object_in(outcome.text) is not None)
            self._known.note("")
        return Attempt(outcome)

    def _more_room(self, tried: SentWith, question: Question) -> Offer | None:
        following = self._negotiation.thinks(tried)
        if following is None:
            self._known.note(_THOUGHT_AWAY)
        more = 0 if following is None else following.features.output_tokens(question.max_output_tokens)
        return (
            following if more > tried.output_tokens and question.affords(more - tried.output_tokens) else None
        )


def _openai_client(url: str, api_key: SecretStr | None, reach: Reach, api_version: str | None) -> AsyncOpenAI:
    # A key is always given: else the libraries would look into the environment for one.
    key = (api_key.get_secret_value() if api_key is not None else "") or "none"
    http = guarded_client(url, reach)
    if api_version is None:
        return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, http_client=http)
    return AsyncAzureOpenAI(
        base_url=_azure_root(url), api_version=api_version, api_key=key, max_retries=0, http_client=http
    )


def _azure_root(url: str) -> str:
    """Return the address below which the library finds the deployment that is named like the model."""
    root = url.rstrip("/")
    path = urlsplit(root).path
    return root if path.endswith("/openai") or "/deployments/" in path else f"{root}/openai"


def _parsed(response: Any) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return response.text


def _backoff(attempt: int) -> float:
    return _FIRST_BACKOFF_SECONDS * 2.0**attempt


def _broken(fault: Exception, attempt: int) -> Attempt:
    """Return what a fault on the way comes to; none of its words are kept."""
    if isinstance(fault, openai.APITimeoutError | TimeoutError):
        return Attempt(Failure("timeout"))
    if isinstance(fault, openai.APIConnectionError):
        # a connection that the server has closed meanwhile says nothing of a new one
        return Attempt(Failure("unreachable"), 0.0 if attempt == 0 else None)
    return Attempt(Failure("server_error"))


def read_reply(reply: Mapping[str, Any]) -> Completion | Failure:
    """Return a server's answer, or what is wrong with it."""
    tokens = _tokens_of(reply.get("usage"))
    choice = _first_choice(reply)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return Failure("invalid_json", True, *tokens)
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Failure("refused", True, *tokens)
    if choice.get("finish_reason") == "length":
        return Failure("truncated", True, *tokens)
    text = message.get("content") or ""
    if not isinstance(text, str):
        return Failure("invalid_json", True, *tokens)
    return Completion(object_in(text) or text, *tokens)


def _first_choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = reply["choices"]
    return choices[0] if choices and isinstance(choices[0], Mapping) else {}


def _is_thought_away(reply: Mapping[str, Any]) -> bool:
    """Whether the limit was reached before the answer had begun."""
    message = _first_choice(reply).get("message") or {}
    text = message.get("content") or ""
    return isinstance(text, str) and "{" not in without_thoughts(text)


def _tokens_of(usage: object) -> tuple[int, int]:
    """Return the counts of a server, (0, 0) for no count where one of them cannot be."""
    found = usage if isinstance(usage, Mapping) else {}
    counts = [found.get(name) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (each if type(each) is int and 0 <= each <= _MOST_TOKENS else -1 for each in counts)
    return (read, written) if min(read, written) >= 0 else (0, 0)
