"""What triage and planning need of a model: questions, what comes back, and a model that nobody is to ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.model.prompt_files import Messages
from schemas.alert import FallbackReason

LOCAL_MODEL = "local"


@dataclass(frozen=True)
class Question:
    """One request: messages, and the JSON Schema the answer must have.

    `most_tokens` is what prompt and answer take at most, for an endpoint that admits so many a minute;
    `affords` sets more tokens of output aside for it, and says whether there is money for them.
    """

    messages: Messages
    schema: Mapping[str, Any]
    max_output_tokens: int
    most_tokens: int
    affords: Callable[[int], bool] = field(default=lambda _: False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer, not yet validated."""

    text: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer.

    `sent` is whether a request went out at all, `of_server` whether it says anything of the server and not
    of this question alone, `lasting` whether the server will answer none for a while; tokens as far as known.
    """

    reason: FallbackReason
    sent: bool = True
    input_tokens: int = 0
    output_tokens: int = 0
    of_server: bool = True
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Surcharge:
    """What a model takes besides prompt and answer: the schema in the prompt, and tokens to think with."""

    schema_in_prompt: bool = False
    thinking_tokens: int = 0


Replies = list[tuple[int, "Completion | Failure"]]
_DOWN: frozenset[FallbackReason] = frozenset(
    {"unreachable", "rate_limited", "server_error", "rejected", "circuit_open"}
)


def is_down(reply: Completion | Failure) -> bool:
    """Whether there is no answer because the model gives none just now; another one may."""
    return isinstance(reply, Failure) and reply.reason in _DOWN


class ModelClient(Protocol):
    """What triage needs of a model."""

    @property
    def model(self) -> str:
        """Name of the model."""

    def ask(
        self, questions: Sequence[Question], seconds: float, late: Replies | None = None
    ) -> list[Completion | Failure]:
        """Answer each question in place, within `seconds` altogether; what the model does never raises.

        `late` takes, by their questions' places, replies that come within as long again.
        """

    @property
    def capacity(self) -> int:
        """How many questions at a time the model takes as things stand."""

    @property
    def surcharge(self) -> Surcharge:
        """What it has shown to take besides prompt and answer."""

    @property
    def fallbacks(self) -> Sequence[ModelClient]:
        """Who is asked, in this order, while this model does not answer."""

    def begin(self, question: Question, seconds: float) -> Future[Completion | Failure]:
        """Begin to ask one question beside others; after `seconds` its answer is not waited for any more."""

    def abandon(self) -> None:
        """Make what another thread is asking, and whatever is asked from now on, come back at once."""


class Unasked:
    """Stands for a model that nobody is to ask: it has a name, and no question leaves.

    Args:
        model: the name.
        fallbacks: names of those that were asked while it did not answer.
    """

    def __init__(self, model: str, fallbacks: Sequence[str] = ()) -> None:
        self._model, self._fallbacks = model, tuple(map(Unasked, fallbacks))

    @property
    def model(self) -> str:
        """See ModelClient."""
        return self._model

    def ask(
        self,
        questions: Sequence[Question],
        seconds: float,  # noqa: ARG002 -- the protocol's
        late: Replies | None = None,  # noqa: ARG002 -- the protocol's
    ) -> list[Completion | Failure]:
        """See ModelClient: each question comes back unsent."""
        return [Failure("llm_off", sent=False) for _ in questions]

    @property
    def capacity(self) -> int:
        """See ModelClient."""
        return 1

    @property
    def surcharge(self) -> Surcharge:
        """See ModelClient."""
        return Surcharge()

    @property
    def fallbacks(self) -> Sequence[ModelClient]:
        """See ModelClient."""
        return self._fallbacks

    def begin(self, question: Question, seconds: float) -> Future[Completion | Failure]:  # noqa: ARG002 -- the protocol's
        """See ModelClient: the question comes back unsent."""
        return finished(Failure("llm_off", sent=False))

    def abandon(self) -> None:
        """See ModelClient: there is nothing to abandon."""


def finished(outcome: Completion | Failure) -> Future[Completion | Failure]:
    """Return a future that has come to its outcome."""
    future: Future[Completion | Failure] = Future()
    future.set_result(outcome)
    return future
