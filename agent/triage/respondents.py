"""The models that triage may ask, in their order: a question goes to the first one that is fit to answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent.model.model_client import ModelClient
from agent.model.prompt_files import Prompt
from agent.triage.disclosure import content_key
from agent.triage.packing import Case, Packer
from schemas.llm import Llm
from schemas.policy import Policy


class Respondent:
    """One model, as triage asks it.

    Args:
        llm: prices, context and output.
        prompt: loaded prompt.
        client: the model.
    """

    def __init__(self, llm: Llm, prompt: Prompt, client: ModelClient) -> None:
        self._prompt, self._price, self.client = prompt, llm.price_of(client.model), client
        self.packer = Packer(llm, prompt, client.model, lambda: client.surcharge)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.client.model

    def key_of(self, case: Case) -> str:
        """Return where this model's answer to a case is kept in the ledger."""
        return content_key(self._prompt.id, self._prompt.version, self.model, case.data)

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost."""
        return self._price.usd(input_tokens, output_tokens)


class Respondents:
    """All models of one spec: its own, then its fallbacks, as far as the policy allows them.

    Args:
        llm: prices, context and output.
        prompt: loaded prompt.
        client: the spec's own model; it knows its fallbacks.
        policy: a fallback that it does not name is passed over.
    """

    def __init__(self, llm: Llm, prompt: Prompt, client: ModelClient, policy: Policy) -> None:
        fallbacks = (each for each in client.fallbacks if policy.allows_model(each.model))
        self.all: Sequence[Respondent] = [Respondent(llm, prompt, each) for each in (client, *fallbacks)]

    @property
    def first(self) -> Respondent:
        """The spec's own model, whose keys in the ledger are those of the cases."""
        return self.all[0]

    @property
    def fit(self) -> Respondent:
        """The first one that takes questions as things stand, the spec's own where none does."""
        return next((each for each in self.all if each.client.capacity > 0), self.first)

    def after(self, tried: Collection[str]) -> Respondent | None:
        """Return who is asked after those named have not answered, None for nobody."""
        if not tried:
            return self.fit
        others = (each for each in self.all if each.model not in tried)
        return next((each for each in others if each.client.capacity > 0), None)
