"""What one endpoint takes of a request: learned from what it refuses, once, and never asked for again.

Servers that speak the OpenAI protocol differ in the form that they can bind an answer to, in the options they
know, in what they call the limit of an answer, and in the roles of messages. None of these is needed for an
answer that can be checked, so what a server refuses is left out from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.model.server_faults import ServerFault

AnswerForm = Literal["json_schema", "json_object", "text"]
LimitName = Literal["max_completion_tokens", "max_tokens"]
FORMS: tuple[AnswerForm, ...] = ("json_schema", "json_object", "text")
SAMPLING: Mapping[str, int] = {"temperature": 0, "seed": 0}
MOST_LESSONS = 12
THINKING_TOKENS = 4_000
_LIMITS: tuple[LimitName, ...] = ("max_completion_tokens", "max_tokens")
_USELESS_ANSWERS = 2
_LEAST_TOKENS = 16

# Where a refusal by name may come from; gateways hand on others' refusals as faults of their own.
_BY_NAME = frozenset({400, 404, 405, 406, 415, 422, 500, 501})
_WITHOUT_A_NAME = frozenset({400, 405, 406, 415, 422, 501})
_OF_MANY_CAUSES = frozenset({404, 500, 501})
_COMPLAINT = re.compile(
    r"support|unknown|unrecogni[sz]ed|unexpected|extra|permitted|allowed|enabled|invalid|cannot|unavailable",
    re.I,
)
_FORM_WORDS = (
    r"response[_ ]?format|json_schema|json_object|json[ _]mode|json schema|structured[ _-]?outputs?|"
    r"\bgrammar\b|guided[_ ](json|decoding)"
)
_ROLE_WORDS = (
    r"messages(\[0\]|\.0)\.role|\bsystem\b['\"`]?.{0,20}\b(role|message|prompt|instruction)|"
    r"\brole\b.{0,60}\bsystem\b|\broles?\b.{0,40}\balternate|developer instruction"
)
_TOO_HIGH = re.compile(r"too (large|high|big)|at most|less than|maximum|exceed|<=|up to", re.I)
_BOUNDS = re.compile(r"\b(pattern|minItems|maxItems|minLength|maxLength)\b")


@dataclass(frozen=True)
class ServerFeatures:
    """What is sent to an endpoint; the default is what OpenAI's own takes.

    Attributes:
        form: what binds the answer: the schema, any JSON object, or nothing but the words of the prompt.
        bounds: whether the schema may bound lengths.
        sampling: options sent of `SAMPLING`.
        limit: what the most tokens of an answer are called, None where they cannot be limited.
        most_output_tokens: more than these are refused.
        system_role: whether there are system messages.
        thinking_tokens: what an answer is given beyond its own length, since the model thinks first.
    """

    form: AnswerForm = "json_schema"
    bounds: bool = True
    sampling: frozenset[str] = frozenset(SAMPLING)
    limit: LimitName | None = "max_completion_tokens"
    most_output_tokens: int | None = None
    system_role: bool = True
    thinking_tokens: int = 0

    def output_tokens(self, wanted: int) -> int:
        """Return the limit that is sent for an answer of so many tokens."""
        most = wanted + self.thinking_tokens
        return most if self.most_output_tokens is None else min(most, self.most_output_tokens)

    def said(self) -> list[str]:
        """Return what differs from the default, in words for `status`."""
        return [words for words, holds in _said(self) if holds]


PLAINEST = ServerFeatures("text", bounds=False, sampling=frozenset(), limit="max_tokens", system_role=False)


def _said(found: ServerFeatures) -> Iterable[tuple[str, bool]]:
    yield f"answers as {found.form}, the schema in the prompt", found.form != "json_schema"
    yield "a schema without bounds", found.form == "json_schema" and not found.bounds
    missing = ", ".join(name for name in SAMPLING if name not in found.sampling)
    yield f"without {missing}", bool(missing)
    yield f"the limit is called {found.limit}", found.limit == "max_tokens"
    yield "no limit on an answer", found.limit is None
    yield f"at most {found.most_output_tokens} tokens an answer", found.most_output_tokens is not None
    yield "everything in one user message", not found.system_role
    yield (
        f"thinks first: {found.thinking_tokens} tokens more an answer, besides llm.max_output_tokens",
        found.thinking_tokens > 0,
    )


@dataclass(frozen=True)
class Offer:
    """What a request is to be sent with; a guess counts once it has been answered."""

    features: ServerFeatures
    guess: bool = False


@dataclass(frozen=True)
class SentWith:
    """What a request was sent with."""

    offer: Offer
    output_tokens: int

    @property
    def features(self) -> ServerFeatures:
        """What it was sent with."""
        return self.offer.features


class Negotiation:
    """What one endpoint has shown that it takes, for all requests of a process.

    Args:
        known: what was learned of it earlier.
        keep: called with what is known once that has changed.
    """

    def __init__(
        self, known: ServerFeatures | None = None, keep: Callable[[ServerFeatures], None] = lambda _: None
    ) -> None:
        self._features, self._keep = known or ServerFeatures(), keep
        self._proven, self._objects, self._useless = known is not None, False, 0

    @property
    def features(self) -> ServerFeatures:
        """What the endpoint is known to take."""
        return self._features

    def refused(self, tried: SentWith, fault: ServerFault) -> Offer | None:
        """Learn from a refusal; return what to try next, None where it teaches nothing.

        Every lesson takes something away for good, so there are few.
        """
        if fault.is_refusal or fault.is_too_long or not fault.compatible:
            return None
        found = lesson(tried, fault)
        if tried.offer.guess:
            return Offer(replace(tried.features, **found), guess=True) if found else None
        if found:
            self._become(_merged(self._features, tried.features, found))
        if self._features != tried.features:  # by this refusal or by another's
            return Offer(self._features)
        # A refusal in no words that we know, before anything was ever answered: one try with the least.
        guess = not self._proven and fault.status in _WITHOUT_A_NAME and tried.features != PLAINEST
        return Offer(PLAINEST, guess=True) if guess else None

    def answered(self, tried: SentWith, *, has_object: bool) -> None:
        """Take in that a request was answered, and whether the answer holds an object of JSON.

        A server may take the form of an answer and pass over it.
        """
        if tried.offer.guess and not self._proven:
            self._become(tried.features)
        self._proven = True
        self._objects = self._objects or has_object
        self._useless = 0 if has_object else self._useless + 1
        most = _USELESS_ANSWERS if self._objects else 1
        if self._useless >= most and self._features.form != "text":
            self._useless = 0
            self._become(replace(self._features, form="text"))

    def thinks(self, tried: SentWith) -> Offer | None:
        """Take in that an answer was used up by thinking; None where it was given room for that already."""
        if tried.features.thinking_tokens:
            return None
        self._become(replace(self._features, thinking_tokens=THINKING_TOKENS))
        return Offer(replace(tried.features, thinking_tokens=THINKING_TOKENS), tried.offer.guess)

    def _become(self, features: ServerFeatures) -> None:
        if features != self._features:
            self._features = features
            self._keep(features)


def lesson(tried: SentWith, fault: ServerFault) -> dict[str, Any]:
    """Return what a refusal says must change of what was sent, by attribute, nothing where it is silent."""
    if fault.status not in _BY_NAME or (
        fault.status in _OF_MANY_CAUSES and not _COMPLAINT.search(fault.message)
    ):
        return {}
    lessons = _lessons(tried, fault.message)
    for named in fault.named:
        found = _first(lessons, named)
        if found is not None:
            return found.change
    found = _first(lessons, fault.message)
    return {} if found is None else found.change


@dataclass(frozen=True)
class _Lesson:
    """A part of what was sent, the words it is known by, and what to do without it."""

    words: re.Pattern[str]
    change: dict[str, Any] = field(default_factory=dict)


def _lessons(tried: SentWith, message: str) -> list[_Lesson]:
    sent = tried.features
    found = [_lesson(rf"\b{name}\b", sampling=sent.sampling - {name}) for name in sorted(sent.sampling)]
    if sent.limit is not None:
        found.append(_about_limit(tried, message, sent.limit))
    if sent.form != "text":
        found.append(_lesson(_FORM_WORDS, **_about_form(sent, message)))
    if sent.system_role:
        found.append(_lesson(_ROLE_WORDS, system_role=False))
    return found


def _lesson(words: str, **change: Any) -> _Lesson:
    return _Lesson(re.compile(words, re.I), change)


def _first(lessons: Iterable[_Lesson], text: str) -> _Lesson | None:
    """Return what a text names first: what it would rather have comes after."""
    met = [(match.start(), each) for each in lessons if (match := each.words.search(text)) is not None]
    return min(met, key=lambda each: each[0])[1] if met else None


def _about_limit(tried: SentWith, message: str, sent: LimitName) -> _Lesson:
    """Its size, where a smaller number is named as the most; else its name, and at last the limit itself."""
    below = [int(each) for each in re.findall(r"\b\d{2,9}\b", message) if int(each) < tried.output_tokens]
    if below and max(below) >= _LEAST_TOKENS and _TOO_HIGH.search(message):
        return _lesson("|".join(_LIMITS), most_output_tokens=max(below))
    following = _LIMITS[_LIMITS.index(sent) + 1 :]
    return _lesson(rf"\b{sent}\b", limit=following[0] if following else None)


def _about_form(sent: ServerFeatures, message: str) -> dict[str, Any]:
    if sent.form == "json_schema" and sent.bounds and _BOUNDS.search(message):
        return {"bounds": False}
    return {"form": FORMS[FORMS.index(sent.form) + 1]}


def _merged(now: ServerFeatures, sent: ServerFeatures, change: Mapping[str, Any]) -> ServerFeatures:
    """Apply a lesson, unless the same was learned while the request was under way."""
    if "sampling" in change:
        return replace(now, sampling=now.sampling & change["sampling"])
    news = {name: value for name, value in change.items() if getattr(now, name) == getattr(sent, name)}
    return replace(now, **news)
