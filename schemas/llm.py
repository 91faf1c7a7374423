"""What a spec says of the model behind triage: endpoint, prompt, budget and prices."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas.addresses import origin_of
from schemas.loading import Document, Duration

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def checked_base_url(value: str) -> str:
    """Return an endpoint's address when it is one, and has no place for a key.

    Raises:
        ValueError: it is not; the message does not quote it.
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as https://host/v1")
    origin_of(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user or password in the address: name the key's variable in llm.api_key_env")
    if parts.query or parts.fragment:
        raise ValueError(
            "nothing after the path, where keys are put: name the key's variable in llm.api_key_env"
        )
    return value


def _named_variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError("expected the name of an environment variable, such as OPENAI_API_KEY")
    return value


BaseUrl = Annotated[str, AfterValidator(checked_base_url)]
KeyVariable = Annotated[
    str, AfterValidator(_named_variable), Field(description="name of an environment variable")
]
ApiVersion = Annotated[
    str,
    Field(
        pattern=r"^[0-9A-Za-z.-]{1,40}$",
        description="of Azure OpenAI, whose deployment `model` names; for others leave it out",
    ),
]


class PromptReference(Document):
    """Which prompt file is used."""

    id: str = "triage"
    version: int = Field(default=2, ge=1)


class Budget(Document):
    """What the LLM may be asked for; what does not fit gets the classification by rules or waits its turn.

    `calls_per_batch` counts the calls under one deadline; where answers are late, those under way at a time.
    When short, it goes to the most expected loss,
    uncertainty and novelty first. Days and minutes are those of UTC; money is in USD, by the prices of `llm`.
    What is not given is not limited.
    """

    calls_per_batch: int = Field(default=8, ge=0)
    tokens_per_day: int = Field(default=5_000_000, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    usd_per_day: float | None = Field(default=None, ge=0)
    usd_per_minute: float | None = Field(default=None, ge=0)


class RateLimits(Document):
    """What an endpoint admits in any minute; requests wait for their turn within the deadline."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class TokenPrice(Document):
    """What a model takes, in USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Return what so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


class Fallback(Document):
    """A model that is asked while those before it do not answer: servers are down, or accounts out of quota.

    Policy and keys count for each by itself. `local` is the model that comes with flagstream.
    """

    model: str = Field(min_length=1)
    base_url: BaseUrl | None = Field(default=None, description="OpenAI's own where there is none")
    api_key_env: KeyVariable = "OPENAI_API_KEY"
    api_version: ApiVersion | None = None


class Llm(Document):
    """The model behind triage. Without `base_url` and without a key the local model is used.

    `model` may be left out: the local model is then called `local`, an endpoint is asked for its default one.
    `api_key_env` names the environment variable that holds the key; the key itself never stands in a file.
    A model that `prices` does not name, such as the local one, counts as free. A request asks about several
    groups of like alerts, as many as the model's context holds; `max_output_tokens` are for each of them.

    `deferred`: alerts leave at once with the classification by rules, and the model's answer follows as
    revision 2; an alert that waited for `patience` without one keeps the one by rules. `inline`: alerts wait
    for the model until the deadline.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"api_version", "fallbacks"})

    provider: Literal["openai", "none"] = "openai"
    mode: Literal["deferred", "inline"] = "deferred"
    patience: Duration = Field(default=timedelta(days=1), gt=timedelta(0))
    model: str | None = None
    base_url: BaseUrl | None = None
    api_key_env: KeyVariable = "OPENAI_API_KEY"
    api_version: ApiVersion | None = None
    fallbacks: tuple[Fallback, ...] = Field(
        default=(), max_length=8, description="who is asked, in this order, while `model` does not answer"
    )
    prompt: PromptReference = PromptReference()
    deadline: Duration = Field(
        default=timedelta(seconds=10),
        description="inline, how long an alert may wait; late answers have none but `patience`",
    )
    max_concurrency: int | None = Field(
        default=None, ge=1, le=64, description="requests at a time; 8 unless given, 1 for the local model"
    )
    max_output_tokens: int = Field(
        default=160, ge=16, description="about each group; the local model may write what an answer takes"
    )
    context_tokens: int = Field(default=4096, ge=256, description="prompt and answer of one request together")
    groups_per_request: int | None = Field(
        default=None, ge=1, le=64, description="8 unless given, 1 for the local model, which is slow"
    )
    budget: Budget = Budget()
    rate: RateLimits = RateLimits()
    prices: dict[str, TokenPrice] = Field(
        default={}, description="model → {input, output} in USD per million tokens"
    )

    def price_of(self, model: str) -> TokenPrice:
        """Return the price of a model, zero when none is named."""
        return self.prices.get(model) or TokenPrice(input=0.0, output=0.0)

    def as_asked(self, fallback: Fallback) -> Llm:
        """Return the same for one of the fallbacks."""
        return self.model_copy(update={**fallback.model_dump(), "fallbacks": ()})

    @field_validator("fallbacks")
    @classmethod
    def _each_once(cls, value: tuple[Fallback, ...]) -> tuple[Fallback, ...]:
        names = [each.model for each in value]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"the model {repeated[0]!r} is named twice: answers are kept by model")
        return value

    @model_validator(mode="after")
    def _falls_back_on_others(self) -> Llm:
        if self.model in [each.model for each in self.fallbacks]:
            raise ValueError(f"'fallbacks' names {self.model!r}, the model itself: answers are kept by model")
        return self
