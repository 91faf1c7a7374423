"""Events for the audit log, made of names, digests and counts, never of anyone's data or secrets.

Every field an event may have is named in `FIELDS` with the shape of its values. What does not have the shape
is replaced by `REDACTED` before the event exists, so that a mistake costs a detail and not a leak.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from schemas.erasure import is_token
from schemas.errors import nearest

EventKind = Literal[
    "model_call",
    "action",
    "data_access",
    "policy_decision",
    "configuration_change",
    "batch_decided",
]
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)
Doer = Literal["people", "agent"]
"""Who does what events tell. What people have done says who it was."""
REDACTED = "[redacted]"

MOST_CASES = 200  # named in one event
_LARGEST_COUNT = 10**12  # card numbers have 13 digits and more
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/+-]{0,79}")
_IDENTIFIER = re.compile(r"[0-9a-f]{32,64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CASE = re.compile(r"case-[0-9a-f]{16}")
_DIGEST = re.compile(rf"[0-9a-f]{{12}}|{_IDENTIFIER.pattern}")
_QUERY = re.compile(rf"(requeue|loss|move)-[0-9a-f]{{12}}|{_IDENTIFIER.pattern}")
_SENTENCE = re.compile(r"(?!.*[^ ]{41})[A-Za-z0-9][A-Za-z0-9 ,.;:()'/%+#-]{0,199}")
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){2}")
_SOURCE = re.compile(r"[A-Za-z0-9._/-]{1,200}")
_LIKE_A_NUMBER = re.compile(r"[0-9]([.:/+-]?[0-9]){9}")
_LIKE_A_SECRET = re.compile(r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20}")


def _is_word(value: object) -> bool:
    """Names of ours: they start with a letter and hold neither long numbers nor long runs without a break."""
    return (
        isinstance(value, str)
        and _WORD.fullmatch(value) is not None
        and _LIKE_A_NUMBER.search(value) is None
        and _LIKE_A_SECRET.search(value) is None
    )


def _are_words(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_word(each) for each in value)


def is_short_sentence(value: object) -> bool:
    """What a person gives as a reason: a line of plain words, without long numbers and long runs."""
    return (
        isinstance(value, str)
        and _SENTENCE.fullmatch(value) is not None
        and _LIKE_A_NUMBER.search(value.replace(" ", "")) is None
        and _LIKE_A_SECRET.search(value) is None
    )


def is_name(value: object) -> bool:
    """What a person may be called: a word, such as anna.schmidt or uid:1000."""
    return _is_word(value)


def _is_version(value: object) -> bool:
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_case(value: object) -> bool:
    """The id of a case, marked as one: a number of a card has as many digits."""
    return isinstance(value, str) and _CASE.fullmatch(value) is not None


def _are_cases(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= MOST_CASES and all(map(_is_case, value))


def _is_query(value: object) -> bool:
    """A streaming query's id, or that of a batch that was asked for beside it."""
    return isinstance(value, str) and _QUERY.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) < _LARGEST_COUNT


def _are_tokens(value: object) -> bool:
    """What stands for erased ids."""
    return isinstance(value, (list, tuple)) and all(
        isinstance(each, str) and is_token(each) for each in value
    )


_SHAPES: Mapping[Callable[[object], bool], str] = {
    _is_word: """
        action actor agent change command decision level mode model outcome policy prompt reason scope stage
        status table tool who
    """,
    is_short_sentence: "why consent",
    _is_version: "version",
    _are_words: "changed tables withheld",
    _are_tokens: "tokens",
    _is_digest: """
        alert_id canary_digest cases_digest contract_digest plan_digest policy_digest prompt_digest question
        rules_version run_id scoring spec_digest
    """,
    _is_query: "query_id",
    _is_case: "case into",
    _are_cases: "cases",
    _is_count: """
        alerts batch_id cases_in_all cost_usd degraded epoch first_sequence input_tokens llm_alerts llm_calls
        lost next_sequence output_tokens reversible rows sent step stored
    """,
}
FIELDS: Mapping[str, Callable[[object], bool]] = {
    name: shape for shape, names in _SHAPES.items() for name in names.split()
}


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that happened, to be recorded once.

    Args:
        kind: what sort of thing.
        subject: what it happened to: a name, a digest, an alert's id; anything else is redacted.
        detail: fields of `FIELDS`; values of another shape than theirs are redacted, None stays.
        source: who tells it, such as a stream of batches or one run of a command: names, joined by slashes.
        position: its place among what the source tells, ascending. All events of one position are handed to
            the log in one call; once they are on record, telling them again changes nothing. So whoever comes
            back after a crash derives its newest events anew and tells all of them.

    Raises:
        ValueError: a field that `FIELDS` does not name, or a source or position that cannot be kept.
    """

    kind: EventKind
    subject: str
    detail: Mapping[str, Any]
    source: str
    position: int

    def __post_init__(self) -> None:
        """Check the fields' names, and redact whatever has not its field's shape."""
        for name in self.detail:
            if name not in FIELDS:
                raise ValueError(f"audit events have no field {name!r}; {nearest(name, FIELDS)}")
        if self.position < 0 or _SOURCE.fullmatch(self.source) is None:
            raise ValueError("expected a source of names joined by slashes, and a position from 0 on")
        kept = {name: _redacted(value, FIELDS[name]) for name, value in self.detail.items()}
        object.__setattr__(self, "detail", kept)
        object.__setattr__(self, "subject", self.subject if _is_safe(self.subject) else REDACTED)

    @property
    def detail_json(self) -> str:
        """The detail as canonical JSON: keys sorted, no spaces."""
        return json.dumps(self.detail, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A question put to a model: by the key of its content, never its text.

    Attributes:
        question: key under which the ledger keeps the answer.
        outcome: `answered`, or why the answer could not be used.
        sent: whether a request went out at all.
    """

    question: str
    outcome: str
    sent: bool
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class PolicyRuling:
    """What a policy decided about a model: whether it may be asked, and which fields it is not recorded."""

    policy: str
    model: str
    allowed: bool
    withheld: tuple[str, ...]


class AuditLog(Protocol):
    """Where events are kept: append-only, each once, in a chain that shows any change."""

    def record(self, events: Sequence[AuditEvent]) -> None:
        """Record, durably and in one append, those events that are not on record yet.

        Raises:
            FlagstreamError: the log cannot be written, or no longer is what was written to it.
        """


def _is_safe(text: str) -> bool:
    return _is_word(text) or _IDENTIFIER.fullmatch(text) is not None


def _redacted(value: Any, fits: Callable[[object], bool]) -> Any:
    return value if value is None or fits(value) else REDACTED
