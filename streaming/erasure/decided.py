"""Under which specs and contracts an agent has decided so far, and what models have called its entities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from agent.triage.pseudonyms import Pseudonyms
from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.id_fields import IdField, joined, parted
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.delta.pins import CANARY, pinned_contract, pinned_specs, pins_by_engine
from streaming.erasure.naming import Naming, Subject
from streaming.home.pseudonym_key import pseudonym_key
from streaming.home.settings import Settings

_HEX_DIGITS = 8


@dataclass(frozen=True)
class DecidedUnder:
    """What the batches of an agent have pinned, each once, with what is in force.

    Attributes:
        percents: of the entities that canaries have decided for.
        has_asked: whether a model was asked.
    """

    specs: tuple[AgentSpec, ...]
    contracts: tuple[EventContract, ...]
    percents: frozenset[float]
    has_asked: bool

    @classmethod
    def of(cls, reader: LakeReader, spec: AgentSpec, contract: EventContract) -> DecidedUnder:
        """Read it from the batches.

        Args:
            spec: in force.
            contract: in force.
        """
        rows = reader.frame("batches", ["pins"], repeated=["pins"])
        pins = [json.loads(each) for each in rows["pins"].cast(str).unique()]
        specs = {each.digest: each for one in pins for each in pinned_specs(one)}
        known = [pinned_contract(part) for one in pins for part in pins_by_engine(one)]
        contracts = {each.digest: each for each in known if each is not None}
        percents = {float(each[CANARY]["percent"]) for each in pins if CANARY in each}
        return cls(
            tuple({**specs, spec.digest: spec}.values()),
            tuple({**contracts, contract.digest: contract}.values()),
            frozenset({*percents, spec.promotion.canary_percent}),
            (ledger := reader.table("ledger")) is not None and ledger.count() > 0,
        )

    @property
    def naming(self) -> Naming:
        """What the agent calls its entities."""
        return Naming.of(self.specs, self.contracts)

    def check(self, entity: str, name: str) -> None:
        """Check that there is such an entity, and that an id is written as the lake may have it.

        Raises:
            ConfigurationError: there is none, or the contract writes ids of this kind otherwise.
        """
        self.naming.check(entity)
        fields = [each.entities[entity] for each in self.contracts if entity in each.entities]
        if all(_written(each, name) != name for each in fields):
            how = ", ".join(fields[-1].normalise)
            raise ConfigurationError(
                f"ids of {entity!r} are normalised ({how}): enter this one as the lake has it",
                where="--entity",
            )

    def aliases(self, settings: Settings, subjects: Sequence[Subject]) -> dict[str, str]:
        """Return the pseudonyms that models have known somebody by → others, which stand for nothing.

        Raises:
            ConfigurationError: their key is not given, or another one is.
        """
        if not self.has_asked:
            return {}
        pseudonyms, naming = Pseudonyms(pseudonym_key(settings)), self.naming
        return {
            pseudonyms.token(kind, each.id, {}): f"{kind}_{_digits_of(each.token)}"
            for each in subjects
            for kind in naming.alike[each.entity]
        }


def _written(field: IdField, name: str) -> str:
    parts = parted(name) if len(field.sources) > 1 else [name]
    return joined([field.normalised(each) for each in parts])


def _digits_of(token: str) -> str:
    """A token is random, so what follows from it is as well."""
    return hashlib.sha256(token.encode()).hexdigest()[:_HEX_DIGITS]
