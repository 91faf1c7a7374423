"""An agent tried on the events that a test gives it: its spec, contract, rules and prompt, all of them real.

Events go through the pipeline of `flagstream run` into Delta tables in a folder, without a broker or a JVM.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from schemas.alert_documents import alert_documents
from schemas.loading import parse_document
from schemas.spec import AgentSpec, load_spec
from streaming.delta.lake_reader import LakeReader
from streaming.delta.whole_tables import read_stored
from streaming.events.record_table import record_table
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.replayed import ExactReplay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.publish import Publisher
from streaming.run.opening import Agent, open_agent
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import QuietLane
from streaming.testing.scripted_llm import ScriptedLlm
from streaming.versions.clients import Clients

NOBODY_LISTENS = "127.0.0.1:1"
_QUERY = "trial"


class Trial:
    """A running agent and what it has stored.

    Args:
        placed: its spec, as it is tried, and the settings that name its home.
        agent: opened.
    """

    def __init__(self, placed: PlacedAgent, agent: Agent) -> None:
        self.placed, self._agent = placed, agent
        self.settings, self.spec = placed
        before = self.stored("batches", "next_sequence")
        self._batches = before.num_rows
        self._offset = sum(before["read"].to_pylist()) if self._batches else 0

    def send(
        self,
        events: Sequence[Mapping[str, Any] | bytes | None],
        at: datetime | None = None,
        topic: str | None = None,
    ) -> None:
        """Decide events as one batch.

        Args:
            events: as the contract has them; mappings are sent as JSON, bytes as they are, None as a
                record without a value.
            at: when the broker received them, timezone-aware; now unless given.
            topic: they came from; the first that the spec names unless given.

        Raises:
            FlagstreamError: whatever would stop the agent.
        """
        topic = topic or self.placed.spec.data_sources.transactions.subscription.first
        values = [json.dumps(each).encode() if isinstance(each, Mapping) else each for each in events]
        keys = [None] * len(values)
        records = record_table(keys, values, topic=topic, first=self._offset, sent_at=at or datetime.now(UTC))
        self._offset += len(values)
        offsets = {topic: {"0": self._offset}}
        self._agent.pipeline.process(lambda: records, _QUERY, self._batches, lambda: offsets)
        self._batches += 1

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """What consumers of the alerts topic would have read, in order."""
        rows = self.stored("alerts", "outbox_seq")
        return [json.loads(document) for document in alert_documents(rows)] if rows.num_rows else []

    @property
    def rejected(self) -> list[dict[str, Any]]:
        """The records in quarantine in the order of the topic, with `reason` and `detail`."""
        rows: list[dict[str, Any]] = self.stored("quarantine", "offset").to_pylist()
        return rows

    def stored(self, table: str, order: str) -> pa.Table:
        """Return a table of the lake, sorted by a column; see Tables in docs/ARCHITECTURE.md."""
        rows = read_stored(LakeReader.of(self.placed).place(table))
        return pa.table({}) if rows is None else rows.sort_by(order)

    def replay(self) -> ExactReplay:
        """Decide everything anew from what is stored; `differences` is empty where nothing differs."""
        return run_replay(self.placed, ReplaySpan())


@contextmanager
def trial(home: Path, spec: Path | AgentSpec, llm: ScriptedLlm | None = None) -> Iterator[Trial]:
    """Open an agent in a folder and close it after the block; opened there again, it goes on.

    Args:
        home: of the agent, such as pytest's `tmp_path`.
        spec: the agent's, or its file.
        llm: asked about every alert before it leaves; without one nobody is asked.

    Raises:
        ConfigurationError: spec, contract, policy, prompt or rules cannot be used.
    """
    settings = Settings.load(home, {})
    wanted = asking(load_spec(spec) if isinstance(spec, Path) else spec, llm)
    hooks = Hooks(publisher=cast("Callable[..., Publisher]", QuietLane))
    with (
        Clients(settings, "none" if llm is None else "auto") as clients,
        open_agent(PlacedAgent(settings, wanted), NOBODY_LISTENS, clients, hooks) as agent,
    ):
        yield Trial(PlacedAgent(settings, wanted), agent)


def asking(spec: AgentSpec, llm: ScriptedLlm | None) -> AgentSpec:
    """Return a spec that asks a scripted server at once; unchanged without one."""
    if llm is None:
        return spec
    content = spec.model_dump(mode="json")
    content["llm"] |= {"provider": "openai", "mode": "inline", "base_url": llm.base_url}
    return parse_document(content, AgentSpec, where="spec under test")
