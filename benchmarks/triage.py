"""What triage of a burst costs: calls, tokens and rows answered, by the scripted server or the local model.

A day's burst of flagged rows, made from a seed, arrives in batches and is triaged as the pipeline does it,
with a ledger in Delta. Then the same day is triaged once more, from that ledger. The scripted server answers
every question as asked and counts its tokens; the local model's own count shows whether a request ever
outgrew its context.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.model.budget import SpendingBudget
from agent.model.llm_client import LlmClient
from agent.model.local_llm import LocalLlm
from agent.model.model_client import LOCAL_MODEL, Completion, Failure, Question, Replies, Surcharge
from agent.model.prompt_files import load_prompt
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import POLICIES, FlaggedRow, Triage, TriageResult
from benchmarks.harness import report, say
from schemas.alert import Reason, alert_id
from schemas.contract import load_contract
from schemas.instants import utc_now
from schemas.llm import Llm
from schemas.policy import load_policy
from schemas.rules import Rule
from schemas.tables import LEDGER
from streaming.delta.lake_table import LakeTable
from streaming.delta.ledger import LakeLedger
from streaming.store.place import Place
from streaming.testing.scripted_llm import counted, scripted_llm

_SEED = 20240501
_START = datetime(2024, 5, 1, tzinfo=UTC)
_RULES = [Rule(name="large_amount", when="amount > 10000", severity="high", reason="large")]
_KINDS = (("amount.customer",), ("rate.terminal", "amount.terminal"), ("novelty.customer", "rate.customer"),
          ("recurrence.customer", "amount.customer"), ("rate.customer", "novelty.terminal"),
          ("risk.terminal",), ("counterparties.customer",))  # fmt: skip


@dataclass
class _Watched:
    """Passes questions on, and keeps the largest prompt and the largest sum of prompt and answer."""

    inner: LlmClient
    largest: int = 0
    underestimated: int = 0

    @property
    def model(self) -> str:
        return self.inner.model

    @property
    def capacity(self) -> int:
        return self.inner.capacity

    @property
    def surcharge(self) -> Surcharge:
        return self.inner.surcharge

    @property
    def fallbacks(self) -> Sequence[LlmClient]:
        return self.inner.fallbacks

    def begin(self, question: Question, seconds: float) -> Future[Completion | Failure]:
        return self.inner.begin(question, seconds)

    def abandon(self) -> None:
        self.inner.abandon()

    def ask(
        self, questions: Sequence[Question], seconds: float, late: Replies | None = None
    ) -> list[Completion | Failure]:
        replies = self.inner.ask(questions, seconds, late)
        for question, reply in zip(questions, replies, strict=True):
            needed = reply.input_tokens + question.max_output_tokens
            self.largest = max(self.largest, needed)
            self.underestimated += needed > question.most_tokens
        return replies


def measure(rows: int, batches: int, *, local: bool, as_json: bool) -> None:
    """Print calls per 1,000 rows, the share answered, tokens per alert, and what a second run costs."""
    made = burst(rows)
    size = -(-len(made) // batches)
    parts = [made[first : first + size] for first in range(0, len(made), size)]
    with (
        tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder,
        _server(local, Path(folder)) as url,
    ):
        llm = _spec(url, local=local)
        with LlmClient(llm, model=LOCAL_MODEL if local else "gpt-4o-mini") as client:
            first = _run(llm, client, parts, Path(folder))
            again = _run(llm, client, parts, Path(folder))
    figures: dict[str, object] = {
        "rows": len(made),
        "batches": len(parts),
        "seed": _SEED,
        "model": "local" if local else "scripted",
        **first,
        "second_run_calls": again["calls"],
        "second_run_answered_share": again["answered_share"],
    }
    report(figures, as_json=as_json)


def burst(rows: int) -> list[FlaggedRow]:
    """Return flagged rows of seven kinds over amounts from 1 to 30,000 in two currencies, a minute apart."""
    chosen, labeller = random.Random(_SEED), RuleClassifier(_RULES)
    return [_row(number, chosen, labeller) for number in range(rows)]


def _row(number: int, chosen: random.Random, labeller: RuleClassifier) -> FlaggedRow:
    amount = round(10 ** chosen.uniform(0.0, 4.5), 2)
    currency = chosen.choices(("EUR", "USD"), (4, 1))[0]
    score = 1.0 - 10 ** chosen.uniform(-6.0, -2.0)
    names = chosen.choices(_KINDS, (30, 20, 15, 10, 10, 10, 5))[0]
    reasons = tuple(
        Reason(name, round(chosen.uniform(3.0, 6.0) / (place + 1), 3), f"{amount:.2f} {currency} is unusual")
        for place, name in enumerate(names)
    )
    rules = ("large_amount",) if amount > 10_000 else ()  # noqa: PLR2004 - as the rule above says
    return FlaggedRow(
        alert_id=alert_id("bench", str(number)),
        transaction_id=str(number),
        amount=amount,
        currency=currency,
        entities={"customer": str(chosen.randrange(500)), "terminal": str(chosen.randrange(50))},
        event_time=_START + timedelta(minutes=number),
        score=score,
        reasons=reasons,
        rules=rules,
        by_rules=labeller.classify(score, reasons, rules),
    )


def _spec(url: str, *, local: bool) -> Llm:
    if local:
        # Two cores write some 40 tokens a second: without a generous deadline nothing but time is measured.
        return Llm(base_url=url, max_concurrency=1, deadline=timedelta(minutes=10), groups_per_request=4)
    return Llm(base_url=url, max_concurrency=8, groups_per_request=8)


def _run(llm: Llm, client: LlmClient, parts: Sequence[list[FlaggedRow]], folder: Path) -> dict[str, object]:
    table = LakeTable(Place.local(folder / "ledger"), LEDGER, "bench/epoch", timedelta(days=1))
    table.claim(table.epoch + 1)
    watched = _Watched(client)
    triage = Triage(
        llm,
        load_prompt(llm.prompt, load_contract("simulator").prompt_notes()),
        watched,
        ledger=LakeLedger(table, "bench", utc_now),
        budget=SpendingBudget(llm.budget),
        policy=load_policy("default", POLICIES),
        pseudonyms=Pseudonyms(b"benchmark-key-of-32-bytes-length"),
    )
    begun = time.perf_counter()
    results = [_shown(number, triage.classify(part)) for number, part in enumerate(parts)]
    return _figures(llm, results, watched, time.perf_counter() - begun)


def _shown(number: int, result: TriageResult) -> TriageResult:
    say(f"batch {number}: {len(result.classifications)} rows, {result.groups} groups, {result.calls} calls")
    return result


def _figures(llm: Llm, results: list[TriageResult], watched: _Watched, seconds: float) -> dict[str, object]:
    classifications = [each for result in results for each in result.classifications]
    answered = sum(each.source == "llm" for each in classifications)
    calls = sum(result.calls for result in results)
    tokens = sum(result.input_tokens + result.output_tokens for result in results)
    return {
        "patterns_per_batch": round(sum(result.groups for result in results) / len(results), 1),
        "calls": calls,
        "calls_per_1000_rows": round(1000 * calls / len(classifications), 1),
        "answered_share": round(answered / len(classifications), 4),
        "degraded_share": round(1 - answered / len(classifications), 4),
        "tokens_per_alert": round(tokens / len(classifications), 1),
        "largest_request_tokens": watched.largest,
        "context_tokens": llm.context_tokens,
        "requests_larger_than_estimated": watched.underestimated,
        "seconds": round(seconds, 2),
    }


@contextmanager
def _server(local: bool, folder: Path) -> Iterator[str]:
    if not local:
        with scripted_llm(default=counted()) as server:
            yield server.base_url
        return
    local_server = LocalLlm(folder / "llm")
    try:
        yield local_server.start()
    finally:
        local_server.stop()
