"""How far a route has come: a small file beside the lake, replaced after each delivery.

The topic is the outbox. A route's place in it moves once an alert has arrived, so a crash in between repeats
that one alert, under the same idempotency key, and loses none.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from schemas.errors import ConfigurationError, FencedError
from streaming.store.files import Files, FileState

_MOST_SET_ASIDE = 100
_WRITER_BYTES = 8


@dataclass(frozen=True)
class SetAside:
    """An alert that will not arrive.

    Attributes:
        message_id: its idempotency key.
        partition: where it lies on the topic.
        offset: in the partition.
        why: what the receiver said last.
        at: when, ISO 8601 in UTC.
    """

    message_id: str
    partition: int
    offset: int
    why: str
    at: str


@dataclass(frozen=True)
class RouteState:
    """What is on record of a route.

    Attributes:
        topic: that the places are of.
        places: partition → offset of the next record.
        delivered: notices that have arrived.
        refused: alerts that were set aside.
        unread: records that were passed over since they are no alerts, or lack fields that a notice needs.
        set_aside: the newest hundred of them.
        failing_since: since when the receiver takes nothing, ISO 8601 in UTC, None where it does.
        said: what it said last.
        had: message id → who of several has it, while others do not.
    """

    topic: str
    places: Mapping[int, int] = field(default_factory=dict)
    delivered: int = 0
    refused: int = 0
    unread: int = 0
    set_aside: tuple[SetAside, ...] = ()
    failing_since: str | None = None
    said: str = ""
    had: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def begun_anew(self) -> RouteState:
        """Return the state as another process finds it, which has not seen its receiver fail."""
        return replace(self, failing_since=None, said="")

    def past(self, partition: int, offset: int) -> RouteState:
        """Return the state with a record done."""
        return replace(self, places={**self.places, partition: offset + 1})

    def over_unread(self, partition: int, offset: int) -> RouteState:
        """Return the state with a record passed over that is no alert to be sent."""
        return replace(self.past(partition, offset), unread=self.unread + 1)

    def arrived(self, message_id: str, partition: int, offset: int) -> RouteState:
        """Return the state with a notice delivered."""
        done = self.past(partition, offset)
        return replace(
            done, delivered=self.delivered + 1, failing_since=None, said="", had=self._had_but(message_id)
        )

    def without(self, lost: SetAside, failing_since: str | None) -> RouteState:
        """Return the state with an alert set aside."""
        kept = (*self.set_aside, lost)[-_MOST_SET_ASIDE:]
        return replace(
            self.past(lost.partition, lost.offset),
            refused=self.refused + 1, set_aside=kept, failing_since=failing_since, said=lost.why,
            had=self._had_but(lost.message_id),
        )  # fmt: skip

    def failing(self, said: str, now: datetime) -> RouteState:
        """Return the state with an attempt failed."""
        return replace(self, failing_since=self.failing_since or now.isoformat(timespec="seconds"), said=said)

    def reached(self, message_id: str, had: tuple[str, ...]) -> RouteState:
        """Return the state with what is known of who has a notice that not all have."""
        return replace(self, had={**self.had, message_id: had}) if had else self

    def _had_but(self, message_id: str) -> dict[str, tuple[str, ...]]:
        return {each: had for each, had in self.had.items() if each != message_id}

    def to_json(self, writer: str) -> bytes:
        """Return the state as one line of JSON; no two writers write the same."""
        return (json.dumps({**asdict(self), "writer": writer}) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes, where: str) -> RouteState:
        """Read a state.

        Raises:
            ConfigurationError: it is none.
        """
        try:
            noted = json.loads(content)
            noted["places"] = {int(each): int(offset) for each, offset in noted["places"].items()}
            noted["set_aside"] = tuple(SetAside(**each) for each in noted["set_aside"])
            noted["had"] = {each: tuple(had) for each, had in noted.get("had", {}).items()}
            noted.pop("writer", None)
            return cls(**noted)
        except (ValueError, TypeError, LookupError, AttributeError):
            raise ConfigurationError("not the state of a route", where=where) from None


class StateFile:
    """The state of one route, which one process writes; `written` is what it wrote last.

    Args:
        files: where states lie.
        route: its name.
    """

    def __init__(self, files: Files, route: str) -> None:
        self._files, self._name = files, f"{route}.json"
        # A store compares contents: two writers of the same would both take it for theirs.
        self._writer = secrets.token_hex(_WRITER_BYTES)
        self._held: FileState | None = None
        self.written: RouteState | None = None

    def read(self) -> RouteState | None:
        """Return the state, None where the route has none yet.

        Raises:
            ConfigurationError: the file is no state.
            RetryableError: the store is away.
        """
        self._held = self._files.read(self._name)
        where = str(self._files.place / self._name)
        return None if self._held is None else RouteState.parse(self._held.content, where)

    def write(self, state: RouteState) -> None:
        """Replace the state that was read or written last.

        Raises:
            FencedError: another process has replaced it.
            RetryableError: the store is away.
        """
        content = state.to_json(self._writer)
        if self._held is None:
            written = self._files.create(self._name, content)
        else:
            written = self._files.replace(self._name, content, self._held)
        if written is None:
            raise FencedError(
                f"another process delivers for this route: {self._files.place / self._name} has changed"
            )
        self._held, self.written = written, state
