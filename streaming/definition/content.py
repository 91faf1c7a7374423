"""The files that a spec names, each read once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from agent.model.prompt_files import Prompt, is_shipped, load_prompt
from agent.triage.triage import POLICIES
from schemas.addresses import is_uri
from schemas.contract import EventContract
from schemas.documents import place_of
from schemas.errors import ConfigurationError
from schemas.policy import Policy, load_policy
from schemas.spec import AgentSpec, ModelReference
from streaming.definition.layout import ScoreLayout, rule_schema
from streaming.detection.model import SupervisedModel
from streaming.detection.model import keep as keep_artefact
from streaming.detection.model import load as load_model
from streaming.detection.scoring import Scorer
from streaming.store.folders import Folders
from streaming.store.opening import folders_of
from streaming.store.place import Place


class Content:
    """Contract, policy, prompt and trained model of a spec.

    Each is read when it is first wanted and stays as it was read. What cannot be used raises
    ConfigurationError then; `streaming.definition.agent_definition` reads and checks all of it at once.

    Args:
        spec: names them.
        contract: what the records mean.
        artefacts: trained models by their hash, looked into first.
    """

    def __init__(self, spec: AgentSpec, contract: EventContract, artefacts: Folders | None = None) -> None:
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
        with placed("", "model"), model_files(self._spec.model, self._artefacts) as folder:
            return load_model(folder, self._spec.model.sha256)

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


@contextmanager
def model_files(model: ModelReference, artefacts: Folders | None) -> Iterator[Path]:
    """Yield a folder with a trained model: its copy where there is one, else what the spec names.

    Raises:
        ConfigurationError: the spec names what is not in the store.
    """
    if artefacts is not None and model.sha256 is not None and artefacts.holds(model.sha256):
        folders, name = artefacts, model.sha256
    elif is_uri(model.path):
        place = Place.parse(model.path, "model.path")
        folders, name = folders_of(place.parent), place.name
    else:
        yield Path(model.path)
        return
    try:
        with folders.reading(name) as folder:
            yield folder
    except FileNotFoundError as fault:
        raise ConfigurationError(f"not a model artefact: {fault}", where=model.path) from None


def keep_model(model: ModelReference | None, kept: Folders) -> None:
    """Keep a copy of the trained model that a complete spec names, so that a replay finds it."""
    if model is not None and model.sha256 is not None:
        with model_files(model, kept) as folder:
            keep_artefact(folder, model.sha256, kept)


@contextmanager
def placed(where: str, key: str = "") -> Iterator[None]:
    """Have faults of content say in which file, and under which key, they are."""
    try:
        yield
    except ConfigurationError as fault:
        raise fault.within(place_of(where, fault.key or key), key) from None
