"""Takes the beginning off an audit log, on record and under its key: nobody else can without its being seen.

First an event says so in the chain itself. Then a file beside the anchor names the last row that goes, sealed
with the key; from that row on the chain is checked. Then the rows go.
"""

from __future__ import annotations

import json
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from agent.audit.chain import ChainKey, Head
from agent.audit.events import AuditEvent
from schemas.documents import decoded, parse_json
from schemas.errors import ConfigurationError, RetryableError
from schemas.loading import Document, parse_document
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.delta.stored import StoredTable
from streaming.home.placed_agent import PlacedAgent
from streaming.store.files import Files
from streaming.store.place import Place

_SUBJECT = "retention"


class _CutDocument(Document):
    number: int
    hash: str
    seal: str


class CutFile:
    """The file that names the last row that was taken off the beginning of a chain.

    Args:
        files: where it lies, beside the chain's anchor.
        name: what it is called.
        chain: what the chain is called.
    """

    def __init__(self, files: Files, name: str, chain: str) -> None:
        self._files, self._name, self._chain = files, name, chain

    @property
    def place(self) -> Place:
        """Where it lies."""
        return self._files.place / self._name

    def read(self, key: ChainKey) -> Head | None:
        """Return the last row that was taken off, None where none was.

        Raises:
            ConfigurationError: the file is not what was written under this key.
        """
        held, where = self._files.read(self._name), str(self.place)
        if held is None:
            return None
        read = parse_json(decoded(held.content, where), where=where)
        noted = parse_document(read, _CutDocument, where=where)
        head = Head(noted.number, noted.hash)
        if noted.seal != self._seal(key, head):
            raise ConfigurationError("is not sealed with the key of the audit log", where=where)
        return head

    def write(self, key: ChainKey, head: Head) -> None:
        """Name a later row.

        Raises:
            RetryableError: another process does so at the same moment.
        """
        noted = {"number": head.number, "hash": head.hash, "seal": self._seal(key, head)}
        content, held = (json.dumps(noted) + "\n").encode(), self._files.read(self._name)
        if held is None:
            written = self._files.create(self._name, content)
        else:
            written = self._files.replace(self._name, content, held)
        if written is None:
            raise RetryableError(f"{self.place}: another process writes it; try again")

    def _seal(self, key: ChainKey, head: Head) -> str:
        return key.seal(f"flagstream audit cut {self._chain} {head.number} {head.hash}")


def cut_of(places: AuditPlaces) -> CutFile:
    """Return where the cut of an audit log is named."""
    return CutFile(places.guards, f"{places.table.name}.cut", places.chain)


def announce_cut(agent: PlacedAgent, table: StoredTable, before: datetime, young: int) -> int:
    """Put on record that the rows from before a moment go; return the number of the first that stays.

    Args:
        young: number of a row that stays, whatever those after it say.

    Raises:
        ConfigurationError: the log's key is gone, or another one.
        DataLossError: the log's anchor is gone, or the log ends before it.
    """
    old = table.select(["number"], pc.field("at") < pa.scalar(before))["number"]
    first = min(pc.max(old).as_py() + 1, table.next_number("number") - 1, young) if len(old) else 0
    if first <= table.removed_before:
        return table.removed_before
    places = AuditPlaces(agent)
    rows = first - table.removed_before
    detail = {"command": _SUBJECT, "scope": "audit", "rows": rows, "tables": [places.table.name]}
    log = LakeAudit(places, agent.spec.replay_horizon)
    log.record([AuditEvent("action", _SUBJECT, detail, f"{_SUBJECT}/{first}", 0)])
    last = table.read("number", first - 1, first, ["number", "hash"])["hash"][0].as_py()
    cut_of(places).write(places.key(places.anchor.read()), Head(first - 1, last))
    return first
