"""The files that a spec names, each read once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from agent.model.prompt_files import Prompt, is_shipped, load_prompt
from agent.triage.triage import POLICIES
from schemas.contract import EventContract
from schemas.documents import place_of
from schemas.errors import ConfigurationError
from schemas.policy import Policy, load_policy
from schemas.spec import AgentSpec, ModelReference
from streaming.definition.layout import ScoreLayout, rule_schema
from streaming.detection.model import SupervisedModel
from streaming.detection.model import load as load_model
from streaming.detection.scoring import Scorer


class Content:
    """Contract, policy, prompt and trained model of a spec.

    Each is read when it is first wanted and stays as it was read. What cannot be used raises
    ConfigurationError then; `streaming.definition.agent_definition` reads and checks all of it at once.

    Args:
        spec: names them.
        contract: what the records mean.
        artefacts: folder of trained models by their hash, looked into first.
    """

    def __init__(self, spec: AgentSpec, contract: EventContract, artefacts: Path | None = None) -> None:
        self.contract = contract
        self._spec, self._artefacts = spec, artefacts

    @cached_property
    def policy(self) -> Policy:
        """What may leave, and to which model."""
        return load_policy(self._spec.policy, POLICIES)

    @property
    def has_prompt(self) -> bool:
        """Whether the prompt is still there: the wording of an old version may have gone."""
        return is_shipped(self._spec.llm.prompt)

    @cached_property
    def prompt(self) -> Prompt:
        """The prompt, with the contract's notes on its fields."""
        return load_prompt(self._spec.llm.prompt, self.contract.prompt_notes())

    @cached_property
    def trained_model(self) -> SupervisedModel | None:
        """The trained model that the spec puts in force, None where it names none."""
        if self._spec.model is None:
            return None
        with placed("", "model"):
            return load_model(model_folder(self._spec.model, self._artefacts), self._spec.model.sha256)

    @cached_property
    def layout(self) -> ScoreLayout:
        """What the spec's scores are made of."""
        return ScoreLayout.of(self.blank_scorer())

    @property
    def rule_schema(self) -> pa.Schema:
        """What rules can read."""
        return rule_schema(self.contract, self.layout)

    def blank_scorer(self) -> Scorer:
        """Return a scorer that has met no transaction."""
        return Scorer.under(self._spec, self.contract, self.trained_model)


def model_folder(model: ModelReference, artefacts: Path | None) -> Path:
    """Return the folder of a trained model: its copy where there is one, else where the spec says."""
    copy = None if artefacts is None or model.sha256 is None else artefacts / model.sha256
    return copy if copy is not None and copy.is_dir() else Path(model.path)


@contextmanager
def placed(where: str, key: str = "") -> Iterator[None]:
    """Have faults of content say in which file, and under which key, they are."""
    try:
        yield
    except ConfigurationError as fault:
        raise fault.within(place_of(where, fault.key or key), key) from None
