"""The model clients of a running agent, as versions of its spec come and go."""

from __future__ import annotations

from contextlib import ExitStack

from agent.llm_client import LOCAL_MODEL, LlmClient
from schemas.spec import AgentSpec
from streaming.settings import Settings

DEFAULT_MODEL = "gpt-4o-mini"


def endpoint_client(settings: Settings, spec: AgentSpec) -> LlmClient | None:
    """Return a client of the endpoint that the spec or the environment names, None when neither does."""
    base_url = spec.llm.base_url or settings.llm_base_url
    key = settings.api_key(spec.llm.api_key_env)
    if base_url is None and key is None:
        return None
    return LlmClient(spec.llm, model=model_asked(settings, spec), base_url=base_url, api_key=key)


def model_asked(settings: Settings, spec: AgentSpec) -> str:
    """Return the name of the model that a spec asks where nothing else is said."""
    base_url = spec.llm.base_url or settings.llm_base_url
    if base_url is None and settings.api_key(spec.llm.api_key_env) is None:
        return LOCAL_MODEL
    return spec.llm.model or DEFAULT_MODEL


class Clients:
    """Knows whom each version asks, within what the agent was started with.

    An agent started without a model stays without one, one started with the local model asks no other.

    Args:
        settings: where endpoints and keys are found.
        started: the spec the agent was started under.
        first: its client.
        stack: closes the clients that later versions need.
    """

    def __init__(
        self, settings: Settings, started: AgentSpec, first: LlmClient | None, stack: ExitStack
    ) -> None:
        self._settings, self._started, self._first, self._stack = settings, started, first, stack
        self._opened: dict[tuple[object, ...], LlmClient | None] = {_asked(started): first}

    def of(self, spec: AgentSpec) -> LlmClient | None:
        """Return whom a version asks, None for nobody."""
        first = self._first
        if first is None or (spec.llm.provider == "none" and self._started.llm.provider != "none"):
            return None
        if first.model == LOCAL_MODEL:
            return first
        if _asked(spec) not in self._opened:
            client = endpoint_client(self._settings, spec)
            self._opened[_asked(spec)] = None if client is None else self._stack.enter_context(client)
        return self._opened[_asked(spec)]

    def abandon(self) -> None:
        """Make questions that are being asked come back at once."""
        for client in self._opened.values():
            if client is not None:
                client.abandon()


def _asked(spec: AgentSpec) -> tuple[object, ...]:
    return spec.llm.model, spec.llm.base_url, spec.llm.api_key_env, spec.llm.rate.model_dump_json()
