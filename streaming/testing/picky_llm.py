"""Steps of a scripted model server that lacks features, and says so in the words of servers that exist.

What each refuses was taken from its documentation and from refusals that its users have quoted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streaming.testing.scripted_llm import LlmReply, LlmRequest, LlmStep, classification, completion

Saying = Literal["param", "loc", "message", "text", "list", "wrapped"]
SAYINGS: tuple[Saying, ...] = ("param", "loc", "message", "text", "list", "wrapped")


@dataclass(frozen=True)
class Lacking:
    """What a server refuses.

    Attributes:
        forms: types of `response_format`.
        options: names of options at the top of the body.
        system_role: whether it refuses system messages.
        most_tokens: a limit of an answer above this is refused, None for none.
    """

    forms: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    system_role: bool = False
    most_tokens: int | None = None

    def met_in(self, body: Mapping[str, Any]) -> str | None:
        """Return the part of a body that is refused first, by its path, None where all is taken."""
        form = body.get("response_format", {}).get("type")
        if form in self.forms:
            return "response_format"
        named = next((name for name in body if name in self.options), None)
        if named is not None:
            return named
        return "messages[0].role" if self.system_role and body["messages"][0]["role"] == "system" else None


def picky(
    lacking: Lacking, saying: Saying = "param", status: int = 400, then: LlmStep | None = None
) -> LlmStep:
    """Refuse what is lacking, one part at a time, and else take a step: by default answer as asked."""

    def step(request: LlmRequest) -> LlmReply:
        part = lacking.met_in(request.body)
        if part is not None:
            return LlmReply(status, refusal_of(part, saying))
        limit = request.body.get("max_completion_tokens", request.body.get("max_tokens", 0))
        if lacking.most_tokens is not None and limit > lacking.most_tokens:
            words = (
                f"max_tokens is too large: {limit}. This model supports at most {lacking.most_tokens} tokens"
            )
            return LlmReply(status, {"error": {"message": words, "param": "max_tokens"}})
        return (then or as_asked)(request)

    return step


def as_asked(request: LlmRequest) -> LlmReply:
    """Answer as asked."""
    return LlmReply(body=completion(classification(request)))


def refusal_of(part: str, saying: Saying) -> dict[str, Any] | list[Any] | str:
    """Return a body that refuses a part of the request; where its name stands differs by server."""
    words = "System role not supported" if "role" in part else f"Unsupported parameter: '{part}'"
    place = ["body", *part.replace("[", ".").replace("]", "").split(".")]
    extra = {"type": "extra_forbidden", "loc": place, "msg": "Extra inputs are not permitted", "input": 1}
    bodies: dict[Saying, dict[str, Any] | list[Any] | str] = {
        "param": {"error": {"message": "Unsupported", "type": "invalid_request_error", "param": part}},
        "loc": {"detail": [extra]},
        "message": {"error": {"message": words, "param": None, "code": None}},
        "text": {"error": words},
        "list": [{"error": {"code": 400, "message": f"Invalid JSON payload received. {words}."}}],
        "wrapped": {"object": "error", "message": json.dumps({"detail": [extra]}), "param": None},
    }
    return bodies[saying]


def reasoning_openai(request: LlmRequest) -> LlmReply:
    """OpenAI with a model that thinks: one temperature, one name of the limit."""
    body = request.body
    if "temperature" in body:
        words = "Unsupported value: 'temperature' does not support 0 with this model."
        return _openai_error(words, "temperature", "unsupported_value")
    if "max_tokens" in body:
        words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return _openai_error(words, "max_tokens", "unsupported_parameter")
    return as_asked(request)


def thinking(least_tokens: int) -> LlmStep:
    """Use a limit below `least_tokens` up for thinking, and answer nothing."""

    def step(request: LlmRequest) -> LlmReply:
        limit = request.body.get("max_completion_tokens", request.body.get("max_tokens"))
        if limit is not None and limit < least_tokens:
            cut = completion("", finish="length", tokens=(100, limit))
            cut["usage"]["completion_tokens_details"] = {"reasoning_tokens": limit}
            return LlmReply(body=cut)
        return as_asked(request)

    return step


def azure(deployment: str, version: str, key: str) -> LlmStep:
    """Azure OpenAI: deployments in the path, a version in the query, the key in a header of its own."""

    def step(request: LlmRequest) -> LlmReply:
        if request.path != f"/openai/deployments/{deployment}/chat/completions?api-version={version}":
            return LlmReply(404, {"error": {"code": "404", "message": "Resource not found"}})
        if request.headers.get("api-key") != key or "authorization" in request.headers:
            words = "Access denied due to invalid subscription key or wrong API endpoint."
            return LlmReply(401, {"error": {"code": "401", "message": words}})
        return as_asked(request)

    return step


def old_azure(request: LlmRequest) -> LlmReply:
    """Azure OpenAI with a version from before schemas."""
    if request.body.get("response_format", {}).get("type") == "json_schema":
        words = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
        return _openai_error(words, None, None)
    return as_asked(request)


def vllm_without_system_role(request: LlmRequest) -> LlmReply:
    """Serve a model whose template knows no system messages, as vLLM does."""
    if request.body["messages"][0]["role"] == "system":
        error = {"object": "error", "message": "System role not supported", "type": "BadRequestError"}
        return LlmReply(400, {**error, "param": None, "code": 400})
    return as_asked(request)


def ollama(request: LlmRequest) -> LlmReply:
    """Take whatever is sent, know nothing of most of it, and put the answer into a fence."""
    return LlmReply(body=completion(f"```json\n{classification(request)}\n```"))


def lm_studio(request: LlmRequest) -> LlmReply:
    """Serve a model that decodes under no schema; LM Studio has errors in one text."""
    form = request.body.get("response_format", {}).get("type")
    if form == "json_schema":
        return LlmReply(400, {"error": "This model does not support structured output"})
    if form == "json_object":
        return LlmReply(400, {"error": "'response_format.type' must be 'json_schema' or 'text'"})
    return as_asked(request)


def mistral(request: LlmRequest) -> LlmReply:
    """Refuse all at once what is not in Mistral's own protocol."""
    extra = [
        {
            "type": "extra_forbidden",
            "loc": ["body", name],
            "msg": "Extra inputs are not permitted",
            "input": 1,
        }
        for name in ("seed", "max_completion_tokens")
        if name in request.body
    ]
    if extra:
        error = {"object": "error", "message": {"detail": extra}, "type": "invalid_request_error"}
        return LlmReply(422, {**error, "param": None, "code": None})
    return as_asked(request)


def anthropic_compatible(request: LlmRequest) -> LlmReply:
    """Pass over the form and the seed; unless the prompt holds the schema, talk first."""
    said = classification(request)
    words = "".join(str(each["content"]) for each in request.body["messages"])
    return LlmReply(
        body=completion(said if "JSON Schema" in words else "These groups look like card testing.")
    )


def bedrock_gateway(request: LlmRequest) -> LlmReply:
    """Hand on what the model behind it refuses, as a detail in words."""
    head = "An error occurred (ValidationException) when calling the Converse operation: "
    if request.body["messages"][0]["role"] == "system":
        return LlmReply(400, {"detail": head + "This model doesn't support system messages."})
    if "temperature" in request.body:
        return LlmReply(400, {"detail": head + "`temperature` is deprecated for this model."})
    return LlmReply(body=completion(f"<thinking>hm {{}}</thinking>\n{classification(request)}\nDone."))


def litellm(request: LlmRequest) -> LlmReply:
    """Report what the model behind it does not take as a fault of its own."""
    if "seed" in request.body:
        words = "litellm.UnsupportedParamsError: ollama does not support parameters: {'seed': 0}"
        return LlmReply(500, {"error": {"message": words, "type": None, "param": None, "code": 500}})
    return as_asked(request)


VENDORS: Mapping[str, LlmStep] = {
    "openai": as_asked,
    "openai, a model that thinks": reasoning_openai,
    "azure, an old version": old_azure,
    "vllm": vllm_without_system_role,
    "ollama": ollama,
    "lm studio": lm_studio,
    "mistral": mistral,
    "anthropic": anthropic_compatible,
    "bedrock": bedrock_gateway,
    "litellm": litellm,
    "gemini": picky(Lacking(options=frozenset({"seed"})), "list"),
    "deepseek": picky(Lacking(forms=frozenset({"json_schema"})), "message"),
}


def _openai_error(words: str, param: str | None, code: str | None) -> LlmReply:
    error = {"message": words, "type": "invalid_request_error", "param": param, "code": code}
    return LlmReply(400, {"error": error})
