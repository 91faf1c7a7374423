"""The model clients of a process, as versions of its spec come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

from agent.model.call_watch import CallWatch, unwatched
from agent.model.endpoint_memory import EndpointMemory, EndpointState
from agent.model.endpoints import OPENAI_URL, endpoint_of
from agent.model.local_llm import LocalLlm
from agent.model.model_client import LOCAL_MODEL
from agent.triage.triage import POLICIES
from schemas.errors import ConfigurationError, nearest
from schemas.llm import Fallback, Llm
from schemas.policy import load_policy
from schemas.spec import AgentSpec
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.interrupts import ended_on_leaving

if TYPE_CHECKING:
    from agent.model.llm_client import LlmClient

LLM_CHOICES = ("auto", "local", "none")
DEFAULT_MODEL = "gpt-4o-mini"


class Clients:
    """Knows whom each version of a spec asks; opens clients when first needed, closes them all on leaving.

    A version whose `llm.provider` is `none` asks nobody, whatever the choice.

    Args:
        settings: where endpoints and keys are found.
        choice: `auto` (the endpoint when the version or the environment names one, else the local model),
            `local` or `none`.
        unwanted: whether whoever needed a model is about to end: a local one that is starting is given up.
        watch: learns of each request that has come to its end.

    Raises:
        ConfigurationError: `choice` is none of these.
    """

    def __init__(
        self,
        settings: Settings,
        choice: str,
        unwanted: Callable[[], bool] = lambda: False,
        watch: CallWatch = unwatched,
    ) -> None:
        if choice not in LLM_CHOICES:
            raise ConfigurationError(nearest(choice, LLM_CHOICES), where="--llm")
        self._settings, self._choice, self._unwanted, self._watch = settings, choice, unwanted, watch
        self._clients, self._server = ExitStack(), ExitStack()
        self._opened: dict[tuple[object, ...], LlmClient] = {}
        self._local_url: str | None = None

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every client, and end the local model if this process has started it."""
        self.let_go()
        self._server.close()

    def let_go(self) -> None:
        """Close every client; whoever is needed again is opened anew."""
        self._clients.close()
        self._opened.clear()

    def revive(self) -> None:
        """Start the local model again where this process has used it and it has died.

        Raises:
            MachineError: it cannot be started.
        """
        if self._local_url is not None:
            LocalLlm(self._settings.home / "llm").revive(self._local_url, self._unwanted)

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
            self._opened[asked] = self._new(spec)
        return self._opened[asked]

    def abandon(self) -> None:
        """Make questions that are being asked come back at once."""
        for client in self._all():
            client.abandon()

    def trouble(self) -> str | None:
        """Say what keeps models from answering and what to do about it, None where nothing does."""
        found = (f"{each.model}: {each.trouble}" for each in self._all() if each.trouble)
        return "; ".join(dict.fromkeys(found)) or None

    def breakers(self) -> dict[str, bool]:
        """Return for each model whether it is left alone just now, since it has failed again and again."""
        return {each.model: not each.breaker.closed for each in self._all()}

    def _all(self) -> list[LlmClient]:
        opened = list(self._opened.values())
        return [each for client in opened for each in (client, *client.fallbacks)]

    def _new(self, spec: AgentSpec) -> LlmClient:
        fallbacks = (
            [] if self._choice == "local" else [self._fallback(spec, each) for each in spec.llm.fallbacks]
        )
        endpoint = self._endpoint(spec, fallbacks) if self._choice == "auto" else None
        return self._clients.enter_context(endpoint or self._local(spec.llm, fallbacks))

    def _endpoint(self, spec: AgentSpec, fallbacks: Sequence[LlmClient]) -> LlmClient | None:
        return endpoint_client(PlacedAgent(self._settings, spec), fallbacks, self._watch)

    def _fallback(self, spec: AgentSpec, fallback: Fallback) -> LlmClient:
        llm = spec.llm.as_asked(fallback)
        if fallback.model == LOCAL_MODEL:
            return self._clients.enter_context(self._local(llm))
        found = _client(self._settings, spec.policy, llm, fallback.model, None, watch=self._watch)
        return self._clients.enter_context(found)

    def _local(self, llm: Llm, fallbacks: Sequence[LlmClient] = ()) -> LlmClient:
        from agent.model.llm_client import LlmClient  # noqa: PLC0415 -- half a second; see SessionKeeper

        if self._local_url is None:
            self._local_url = self._server.enter_context(_local_model(self._settings, self._unwanted))
        return LlmClient(llm, base_url=self._local_url, fallbacks=fallbacks, watch=self._watch)


@contextmanager
def model_client(agent: PlacedAgent, choice: str, watch: CallWatch = unwatched) -> Iterator[LlmClient | None]:
    """Yield whom one spec asks; see Clients.

    Raises:
        ConfigurationError: `choice` is unknown, or the endpoint cannot be used.
        MachineError: the local model cannot be started.
    """
    with Clients(agent.settings, choice, watch=watch) as clients:
        yield clients.of(agent.spec)


def endpoint_client(
    agent: PlacedAgent,
    fallbacks: Sequence[LlmClient] = (),
    watch: CallWatch = unwatched,
) -> LlmClient | None:
    """Return a client of the endpoint that the spec or the environment names, None when neither does.

    Raises:
        ConfigurationError: the policy does not bind the model to the endpoint and the key.
    """
    if not _names_an_endpoint(agent):
        return None
    model, operators_url = model_asked(agent), agent.settings.llm_base_url
    return _client(agent.settings, agent.spec.policy, agent.spec.llm, model, operators_url, fallbacks, watch)


def _client(
    settings: Settings,
    policy: str,
    llm: Llm,
    model: str,
    operators_url: str | None,
    fallbacks: Sequence[LlmClient] = (),
    watch: CallWatch = unwatched,
) -> LlmClient:
    from agent.model.llm_client import LlmClient  # noqa: PLC0415 -- half a second; see SessionKeeper

    endpoint = endpoint_of(load_policy(policy, POLICIES), llm, model, operators_url)
    key = None if endpoint.key_variable is None else settings.api_key(endpoint.key_variable)
    return LlmClient(
        llm,
        model=model,
        base_url=endpoint.url,
        api_key=key,
        reach=endpoint.reach,
        memory=EndpointMemory(settings.endpoints),
        api_version=llm.api_version,
        fallbacks=fallbacks,
        watch=watch,
    )


def check_endpoint(spec: AgentSpec, where: str) -> None:
    """Check that the policy admits the endpoint that a spec names, as far as the environment names none.

    Args:
        where: the spec's file, for the error.

    Raises:
        ConfigurationError: it does not.
    """
    if spec.llm.provider == "none":
        return
    named = [spec.llm] if spec.llm.base_url is not None else []
    named += [spec.llm.as_asked(each) for each in spec.llm.fallbacks if each.model != LOCAL_MODEL]
    try:
        for llm in named:
            endpoint_of(load_policy(spec.policy, POLICIES), llm, llm.model or DEFAULT_MODEL, None)
    except ConfigurationError as fault:
        raise fault.within(where) from None


def model_asked(agent: PlacedAgent) -> str:
    """Return the name of the model that a spec asks where nothing else is said."""
    return (agent.spec.llm.model or DEFAULT_MODEL) if _names_an_endpoint(agent) else LOCAL_MODEL


def known_endpoints(agent: PlacedAgent) -> list[EndpointState]:
    """Return what is known of the endpoints that a spec asks: of those that have refused something."""
    memory = EndpointMemory(agent.settings.endpoints)
    named = [
        _whom(agent),
        *((each.base_url or OPENAI_URL, each.model) for each in agent.spec.llm.fallbacks),
    ]
    found = (memory.of(*each) for each in named)
    return [each for each in found if each is not None]


def forget_endpoint(agent: PlacedAgent) -> None:
    """Have it found out anew what the endpoint takes that a spec asks."""
    EndpointMemory(agent.settings.endpoints).forget(*_whom(agent))


def _whom(agent: PlacedAgent) -> tuple[str, str]:
    return agent.spec.llm.base_url or agent.settings.llm_base_url or OPENAI_URL, model_asked(agent)


def _names_an_endpoint(agent: PlacedAgent) -> bool:
    named = agent.spec.llm.base_url or agent.settings.llm_base_url
    return named is not None or agent.settings.api_key(agent.spec.llm.api_key_env) is not None


def _asked(spec: AgentSpec) -> tuple[object, ...]:
    llm = spec.llm
    limits = llm.max_concurrency, llm.rate.model_dump_json()
    return spec.policy, llm.model, llm.base_url, llm.api_key_env, llm.api_version, llm.fallbacks, *limits


@contextmanager
def _local_model(settings: Settings, unwanted: Callable[[], bool]) -> Iterator[str]:
    server = LocalLlm(settings.home / "llm")
    running = server.status()
    if running is not None:
        yield running
        return
    try:
        with ended_on_leaving(server.stop):
            yield server.start(unwanted)
    finally:
        server.stop()
