"""One agent as the server serves it: where its lake is, what is kept in memory of it, what goes on record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from schemas.spec import AgentSpec
from streaming.cases.book import CaseBook
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.history.payments import IndexedPayments
from streaming.home.placed_agent import PlacedAgent
from streaming.inbox.inbox import Inbox
from streaming.serve.alert_details import AlertDetails
from streaming.serve.alert_lists import AlertLists
from streaming.serve.audit_trail import AuditTrail, opening
from streaming.serve.changes import LiveChanges
from streaming.serve.conditions import log_condition
from streaming.serve.copies import Copies
from streaming.serve.entity_pages import EntityPages
from streaming.serve.follower import Follower
from streaming.serve.kept_alerts import KeptAlerts
from streaming.serve.known_frauds import KnownFrauds
from streaming.serve.known_tokens import AgentTokens
from streaming.serve.labels_found import FoundLabels
from streaming.serve.lake_folder import LakeFolder
from streaming.serve.paced_work import rest_after
from streaming.serve.served_cases import ServedCases
from streaming.serve.served_system import ServedSystem
from streaming.serve.waiting_records import WaitingRecords
from streaming.serve.what_if_jobs import WhatIfJobs
from streaming.service.health import Condition, Health
from streaming.service.worker import LONGEST_PAUSE_SECONDS, Worker
from streaming.versions.registry_watch import RegistryWatch

_FLUSH_SECONDS, _READER_SECONDS = 1.0, 1.0
_TOKENS_SECONDS, _TOKENS_PAUSE_SECONDS = 1.0, 2.0
_PACE_SECONDS, _PACE_IN_A_STORE_SECONDS = 0.5, 2.0
_SLOWEST = 4  # times the pace: how long what costs much lets others wait for what is new
_COPIES_PACE = 4  # times the pace: what is not copied yet is read from the tables
_NOTHING_ENDS_IT: tuple[type[BaseException], ...] = ()


class ServedAgent:
    """An agent, read beside whoever runs it; nothing of it is taken over.

    Args:
        placed: its spec as the server was started with, and where its lake lies.
        llm: whom the planning agent asks, see streaming.versions.clients.
        scores: whether events are scored, for which the profiles are kept in memory once more.
    """

    def __init__(self, placed: PlacedAgent, llm: str = "none", *, scores: bool = False) -> None:
        self._placed, self.spec, self.name, self.llm = placed, placed.spec, placed.name, llm
        spec = placed.spec
        self._folder, self.tokens = LakeFolder(placed), AgentTokens(placed)
        self.trail = AuditTrail(opening(placed))
        self.health = Health(changed=partial(log_condition, agent=spec.name))
        self.system = ServedSystem(placed, self.health)
        self.definition = AgentDefinition.of(spec)
        self._lock, self._read_at = threading.Lock(), -_READER_SECONDS
        self._reader, self._registry = LakeReader.of(placed), RegistryWatch(placed)
        contract = self.definition.contract
        payments, alerts = IndexedPayments(self.reader, contract.entity_names), KeptAlerts(self.reader)
        self.copies = Copies(spec.name, (alerts, payments))
        self.inbox, self.changes = Inbox(self._reader, spec, contract.entity_names), LiveChanges()
        self._announced, self.lists = self.inbox.view, AlertLists(self.inbox)
        self.labels = FoundLabels(self.reader, spec)
        self.details = AlertDetails(self.inbox, payments, self.labels, alerts, contract.primary_entity)
        self.what_ifs, self.quarantined = WhatIfJobs(), WaitingRecords(placed)
        self._cases = ServedCases(CaseBook(placed))
        self.entities = EntityPages(contract.entity_names, self.inbox, payments, self.labels)
        self.frauds = KnownFrauds(self._reader, self.labels, contract.primary_entity)
        self.follower = Follower(placed) if scores else None
        self._pace = _PACE_SECONDS if placed.lake.is_local else _PACE_IN_A_STORE_SECONDS
        self._workers, self._has_followed = list(self._followers()), self.follower is None

    @property
    def placed(self) -> PlacedAgent:
        """Where the agent's lake lies.

        Raises:
            DiskError: its folder is gone.
        """
        self._folder.check()
        return self._placed

    @property
    def cases(self) -> ServedCases:
        """Its cases.

        Raises:
            DiskError: the lake's folder is gone.
        """
        self._folder.check()
        return self._cases

    @property
    def is_ready(self) -> bool:
        """Whether what is kept in memory was read once."""
        return self.tokens.is_read and self.inbox.is_read and self._has_followed

    def reader(self) -> LakeReader:
        """Return a reader of the lake as it was a second ago at most, with all that was written here.

        Raises:
            DiskError: the lake's folder is gone.
        """
        self._folder.check()
        now = time.monotonic()
        with self._lock:
            if now - self._read_at > _READER_SECONDS:
                self._reader, self._read_at = self._reader.renewed(), now
            return self._reader

    def in_force(self) -> AgentSpec:
        """Return the version in force; the registry is read where it has changed.

        Raises:
            FlagstreamError: the lake's folder is gone, or the registry cannot be read.
        """
        self._folder.check()
        return self._registry.refresh().active or self.spec

    def wrote(self) -> None:
        """Have the next reader see what was just written, by a client or by the agent."""
        with self._lock:
            self._read_at = -_READER_SECONDS

    def start(self) -> None:
        """Begin to keep up with the lake."""
        for each in self._workers:
            each.start()

    def close(self) -> None:
        """End what was begun; what was read and written until now goes on record."""
        for each in self._workers:
            each.ask_to_end()
        for each in self._workers:
            each.close()
        try:
            self.what_ifs.close()
        finally:
            self._folder.check()
            self.trail.flush(whole=True)

    def end_streams(self) -> None:
        """Have live feeds come to their end."""
        self.changes.close()

    def _follow(self) -> float:
        begun = time.monotonic()
        try:
            self.inbox.refresh()
        finally:
            self._notify_followers()
        return self._rest(begun, self._pace)

    def _notify_followers(self) -> None:
        """Alerts are news also where their labels could not be read."""
        if self.inbox.view is not self._announced:
            self._announced = self.inbox.view
            self.wrote()  # who follows asks about an alert as soon as they hear of it
            self.changes.notify()

    def _copy(self) -> float:
        begun = time.monotonic()
        return 0.0 if self.copies.go_on() else self._rest(begun, _COPIES_PACE * self._pace)

    def _go_on(self, follower: Follower) -> float:
        begun = time.monotonic()
        follower.refresh()
        self._has_followed = True
        return self._rest(begun, self._pace)

    def _rest(self, begun: float, least: float) -> float:
        """What has not changed takes no time, and is checked again soon."""
        return rest_after(time.monotonic() - begun, least, _SLOWEST * least)

    def _flush(self) -> float:
        self._folder.check()  # else the log would begin a lake anew where it was
        self.trail.flush()
        return _FLUSH_SECONDS

    def _read_tokens(self) -> float:
        """A token that is revoked is refused soon, whatever has kept the table from being read before."""
        self._folder.check()
        self.tokens.refresh()
        return _TOKENS_SECONDS

    def _followers(self) -> Iterator[Worker]:
        yield self._worker("inbox", self._follow, Condition.INBOX_STALE)
        yield self._worker("copies", self._copy, Condition.COPIES_STALE)
        yield self._worker("audit", self._flush, Condition.AUDIT_FAILING)
        yield self._worker("tokens", self._read_tokens, Condition.TOKENS_UNREADABLE, _TOKENS_PAUSE_SECONDS)
        if self.follower is not None:
            yield self._worker("score", partial(self._go_on, self.follower), Condition.FOLLOWER_STALE)

    def _worker(
        self, name: str, work: Callable[[], float], condition: Condition, pause: float = LONGEST_PAUSE_SECONDS
    ) -> Worker:
        """No fault of a lake ends the server: it goes on with what it knows, and says so."""
        return Worker(
            f"{name} {self.name}", work, condition, self.health, fatal=_NOTHING_ENDS_IT, longest_pause=pause
        )
