"""Findings in Delta: every one in the sandbox table, those whose citations hold in the table of findings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from agent.planning.actions import ActionResult
from agent.planning.finding import Finding
from schemas.errors import DataLossError
from schemas.instants import Clock
from schemas.lake_tables import Table
from schemas.tables import FINDINGS
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.home.placed_agent import PlacedAgent


@dataclass(frozen=True)
class FindingFacts:
    """What is kept beside a finding: the run, its goal and what it stood under."""

    run_id: str
    goal: str
    policy: str
    plan_digest: str


class FindingTables:
    """Keeps findings, each once per run.

    Args:
        agent: whose tables they are; the two are created when absent.
        facts: of the run.
        clock: current time, timezone-aware.
    """

    def __init__(self, agent: PlacedAgent, facts: FindingFacts, clock: Clock) -> None:
        self._tables, self._spec = LakeReader.of(agent), agent.spec
        self._facts, self._clock = facts, clock

    def post(self, finding: Finding) -> ActionResult:
        """Keep a finding in the sandbox and, if what stands there is valid, promote it."""
        identifier = hashlib.sha256(f"{self._facts.run_id}\n{finding.title}".encode()).hexdigest()[:32]
        self._append("findings_sandbox", identifier, self._row(identifier, finding))
        kept = self._kept("findings_sandbox", identifier)
        promoted = bool(kept["valid"][0].as_py())
        if promoted:
            self._append("findings", identifier, kept)
        return ActionResult({"finding_id": identifier, "promoted": promoted, "claims": len(finding.claims)})

    def _append(self, name: Table, identifier: str, row: pa.Table) -> None:
        table = SharedTable(self._tables.place(name), FINDINGS, self._spec.replay_horizon)
        table.by_turns(lambda: table.append(row, Stamp(f"findings/{identifier}", 0)))

    def _kept(self, name: Table, identifier: str) -> pa.Table:
        kept = self._tables.anew().rows(name, FINDINGS.names, pc.field("finding_id") == identifier)
        if kept.num_rows != 1:
            raise DataLossError(f"{name}: finding {identifier} is not there once: restore what was removed")
        return kept

    def _row(self, identifier: str, finding: Finding) -> pa.Table:
        content = finding.plain()
        row = {
            "finding_id": identifier,
            "agent": self._spec.name,
            "at": self._clock(),
            "title": finding.title,
            "claims": json.dumps(content["claims"]),
            "valid": finding.valid,
            "problems": list(finding.problems),
            "written_by": finding.written_by,
            **vars(self._facts),
        }
        return pa.Table.from_pylist([row], schema=FINDINGS)
