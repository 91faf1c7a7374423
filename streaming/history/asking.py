"""Whether a what-if may ask the candidate's model, up to which cap, and where its answers are kept.

Answers are kept beside the sandboxes of an agent, so that a second what-if pays for none of them again; what
the agent itself has on record is read and never written. Each call is recorded in the agent's audit log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from agent.audit.events import AuditEvent
from agent.model.budget import SpendingBudget
from agent.model.model_client import LOCAL_MODEL, ModelClient, Unasked
from agent.triage.ledger import Ledger, MemoryLedger, RecordedAnswer
from agent.triage.triage import Triage, TriageResult
from schemas.errors import ConfigurationError, nearest
from schemas.instants import utc_now
from schemas.llm import Budget
from schemas.spec import AgentSpec
from schemas.tables import LEDGER
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.batch.decider import triage_under
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.ledger import SharedLedger, answers_on_record
from streaming.delta.shared_table import SharedTable
from streaming.history.candidate_answers import Answering, AnswerSources, CandidateAnswers
from streaming.history.decided import DecidedHistory
from streaming.history.spans import PinnedSpan, Span
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.place import Place
from streaming.versions.clients import model_asked, model_client

ASKING = ("recorded", "auto", "local")
_OWN_LEDGER = "ledger"
_WRITER = "replay"


@dataclass(frozen=True)
class Asking:
    """Who may be asked for a what-if, and what that may take.

    Attributes:
        choice: `recorded` asks nobody, `auto` the candidate's endpoint or else the local model, `local` only
            that one.
        max_usd: cap on all new calls together, by the candidate's prices.
        max_tokens: cap on all new calls together, input and output.
    """

    choice: str = "recorded"
    max_usd: float | None = None
    max_tokens: int | None = None

    @property
    def asks(self) -> bool:
        """Whether new calls are wanted."""
        return self.choice != "recorded"

    def model(self, candidate: PlacedAgent, pinned: PinnedSpan) -> str | None:
        """Return the model that answers for a candidate, None when it asks none.

        On record, that is the one the agent was started with, where the candidate leaves that as it was.

        Args:
            pinned: what decided the end of the span.
        """
        if candidate.spec.llm.provider == "none":
            return None
        if self.choice == "local":
            return LOCAL_MODEL
        started = pinned.pins.get("model")
        if not self.asks and started is not None and _whom(pinned.spec) == _whom(candidate.spec):
            return str(started)
        return model_asked(candidate)

    def fallbacks(self, candidate: AgentSpec) -> tuple[str, ...]:
        """Return the models that answer for a candidate while its own does not."""
        return () if self.choice == "local" else tuple(each.model for each in candidate.llm.fallbacks)

    def check(self, candidate: AgentSpec, model: str | None) -> None:
        """Check that what is wanted has a cap that holds.

        Raises:
            ConfigurationError: it has not, or the caps are for nothing.
        """
        if self.choice not in ASKING:
            raise ConfigurationError(nearest(self.choice, ASKING), where="--llm")
        caps = (self.max_usd, self.max_tokens)
        if not self.asks:
            if caps != (None, None):
                raise ConfigurationError(
                    "nobody is asked: caps go with --llm auto or local", where="--max-usd/--max-tokens"
                )
            return
        if model is None:
            raise ConfigurationError("the candidate asks no model: its llm.provider is none", where="--llm")
        if caps == (None, None):
            raise ConfigurationError("new calls need a cap: add --max-usd or --max-tokens", where="--llm")
        unpriced = [each for each in (model, *self.fallbacks(candidate)) if each not in candidate.llm.prices]
        if self.max_tokens is None and unpriced:
            raise ConfigurationError(
                f"the candidate's llm.prices have none for {unpriced[0]!r}, so no sum of money caps it: "
                "add its price, or --max-tokens",
                where="--max-usd",
            )


RECORDED = Asking()


@contextmanager
def candidate_answers(
    agent: PlacedAgent,
    definition: AgentDefinition,
    history: DecidedHistory,
    span: Span,
    asking: Asking,
    run: str,
) -> Iterator[CandidateAnswers]:
    """Yield what answers for a candidate's alerts; a model's client is open meanwhile.

    Args:
        agent: whose ledger is read.
        definition: the candidate's.
        run: name of the what-if, for the audit log.

    Raises:
        ConfigurationError: the model cannot be had, or there is no cap; nothing is written then.
    """
    candidate = definition.spec
    placed = agent.with_spec(candidate)
    model = asking.model(placed, history.pinned(span)[-1])
    asking.check(candidate, model)
    if model is None:
        yield CandidateAnswers()
        return
    prompt, about = candidate.llm.prompt, _about(asking, candidate, model)
    own = Place.local(agent.settings.sandbox(agent.name) / _OWN_LEDGER)
    fallbacks = asking.fallbacks(candidate)
    known = {
        key: answer
        for ledger in (own, history.reader.place("ledger"))
        for each in (model, *fallbacks)
        for key, answer in answers_on_record(ledger, prompt, each).items()
    }
    record = _triage(
        agent.settings, definition, Unasked(model, fallbacks), _OnRecord(known, MemoryLedger()), Budget()
    )
    if not asking.asks:
        yield CandidateAnswers(about, AnswerSources(record))
        return
    with model_client(placed, asking.choice) as client:
        assert client is not None, "the check has seen to it"
        table = SharedTable(own, LEDGER, agent.spec.replay_horizon)
        kept = _OnRecord(known, SharedLedger(table, _WRITER, utc_now))
        asker = _triage(agent.settings, definition, client, kept, _capped(asking))
        yield CandidateAnswers(about, AnswerSources(record, asker, _recorder(agent, about, run)))


def _about(asking: Asking, candidate: AgentSpec, model: str) -> Answering:
    prompt = candidate.llm.prompt
    return Answering(
        asks=asking.choice,
        model=model,
        fallbacks=asking.fallbacks(candidate),
        prompt=f"{prompt.id}/{prompt.version}",
        priced=model in candidate.llm.prices,
        most_usd=asking.max_usd,
        most_tokens=asking.max_tokens,
    )


class _OnRecord:
    """A ledger on top of answers that are on record elsewhere; see agent.triage.ledger.Ledger."""

    def __init__(self, known: Mapping[str, RecordedAnswer], own: Ledger) -> None:
        self._known, self._own = known, own
        self.intend, self.record = own.intend, own.record

    def recorded(self, keys: Collection[str]) -> Mapping[str, RecordedAnswer]:
        elsewhere = {key: self._known[key] for key in keys if key in self._known}
        return {**self._own.recorded(keys), **elsewhere}


def _triage(
    settings: Settings, definition: AgentDefinition, client: ModelClient, ledger: Ledger, limits: Budget
) -> Triage:
    """Build triage under a cap of its own: no minute or day of the agent's budget counts in a replay."""
    started = datetime.now(UTC)
    budget = SpendingBudget(limits, lambda: started)
    if isinstance(client, Unasked):
        rounds = definition.spec.llm.budget.model_copy(update={"calls_per_batch": sys.maxsize})
        llm = definition.spec.llm.model_copy(update={"budget": rounds})
        definition = replace(definition, spec=definition.spec.model_copy(update={"llm": llm}))
    triage = triage_under(settings, definition, client, ledger, budget)
    assert isinstance(triage, Triage), "the candidate's prompt was checked"
    return triage


def _capped(asking: Asking) -> Budget:
    most = sys.maxsize if asking.max_tokens is None else asking.max_tokens
    return Budget(tokens_per_day=most, usd_per_day=asking.max_usd)


def _recorder(agent: PlacedAgent, about: Answering, run: str) -> Callable[[TriageResult], None]:
    log, source = LakeAudit(AuditPlaces(agent), agent.spec.replay_horizon), f"replay/{run}"

    def record(result: TriageResult) -> None:
        first = log.position(source) + 1
        log.record(
            [
                AuditEvent(
                    "model_call", str(about.model), {"prompt": about.prompt, **asdict(call)}, source, first
                )
                for call in result.made
            ]
        )

    return record


def _whom(spec: AgentSpec) -> tuple[object, ...]:
    return spec.llm.provider, spec.llm.model, spec.llm.base_url, spec.llm.fallbacks
