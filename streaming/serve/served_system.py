"""How one agent of a server is, for whoever asks: its lake is read once a second at most."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Literal

from pydantic import BaseModel, Field

from schemas.errors import FlagstreamError
from schemas.instants import Clock, utc_now
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.output.redaction import redacted
from streaming.run.input_now import read_input
from streaming.run.running_agent import RunningAgent
from streaming.serve.broker_watch import BrokerWatch
from streaming.serve.lake_folder import LakeFolder
from streaming.serve.paced_work import PacedWork
from streaming.serve.system_figures import LakeFigures, lake_figures
from streaming.service.health import WAITING, ActiveCondition, Health, running_since

Whose = Literal["run", "serve"]


class HeldCondition(BaseModel):
    """A condition that holds; docs/operations.md says what each means."""

    condition: str
    cause: str
    since: datetime
    of: Whose = Field(description="whose it is: of the agent's run, or of this server")
    waits: bool = Field(description="whether the agent waits for it to end; under others it goes on")


class BucketFigures(BaseModel):
    """Buckets of profiles that executors hold, as of the newest batch."""

    buckets: int = Field(description="how many, over all kinds of entities")
    rows: int = Field(description="of the batch, once for each kind of entities that they name")
    largest: int = Field(description="rows of the bucket that had most of them")
    rebuilt: int = Field(description="built anew since the run began, the first time included")
    entities: int
    nbytes: int = Field(description="memory of all")
    most_bytes: int = Field(description="memory of the largest")


class SystemFigures(BaseModel):
    """How an agent is: what can be told while its lake is away stands beside what is read of the lake."""

    at: datetime
    running: bool = Field(description="a process of this machine runs it")
    running_since: datetime | None
    executors: int | None = Field(
        description="of a Spark cluster, how many work for that process; None where it works without"
    )
    buckets: BucketFigures | None = Field(description="None where no executor holds any")
    conditions: list[HeldCondition] = Field(description="what it waits for first, the longest first")
    fault: str | None = Field(description="why the lake cannot be read; None where it can")
    lake: LakeFigures | None = Field(description="None where the lake cannot be read")


class ServedSystem:
    """Safe to use from several threads.

    Args:
        agent: read beside whoever runs it.
        health: of the server, as far as it is about this agent.
        now: the current time.
    """

    def __init__(self, agent: PlacedAgent, health: Health, now: Clock = utc_now) -> None:
        self._agent, self._health, self._now = agent, health, now
        self._folder, self._reader = LakeFolder(agent), LakeReader.of(agent)
        reads = agent.spec.data_sources.transactions.subscription
        self._input = BrokerWatch(partial(read_input, agent.settings, reads))
        self._reading = PacedWork(self._read, "figures")
        self._lake: LakeFigures | None = None

    def figures(self) -> SystemFigures:
        """Return how the agent is, its lake as it was a second ago at most.

        Raises:
            RetryableError: another request reads the lake, and needs long.
        """
        fault = None
        try:
            self._reading.catch_up()
        except FlagstreamError as away:
            if self._reading.fault is not away:
                raise
            fault = redacted(str(away))
        file = self._agent.settings.health(self._agent.name)
        found = RunningAgent.of(file, self._agent.lake)
        return SystemFigures(
            at=self._now(),
            running=found.running,
            running_since=running_since(file),
            executors=found.executors,
            buckets=None if found.buckets is None else BucketFigures(**vars(found.buckets)),
            conditions=sorted(self._held(found), key=lambda each: (not each.waits, each.since)),
            fault=fault,
            lake=None if fault else self._lake,
        )

    def _held(self, found: RunningAgent) -> Iterator[HeldCondition]:
        for each in found.conditions:
            yield _condition(each, "run")
        for each in self._health.active:
            yield _condition(each, "serve")

    def _read(self) -> None:
        self._folder.check()
        try:
            self._reader.refresh()
        except FlagstreamError:
            self._reader = self._reader.anew()  # another lake may have come in its place
            raise
        self._lake = lake_figures(self._agent, self._reader, self._input.newest(), self._now())


def _condition(each: ActiveCondition, of: Whose) -> HeldCondition:
    waits = of == "run" and each.condition in WAITING
    return HeldCondition(condition=each.condition, cause=each.cause, since=each.since, of=of, waits=waits)
