"""Who answers for a candidate's alerts: answers on record first, new ones only under a cap, else the rules.

An answer stands for a candidate's alert when the candidate's own prompt and model gave it: to the very
question that the candidate makes, or else to the same alert. What another prompt or model said does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from agent.triage.grouping import FlaggedRow
from agent.triage.outcomes import all_by_rules
from agent.triage.rule_classifier import highest
from agent.triage.triage import Classification, Quote, Triage, TriageResult
from schemas.alert import ALERTS, FallbackReason
from schemas.rules import Severity
from streaming.arrays.compilation import Ints
from streaming.batch.flagging import Flagged

_WORTH_ANOTHER_ROUND: frozenset[FallbackReason | None] = frozenset({"over_budget", "timeout", "rate_limited"})

AlertKey = tuple[int, str]


@dataclass(frozen=True)
class Answering:
    """Where the classifications of a candidate's alerts come from, and what new ones took.

    Attributes:
        asks: `recorded` when nobody was to be asked, else whom: `auto` or `local`.
        model: that the candidate asks, None when it asks none.
        fallbacks: models that it asks while that one does not answer.
        prompt: of the candidate.
        same_question: alerts answered by what is on record for the very question they make.
        same_alert: alerts answered by what the same model said to the same prompt about the published alert,
            in other company.
        asked_now: alerts answered by new calls.
        passed_over: alerts that only another prompt or model has answered; those answers do not count.
        by_rules: alerts with the classification by rules: why → how many.
        calls: requests sent in this run; with their tokens and USD.
        priced: whether the candidate has a price for its model; without one all money is 0.
        most_usd: the cap on new calls, in USD.
        most_tokens: the cap on new calls, input and output together.
        left: what asking about the alerts that no answer covers would take at most.
    """

    asks: str = "recorded"
    model: str | None = None
    prompt: str = ""
    same_question: int = 0
    same_alert: int = 0
    asked_now: int = 0
    passed_over: int = 0
    by_rules: Mapping[str, int] = field(default_factory=dict)
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    priced: bool = False
    most_usd: float | None = None
    most_tokens: int | None = None
    left: Quote = field(default_factory=Quote)
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """Published alerts of a span: as they first went out, and as they stand now.

    Attributes:
        first: (sequence, kind) → row of schema `ALERTS`.
        newest: the same, of the newest revision.
    """

    first: Mapping[AlertKey, Mapping[str, Any]]
    newest: Mapping[AlertKey, Mapping[str, Any]]

    @classmethod
    def of(cls, first: pa.Table, later: pa.Table) -> Published:
        """Take them from alerts and their later revisions, in outbox order."""
        began = {(row["sequence"], row["kind"]): row for row in first.to_pylist()}
        revised = {(row["sequence"], row["kind"]): row for row in later.to_pylist()}
        return cls(began, {key: revised.get(key, row) for key, row in began.items()})

    @property
    def table(self) -> pa.Table:
        """The newest revisions, of schema `ALERTS`."""
        return pa.Table.from_pylist(list(self.newest.values()), schema=ALERTS)


@dataclass(frozen=True)
class AnswerSources:
    """What can answer.

    Attributes:
        record: knows the answers on record, and what asking would take; asks nobody.
        asker: asks the candidate's model until its budget is spent; None when nobody is to be asked.
        on_answers: called after each round of questions with what came of them.
    """

    record: Triage
    asker: Triage | None = None
    on_answers: Callable[[TriageResult], None] = lambda _: None


class CandidateAnswers:
    """Gives a candidate's alerts their classifications, batch by batch as the agent's batches were cut.

    Args:
        about: what is known beforehand: whom to ask, the model, the prompt and the caps.
        sources: None for a candidate that asks no model.
    """

    def __init__(self, about: Answering = Answering(), sources: AnswerSources | None = None) -> None:
        self._about, self._sources = about, sources
        self._counts: Counter[str] = Counter()
        self._by_rules: Counter[str] = Counter()
        self._usd, self._left = 0.0, Quote()

    @property
    def report(self) -> Answering:
        """What came of it so far."""
        counts = {**vars(self._about), **self._counts, "usd": round(self._usd, 6), "left": self._left}
        return Answering(**{**counts, "by_rules": dict(self._by_rules.most_common())})

    def answer(self, flagged: Flagged, published: Published, batch_ends: Ints) -> TriageResult:
        """Give every row a classification.

        Args:
            flagged: what becomes alerts.
            published: alerts of the same span.
            batch_ends: int64, ascending, where the agent's batches ended.

        Raises:
            FlagstreamError: what the ledger or the audit log raises for its own store.
        """
        sequences = flagged.table["sequence"].to_numpy()
        raised = [own if by is None else by for own, by in zip(sequences, flagged.passed_by, strict=True)]
        batches = np.searchsorted(batch_ends, np.array(raised, dtype=np.int64), side="right")
        given: dict[str, Classification] = {}
        for batch in np.unique(batches):
            chosen = np.flatnonzero(batches == batch).tolist()
            rows = [flagged.rows[place] for place in chosen]
            keys = [(int(sequences[place]), flagged.kinds[place]) for place in chosen]
            given |= self._answered(
                rows, dict(zip((row.alert_id for row in rows), keys, strict=True)), published
            )
        return TriageResult(tuple(given[row.alert_id] for row in flagged.rows))

    def _answered(
        self, rows: Sequence[FlaggedRow], keys: Mapping[str, AlertKey], published: Published
    ) -> dict[str, Classification]:
        given = _by_id(rows, all_by_rules(rows, "llm_off"))
        if self._sources is not None:
            given |= self._recalled(rows)
            given |= dict(self._of_same_alerts(_open(rows, given), keys, published))
            # What is left was asked about without the others, if it was asked about in an earlier what-if.
            given |= self._recalled(_open(rows, given))
            given |= dict(self._asked(_open(rows, given)))
            self._left += self._sources.record.quote(_open(rows, given))
        self._by_rules.update(str(each.fallback_reason) for each in given.values() if not _by_model(each))
        return given

    def _recalled(self, rows: Sequence[FlaggedRow]) -> dict[str, Classification]:
        assert self._sources is not None
        result = self._sources.record.recall(rows)
        self._counts["same_question"] += sum(map(_by_model, result.classifications))
        return _by_id(rows, result)

    def _of_same_alerts(
        self, rows: Sequence[FlaggedRow], keys: Mapping[str, AlertKey], published: Published
    ) -> Iterator[tuple[str, Classification]]:
        for row in rows:
            newest = published.newest.get(keys[row.alert_id])
            if newest is None or newest["classification_source"] != "llm":
                continue
            if self._is_the_candidates(newest):
                self._counts["same_alert"] += 1
                yield row.alert_id, _said(row, newest, published.first[keys[row.alert_id]])
            else:
                self._counts["passed_over"] += 1

    def _is_the_candidates(self, alert: Mapping[str, Any]) -> bool:
        prompt = f"{alert['prompt_id']}/{alert['prompt_version']}"
        models = (self._about.model, *self._about.fallbacks)
        return prompt == self._about.prompt and alert["model"] in models

    def _asked(self, rows: Sequence[FlaggedRow]) -> Iterator[tuple[str, Classification]]:
        """Ask in rounds, for as long as one brings an answer."""
        assert self._sources is not None
        waiting = list(rows)
        while waiting and self._sources.asker is not None:
            result = self._sources.asker.classify(waiting)
            self._count(result)
            given = _by_id(waiting, result)
            yield from given.items()
            answered = any(map(_by_model, given.values()))
            again = [row for row in waiting if given[row.alert_id].fallback_reason in _WORTH_ANOTHER_ROUND]
            waiting = again if answered else []

    def _count(self, result: TriageResult) -> None:
        assert self._sources is not None
        self._usd += result.cost
        self._counts.update(
            asked_now=sum(map(_by_model, result.classifications)),
            calls=result.calls,
            input_tokens=result.input_tokens,
            output_tokens=result.output_tokens,
        )
        if result.made:
            self._sources.on_answers(result)


def _by_model(classification: Classification) -> bool:
    return classification.source == "llm"


def _by_id(rows: Sequence[FlaggedRow], result: TriageResult) -> dict[str, Classification]:
    return {
        row.alert_id: classification for row, classification in zip(rows, result.classifications, strict=True)
    }


def _open(rows: Sequence[FlaggedRow], given: Mapping[str, Classification]) -> list[FlaggedRow]:
    return [row for row in rows if not _by_model(given[row.alert_id])]


def _said(row: FlaggedRow, newest: Mapping[str, Any], first: Mapping[str, Any]) -> Classification:
    return Classification(
        category=newest["classification"],
        severity=_severity(row, newest, first),
        rationale=newest["rationale"],
        source="llm",
        fallback_reason=None,
        model=newest["model"],
        prompt_id=newest["prompt_id"],
        prompt_version=newest["prompt_version"],
        evidence=tuple(newest["evidence"] or ()),
    )


def _severity(row: FlaggedRow, newest: Mapping[str, Any], first: Mapping[str, Any]) -> Severity:
    """Return the candidate's own severity, raised to the model's where that is known to have counted."""
    alike = list(row.rules) == list(first["rules"]) and row.score == first["score"]
    before: str | None = row.by_rules.severity if alike else None
    if first["classification_source"] == "rules":
        before = first["severity"]
    raised = before is not None and newest["severity"] != before
    return highest((newest["severity"], row.by_rules.severity)) if raised else row.by_rules.severity
