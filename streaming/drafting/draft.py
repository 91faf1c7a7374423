"""A contract drafted from a sample of events: each guess with its reason and the share that it fits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from agent.triage.untrusted_text import escaped
from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.errors import ConfigurationError
from schemas.event_columns import DIRECTION
from schemas.loading import parse_document
from streaming.drafting.composed_guess import guess_composed_id, scoped
from streaming.drafting.direction_guess import guess_direction
from streaming.drafting.field_facts import FieldFacts, facts_of
from streaming.drafting.guess import Guess
from streaming.drafting.id_guess import guess_entities, guess_id, id_of_coordinates
from streaming.drafting.money_guess import guess_amount, guess_currency, in_minor_units
from streaming.drafting.other_guesses import guess_extras, guess_label, guess_texts, possible_labels
from streaming.drafting.sample import EventSample
from streaming.drafting.time_guess import guess_time

_WIDE = 1_000_000
_MAY_BE_A_LABEL = (
    "says yes or no, as a label does: left out, so that no rule sees it; name it as the label's field, or, "
    "if it is none, in extra"
)


@dataclass(frozen=True)
class ContractDraft:
    """A contract and how it came about.

    Attributes:
        name: of the contract.
        guesses: in the order of the contract's keys.
        records: how many the sample holds.
        accepted: how many of them are payments under the contract.
        sample: what it was taken from.
        left_out: fields that nothing reads, since each may be a label that rules would see.
    """

    name: str
    guesses: Sequence[Guess]
    records: int
    accepted: int
    sample: str
    left_out: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the contract."""
        return {"name": self.name, "version": 1, **document_of(self.guesses)}

    def text(self) -> str:
        """Return the contract as YAML, each guess after its reason."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        share = self.accepted / max(self.records, 1)
        records = count_of(self.records, "record")
        yield f"# Drafted from {records} of {escaped(self.sample)}: read every line once."
        yield f"# Under it {self.accepted:,} of them ({share:.1%}) are payments; `contract check` has more."
        yield from (f"# {escaped(each)} {_MAY_BE_A_LABEL}" for each in self.left_out)
        yield from (f"name: {self.name}", "version: 1")
        group = ""
        for guess in self.guesses:
            head, _, inner = guess.key.partition(".")
            if inner and head != group:
                yield f"{head}:"
            group, indent = head, "  " if inner else ""
            fits = "" if guess.share is None else f" ({guess.share:.1%} of the records)"
            yield f"{indent}# {escaped(guess.why)}{fits}"
            yield f"{indent}{_flow({inner or head: guess.value})[1:-1]}"


def draft_of(sample: EventSample) -> ContractDraft:
    """Draft a contract from a sample, and try it on it.

    Raises:
        ConfigurationError: the sample holds no objects of JSON, or no field reads as time, amount or entity.
    """
    events = sample.events()
    objects = [event for event in events if event is not None]
    if not objects:
        held = "JSON objects; contracts for Avro or Protobuf are written by hand" if events else "rows"
        problem = f"the sample holds no {held}"
        raise ConfigurationError(problem, where=sample.name)
    guesses, left_out = _guesses(facts_of(objects), sample)
    name = re.sub(r"[^a-z0-9_-]+", "-", sample.name.lower().split(".")[0]).strip("-_") or "events"
    draft = ContractDraft(
        name if name[0].isalpha() else f"events-{name}", guesses, len(events), 0, sample.name, left_out
    )
    contract = parse_document(draft.document(), EventContract, where=sample.name)
    tried = sample.tried(contract)
    return replace(draft, records=tried.count, accepted=tried.decoded.valid.num_rows)


def document_of(guesses: Sequence[Guess]) -> dict[str, Any]:
    """Return the keys of a contract that some guesses fill."""
    document: dict[str, Any] = {}
    for guess in guesses:
        head, _, inner = guess.key.partition(".")
        if inner:
            document.setdefault(head, {})[inner] = guess.value
        else:
            document[head] = guess.value
    return document


def _guesses(fields: Sequence[FieldFacts], sample: EventSample) -> tuple[list[Guess], tuple[str, ...]]:
    """Return what is guessed, and the fields that are left out as possible labels."""
    left = _Left(fields)
    label = left.take(guess_label(left.fields))
    time = left.take(guess_time(left.fields))
    key = left.take(guess_id(left.fields) or guess_composed_id(left.fields) or id_of_coordinates())
    money = _money(left, fields)
    entities = [left.take(each) for each in scoped(guess_entities(left.fields), fields)]
    for guess, what in ((time, "an event time"), (money[0], "an amount"), (entities, "an entity's id")):
        if not guess:
            paths = ", ".join(facts.path for facts in fields)
            raise ConfigurationError(f"no field reads as {what}, among: {paths}", where=sample.name)
    taken = {DIRECTION, *(guess.key.partition(".")[2] for guess in entities if guess is not None)}
    left_out = () if label else left.leave(possible_labels(left.fields))
    texts = [left.take(each) for each in guess_texts(left.fields, taken)]
    found = [key, time, *money, *entities, *guess_extras(left.fields, taken), *texts, label]
    framed = Guess(
        "format", {"json": {"framing": "confluent"}}, 1.0, "a schema registry's five bytes go first"
    )
    return [*([framed] if sample.framed else []), *(each for each in found if each is not None)], left_out


def _money(left: _Left, fields: Sequence[FieldFacts]) -> list[Guess | None]:
    """Return amount, currency and direction."""
    amount = left.take(guess_amount(left.fields))
    currency = guess_currency(left.fields, amount, fields)
    left.take(currency)
    return [in_minor_units(amount, currency, fields), currency, left.take(guess_direction(left.fields))]


class _Left:
    """The fields that no guess reads yet."""

    def __init__(self, fields: Sequence[FieldFacts]) -> None:
        self.fields = list(fields)

    def take(self, guess: Guess | None) -> Guess | None:
        self.leave(() if guess is None else guess.fields)
        return guess

    def leave(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        self.fields = [facts for facts in self.fields if facts.path not in paths]
        return paths


def _flow(value: Mapping[str, Any]) -> str:
    written = _yaml(value, readable=True)
    # A name may hold what turns a terminal's text around.
    return written if written.isprintable() else _yaml(value, readable=False)


def _yaml(value: Mapping[str, Any], *, readable: bool) -> str:
    written = yaml.safe_dump(
        value, default_flow_style=True, width=_WIDE, sort_keys=False, allow_unicode=readable
    )
    return written.strip()
