"""The model clients of a process, as versions of its spec come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from agent.llm_client import LOCAL_MODEL, LlmClient
from agent.local_llm import LocalLlm
from schemas.errors import ConfigurationError, nearest
from schemas.spec import AgentSpec
from streaming.interrupts import ended_on_leaving
from streaming.settings import Settings

LLM_CHOICES = ("auto", "local", "none")
DEFAULT_MODEL = "gpt-4o-mini"


class Clients:
    """Knows whom each version of a spec asks; opens clients when first needed, closes them all on leaving.

    A version whose `llm.provider` is `none` asks nobody, whatever the choice.

    Args:
        settings: where endpoints and keys are found.
        choice: `auto` (the endpoint when the version or the environment names one, else the local model),
            `local` or `none`.

    Raises:
        ConfigurationError: `choice` is none of these.
    """

    def __init__(self, settings: Settings, choice: str) -> None:
        if choice not in LLM_CHOICES:
            raise ConfigurationError(nearest(choice, LLM_CHOICES), where="--llm")
        self._settings, self._choice = settings, choice
        self._stack = ExitStack()
        self._opened: dict[tuple[object, ...], LlmClient] = {}
        self._local_url: str | None = None

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every client, and end the local model if this process has started it."""
        self._stack.close()

    def of(self, spec: AgentSpec) -> LlmClient | None:
        """Return whom a version asks, None for nobody.

        Raises:
            ConfigurationError: an endpoint that cannot be used.
            MachineError: the local model cannot be started.
        """
        if self._choice == "none" or spec.llm.provider == "none":
            return None
        asked = _asked(spec)
        if asked not in self._opened:
            self._opened[asked] = self._stack.enter_context(self._new(spec))
        return self._opened[asked]

    def abandon(self) -> None:
        """Make questions that are being asked come back at once."""
        for client in list(self._opened.values()):
            client.abandon()

    def _new(self, spec: AgentSpec) -> LlmClient:
        endpoint = endpoint_client(self._settings, spec) if self._choice == "auto" else None
        if endpoint is not None:
            return endpoint
        if self._local_url is None:
            self._local_url = self._stack.enter_context(_local_model(self._settings))
        return LlmClient(spec.llm, base_url=self._local_url)


@contextmanager
def model_client(settings: Settings, spec: AgentSpec, choice: str) -> Iterator[LlmClient | None]:
    """Yield whom one spec asks; see Clients.

    Raises:
        ConfigurationError: `choice` is unknown, or the endpoint cannot be used.
        MachineError: the local model cannot be started.
    """
    with Clients(settings, choice) as clients:
        yield clients.of(spec)


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


def _asked(spec: AgentSpec) -> tuple[object, ...]:
    llm = spec.llm
    return llm.model, llm.base_url, llm.api_key_env, llm.max_concurrency, llm.rate.model_dump_json()


@contextmanager
def _local_model(settings: Settings) -> Iterator[str]:
    server = LocalLlm(settings.home / "llm")
    running = server.status()
    if running is not None:
        yield running
        return
    try:
        with ended_on_leaving(server.stop):
            yield server.start()
    finally:
        server.stop()
