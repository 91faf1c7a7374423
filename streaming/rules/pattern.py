"""A rule over two events, with the numbers that it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.instants import MICRO
from schemas.rules import Rule
from schemas.spec import FIRST_ARITHMETIC
from streaming.rules.event_time import EventClock, blank_clock

# Later arithmetics count such rules as this one does, so that what they wait for is waited for further.
_NEWEST_OF_RULES = 2


def memory_key(rule: Rule, arithmetic: int) -> str:
    """Return what the state of a rule is kept by: all that the rule says, and the arithmetic of its times."""
    return rule.digest if arithmetic == FIRST_ARITHMETIC else f"{rule.digest}.{_NEWEST_OF_RULES}"


@dataclass(frozen=True)
class CompiledPattern:
    """A rule over two events, ready to run.

    Attributes:
        number: its column among the conditions of patterns.
        rule: as it stands in the spec.
        digest: the memory_key; under it the state is kept.
        within: microseconds.
        lateness: microseconds.
        grace: by how much a first event may be older than the watermark and is still waited for.
        clock: before any row.
    """

    number: int
    rule: Rule
    digest: str
    entities: tuple[str, ...]
    within: int
    lateness: int
    grace: int
    clock: EventClock

    @classmethod
    def of(cls, number: int, rule: Rule, arithmetic: int) -> CompiledPattern:
        """Take the numbers out of a rule that has a pattern."""
        form = rule.pattern
        assert form is not None, "only rules with a pattern"
        within, lateness = (each // MICRO for each in (form.within, form.lateness))
        grace = 0 if arithmetic == FIRST_ARITHMETIC else within
        times = (within, lateness, grace)
        return cls(number, rule, memory_key(rule, arithmetic), form.entities, *times, blank_clock(arithmetic))
