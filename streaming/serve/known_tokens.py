"""The tokens of all agents that a server serves, as it looks them up: in memory, brought up to date."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from schemas.instants import Clock, utc_now
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable
from streaming.home.placed_agent import PlacedAgent
from streaming.serve.paced_work import PacedWork
from streaming.tokens.bearer import granted, id_of, is_of
from streaming.tokens.principal import OF_TOKEN, Principal
from streaming.tokens.token_table import Token, read_tokens

_NOBODY: Mapping[str, Token] = MappingProxyType({})


class AgentTokens:
    """The tokens in the lake of one agent. Safe to use from several threads.

    Args:
        agent: whose tokens they are.
        seconds: monotonic seconds.

    Attributes:
        known: by their id.
        is_read: whether the table was read once; there may be none.
    """

    def __init__(self, agent: PlacedAgent, seconds: Callable[[], float] = time.monotonic) -> None:
        self.agent = agent.name
        self._reader = LakeReader.of(agent)
        self._table: StoredTable | None = None
        self._version = -1
        self._reading = PacedWork(self._read, "tokens", seconds)
        self.known: Mapping[str, Token] = _NOBODY
        self.is_read = False

    @property
    def may_have_more(self) -> bool:
        """Whether a token may be in the table that is not known: it was not read just now, or not at all."""
        return self._reading.is_due or self._reading.fault is not None

    def refresh(self) -> None:
        """See what commands have written since.

        Raises:
            FlagstreamError: the table cannot be read; what was known of it stays.
        """
        self._reading.do()

    def catch_up(self) -> None:
        """See what commands have written, as of a second ago at least.

        Raises:
            RetryableError: the table is being read, which takes long.
            FlagstreamError: see refresh.
        """
        self._reading.catch_up()

    def _read(self) -> None:
        if self._table is None:
            self._reader = self._reader.anew()
            self._table = self._reader.table("tokens")
        else:
            self._table.refresh()
        if self._table is not None and self._table.version != self._version:
            version = self._table.version
            self.known = read_tokens(self._reader)
            self._version = version
        self.is_read = True


class KnownTokens:
    """Says who a bearer token stands for. Safe to use from several threads.

    Args:
        agents: the tokens of each agent.
        clock: current time, timezone-aware.
    """

    def __init__(self, agents: Sequence[AgentTokens], clock: Clock = utc_now) -> None:
        self._agents, self._clock = tuple(agents), clock

    def is_worth_reading(self, text: str) -> bool:
        """Say whether a token that nobody knows may have come since the tables were read; reads nothing."""
        token_id = id_of(text)
        if token_id is None or any(token_id in each.known for each in self._agents):
            return False
        return any(each.may_have_more for each in self._agents)

    def read_for(self, text: str) -> Principal | None:
        """Return the same as `principal` does, once the tables were read; may take as long as they are away.

        Raises:
            FlagstreamError: nobody knows the token, and a table that may hold it could not be read.
        """
        fault: Exception | None = None
        for each in self._agents:
            try:
                each.catch_up()
            except Exception as last:  # a library's own are faults of this table, too
                fault = last
        found = self.principal(text)
        if found is None and fault is not None:
            raise fault
        return found

    def principal(self, text: str) -> Principal | None:
        """Return whom a token stands for, by memory alone; None where it is not known or has ended."""
        token_id = id_of(text)
        return None if token_id is None else self._found(token_id, lambda digest: is_of(text, digest))

    def principal_of(self, token_id: str, digest: str) -> Principal | None:
        """Return whom a token stands for, of which the digest is known; see principal."""
        return self._found(token_id, lambda kept: hmac.compare_digest(kept, digest))

    def _found(self, token_id: str, fits: Callable[[str], bool]) -> Principal | None:
        now = self._clock()
        found = {
            each.agent: token
            for each in self._agents
            if (token := each.known.get(token_id)) is not None and fits(token.digest) and token.is_good(now)
        }
        return _principal(token_id, found) if found else None


def _principal(token_id: str, found: Mapping[str, Token]) -> Principal:
    names = sorted({each.name for each in found.values()})
    return Principal(
        name=f"{OF_TOKEN}{names[0]}",
        key=token_id,
        scopes={agent: granted(each.scopes) for agent, each in found.items()},
        per_minute=min(each.per_minute for each in found.values()),
    )
