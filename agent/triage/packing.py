"""Packs groups into requests: many where nobody outside wrote a word of them, else only with their own text.

A text of outsiders may make a model say anything about whatever stands in the same request. So a group with
such a text shares requests only with groups of the very same text.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.model.chat_request import schema_in_words
from agent.model.model_client import LOCAL_MODEL, Question, Surcharge
from agent.model.prompt_files import Messages, Prompt
from agent.triage.answers import MOST_CITATIONS, RATIONALE_CHARACTERS, answer_schema, fixed_schema
from agent.triage.disclosure import Disclosed, canonical_json, content_key
from agent.triage.grouping import Group, Texts
from schemas.llm import Llm

_GROUPS_OF_ENDPOINTS = 8
_ID_TOKENS = 20  # it stands in the data and in the last line, with signs around it
_FORM_TOKENS = 120  # of an answer: the id, keys, classification, severity, signs and line breaks
_LETTERS_PER_TOKEN = 2


@dataclass(frozen=True)
class Case:
    """A group to ask about. `key` is its place in the ledger."""

    group: Group
    priority: float
    disclosed: Disclosed
    data: str
    key: str


def case_of(prompt: Prompt, model: str, group: Group, priority: float, disclosed: Disclosed) -> Case:
    """Make a group askable; its key depends on what is disclosed about it, not on what shares its request."""
    data = canonical_json(disclosed.facts)
    return Case(group, priority, disclosed, data, content_key(prompt.id, prompt.version, model, data))


class Packer:
    """Packs cases into requests and turns requests into questions.

    Args:
        llm: context, output and groups per request.
        prompt: loaded prompt.
        model: name of the model; the local one writes too slowly to answer for many groups in time.
        surcharge: what the model has shown to take besides prompt and answer.
    """

    def __init__(
        self, llm: Llm, prompt: Prompt, model: str, surcharge: Callable[[], Surcharge] = Surcharge
    ) -> None:
        self._surcharge = surcharge
        self._llm, self._prompt, self._is_local = llm, prompt, model == LOCAL_MODEL
        self._most_groups = llm.groups_per_request or (1 if self._is_local else _GROUPS_OF_ENDPOINTS)
        self._frame_tokens = _tokens_of(prompt.render({}))

    @property
    def most_groups(self) -> int:
        """Groups in a request at most."""
        return self._most_groups

    def pack(
        self, cases: Iterable[Case], together: Callable[[Case], int] = lambda _: sys.maxsize
    ) -> list[list[Case]]:
        """Fill requests in the order of `cases`; of them a batch sends those that most depends on.

        `together` says how many cases may share a request with one, itself included.

        Many groups in one request weigh more than one that must go alone, so texts of outsiders hardly use up
        a batch's calls.
        """
        requests: list[list[Case]] = []
        filling: dict[Texts, list[Case]] = {}
        for case in cases:
            texts = case.group.pattern.texts
            sharing = [*filling.get(texts, ()), case]
            if len(sharing) > min(map(together, sharing)) or not self._fits(sharing):
                filling.pop(texts, None)
            if texts in filling:
                filling[texts].append(case)
            elif self._fits([case]):
                requests.append(filling.setdefault(texts, [case]))
        return sorted(requests, key=_priority, reverse=True)[: self._llm.budget.calls_per_batch]

    def _fits(self, cases: list[Case]) -> bool:
        distinct = len({case.key for case in cases}) == len(cases)
        few = len(cases) <= self._most_groups
        return distinct and few and self.most_tokens(cases) <= self._llm.context_tokens

    def most_tokens(self, cases: list[Case]) -> int:
        """Tokens of prompt and answer, rather too many than too few."""
        return self.most_input_tokens(cases) + self.most_output_tokens(cases)

    def most_input_tokens(self, cases: list[Case]) -> int:
        """Tokens of the prompt, rather too many than too few."""
        schema = schema_in_words(self._schema(cases)) if self._surcharge().schema_in_prompt else ""
        frame = self._frame_tokens + most_tokens_of(schema)
        return frame + sum(most_tokens_of(case.data) + _ID_TOKENS for case in cases)

    def most_output_tokens(self, cases: list[Case]) -> int:
        """Tokens the answer is given; the local model, which costs nothing, is never cut off."""
        least = self._llm.max_output_tokens
        return sum(max(least, _longest_answer(case)) if self._is_local else least for case in cases)

    def booked_output_tokens(self, cases: list[Case]) -> int:
        """Tokens to set aside for the answer: with those of a model that thinks first."""
        return self.most_output_tokens(cases) + self._surcharge().thinking_tokens

    def question(self, cases: list[Case], affords: Callable[[int], bool] = lambda _: False) -> Question:
        """Return the request about `cases`; see Question for `affords`."""
        return Question(
            messages=self._prompt.render({name: case.data for name, case in named(cases).items()}),
            schema=self._schema(cases),
            max_output_tokens=self.most_output_tokens(cases),
            most_tokens=self.most_input_tokens(cases) + self.booked_output_tokens(cases),
            affords=affords,
        )

    def _schema(self, cases: list[Case]) -> dict[str, Any]:
        """The small local model needs its evidence spelled out; others get the same schema every time."""
        called = named(cases)
        if self._is_local:
            return answer_schema({name: case.disclosed.citable for name, case in called.items()})
        return fixed_schema(list(called))


def named(cases: Sequence[Case]) -> dict[str, Case]:
    """Return cases by what a request calls them: by their places, so that like requests have like ids."""
    return {f"g{place}": case for place, case in enumerate(cases, 1)}


def _priority(cases: list[Case]) -> float:
    return math.fsum(case.priority for case in cases)


def most_tokens_of(text: str) -> int:
    """Return a number of tokens that byte-level tokenisers stay below for what we send.

    English takes 4 to 5 letters a token and our JSON 2 to 3 characters; digits take one each, signs about as
    much, and a script the tokeniser hardly knows one per byte.
    """
    letters = sum(each.isascii() and (each.isalpha() or each == " ") for each in text)
    return letters // _LETTERS_PER_TOKEN + len(text.encode("utf-8", "surrogatepass")) - letters


def _longest_answer(case: Case) -> int:
    """Tokens of the longest answer about a group that the schema admits, rather too many than too few."""
    evidence = sorted(map(most_tokens_of, case.disclosed.citable))[-MOST_CITATIONS:]
    return _FORM_TOKENS + RATIONALE_CHARACTERS + sum(evidence)


def _tokens_of(messages: Messages) -> int:
    return most_tokens_of(messages.system) + most_tokens_of(messages.user)
