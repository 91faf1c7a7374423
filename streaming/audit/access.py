"""Tells the audit log that a person had a command read, or change, an agent's tables."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from deltalake.exceptions import DeltaError

from agent.audit.events import AuditEvent, EventKind
from schemas.errors import FlagstreamError
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.home.placed_agent import PlacedAgent
from streaming.output.log import log


def record_read(agent: PlacedAgent, command: str, tables: Sequence[str]) -> None:
    """Record that a command has read tables; call it before anything is shown."""
    _record(agent, "data_access", command, [{"tables": list(tables)}])


def record_done(agent: PlacedAgent, command: str, rows: int, *, begins_log: bool = False) -> None:
    """Record that a command has written so many rows.

    Args:
        begins_log: the command may be an agent's first, and then begins its log.
    """
    _record(agent, "action", command, [{"rows": rows}], begins_log=begins_log)


def record_done_each(agent: PlacedAgent, command: str, details: Sequence[Mapping[str, Any]]) -> None:
    """Record what one command has done, in a row for each detail, in one append."""
    _record(agent, "action", command, details)


def _record(
    agent: PlacedAgent,
    kind: EventKind,
    command: str,
    details: Sequence[Mapping[str, Any]],
    *,
    begins_log: bool = False,
) -> None:
    """Where the log cannot be written, say so and go on: whoever may only read can read all the same.

    An agent that has never run has no log, and gets none from a command that only looks.
    """
    places = AuditPlaces(agent)
    who = {"command": command, "actor": f"uid:{os.getuid()}"}
    source = f"command/{uuid.uuid4()}"
    try:
        if places.check_layout() or begins_log:
            audit = LakeAudit(places, agent.spec.replay_horizon)
            audit.record(
                [AuditEvent(kind, command, {**who, **each}, source, at) for at, each in enumerate(details)]
            )
    except (FlagstreamError, DeltaError, OSError) as fault:
        log(
            "not_audited", f"not recorded in the audit log: {fault}",
            level=logging.WARNING, agent=agent.name, command=command,
        )  # fmt: skip
