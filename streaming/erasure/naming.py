"""Where ids may stand: columns, kinds of entities and parts of ids that are made of several fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.triage.pseudonyms import is_identifying
from schemas.contract import EventContract
from schemas.errors import ConfigurationError, nearest
from schemas.id_fields import IdField
from schemas.spec import AgentSpec
from streaming.profiles.directions import entity_of
from streaming.rules.pattern import memory_key

TRANSACTION = "transaction_id"


@dataclass(frozen=True)
class Subject:
    """An entity to be erased.

    Attributes:
        entity: name of the entity in the contract.
        id: as it stands in the lake.
        token: what stands there afterwards.
    """

    entity: str
    id: str
    token: str

    @property
    def is_telling(self) -> bool:
        """Whether the id can be told from other words of a text: 7, or 42, stands for too much."""
        if self.id.isdigit():
            return len(self.id) >= _TELLING_DIGITS
        return len(self.id) >= _TELLING_CHARACTERS


_TELLING_DIGITS, _TELLING_CHARACTERS = 6, 3


@dataclass(frozen=True)
class Part:
    """A part of an id that is made of several fields.

    Attributes:
        place: of the field among the id's.
        field: how the id is written.
    """

    place: int
    field: IdField


@dataclass(frozen=True)
class Naming:
    """What an agent calls its entities, by all contracts and specs that it has gone by.

    Attributes:
        entities: names of the contracts' entities.
        texts: columns that may hold what identifies somebody: free texts of outsiders, names and addresses.
        alike: entity → entities that share its ids, itself included.
        parts: entity → column → where its id is a part of the column's.
        accounts: entities that pay or are paid, as those know who remember which have met.
        patterns: key of what a rule over two events remembers → the entities it goes by.
    """

    entities: frozenset[str]
    texts: frozenset[str]
    alike: Mapping[str, frozenset[str]]
    parts: Mapping[str, Mapping[str, tuple[Part, ...]]]
    accounts: frozenset[str]
    patterns: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, specs: Iterable[AgentSpec], contracts: Iterable[EventContract]) -> Naming:
        """Put together what contracts and specs say."""
        kept, known = list(specs), list(contracts)
        entities = frozenset(name for each in known for name in each.entities)
        return cls(
            entities=entities,
            texts=frozenset(name for each in known for name in _texts_of(each)),
            alike={name: frozenset({name, *_partners(name, kept)}) for name in entities},
            parts={name: _parts_of(name, known) for name in entities},
            accounts=frozenset(name for each in entities for name in _partners(each, kept)),
            patterns={
                memory_key(rule, spec.arithmetic_in_force): rule.pattern.entities
                for spec in kept
                for rule in spec.rules
                if rule.pattern is not None
            },
        )

    def check(self, entity: str) -> None:
        """Check that there is such an entity.

        Raises:
            ConfigurationError: there is none, with the nearest name.
        """
        if entity not in self.entities:
            raise ConfigurationError(
                f"no entity {entity!r} in the contract; {nearest(entity, self.entities)}", where="--entity"
            )

    @staticmethod
    def of_kind(kind: str) -> tuple[str, ...]:
        """Return the entities whose ids make up those of a kind that has profiles."""
        return tuple(entity_of(kind).split("+"))


def _texts_of(contract: EventContract) -> list[str]:
    named = (*contract.extra, *contract.reference_columns)
    return [*contract.untrusted_text, *(name for name in named if is_identifying(name))]


def _partners(entity: str, specs: Iterable[AgentSpec]) -> Iterable[str]:
    """An account is the same one whether it pays or is paid."""
    for spec in specs:
        chosen = spec.detectors.counterparties
        if chosen.enabled and entity in chosen.entities:
            yield from chosen.entities


def _parts_of(entity: str, contracts: Iterable[EventContract]) -> dict[str, tuple[Part, ...]]:
    found: dict[str, list[Part]] = {}
    for contract in contracts:
        sources = contract.entities[entity].sources if entity in contract.entities else ()
        columns: dict[str, IdField] = {TRANSACTION: contract.transaction_id, **contract.entities}
        for name, field in columns.items():
            if len(sources) == 1 and len(field.sources) > 1 and sources[0] in field.sources:
                found.setdefault(name, []).append(Part(field.sources.index(sources[0]), field))
    return {name: tuple(parts) for name, parts in found.items()}
