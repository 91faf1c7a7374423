"""The table of tokens in an agent's lake: steps of tokens, appended side by side, folded when they are read.

A token is `created` with its digest, and `ends` when it is rotated or revoked: the last end that was noted
counts. A token that may see several agents has a row in the lake of each: a lake alone says who may see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import pyarrow as pa

from schemas.errors import ConfigurationError, NotFoundError
from schemas.instants import Clock, utc_now
from schemas.lake_tables import TABLES
from schemas.tables import TOKENS
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.store.place import Place
from streaming.tokens.bearer import NewToken, Scope

_STREAM = "tokens"
_CREATED, _ENDS = "created", "ends"
_NAMES = list(TOKENS.names)


@dataclass(frozen=True)
class Token:
    """A token as an agent's lake knows it.

    Attributes:
        token_id: its id, which may be shown.
        name: whose it is, as the audit log names them.
        digest: SHA-256 of its text.
        scopes: what it may do.
        per_minute: requests that it may make in a minute.
        ends_at: when it ends, None for never.
        who: who made it.
    """

    token_id: str
    name: str
    digest: str
    scopes: frozenset[Scope]
    per_minute: int
    created_at: datetime
    ends_at: datetime | None
    who: str

    def is_good(self, now: datetime) -> bool:
        """Say whether it has not ended."""
        return self.ends_at is None or now < self.ends_at

    def facts(self) -> dict[str, object]:
        """Return what may be shown of it, times in ISO 8601; its digest stays."""
        return {
            "token": self.token_id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "per_minute": self.per_minute,
            "created_at": self.created_at.isoformat(),
            "ends_at": None if self.ends_at is None else self.ends_at.isoformat(),
            "who": self.who,
        }


def tokens_place(agent: HasLake) -> Place:
    """Return where the tokens of an agent lie."""
    return LakeReader.of(agent).place("tokens")


def read_tokens(reader: LakeReader) -> dict[str, Token]:
    """Return all tokens of a lake by their id, those that have ended included; none without a table."""
    rows = reader.rows("tokens", _NAMES).sort_by([(name, "ascending") for name in TABLES["tokens"].order])
    return folded(rows.to_pylist())


def folded(rows: Iterable[Mapping[str, Any]]) -> dict[str, Token]:
    """Bring steps, in their order, to tokens. An end of a token that nobody made is passed over."""
    found: dict[str, Token] = {}
    for row in rows:
        token_id, ends_at = row["token_id"], _in_utc(row["ends_at"])
        if row["event"] == _CREATED:
            found[token_id] = _token(row, ends_at)
        elif token_id in found:
            found[token_id] = replace(found[token_id], ends_at=ends_at)
    return found


def no_such_token(token_id: str) -> NotFoundError:
    """Return what is wrong with an id that no good token has."""
    return NotFoundError("no such token is good; see `flagstream token list`", where=token_id)


class TokenTable:
    """The tokens of one agent as commands write them; the table is created when absent.

    Args:
        agent: whose tokens they are.
        clock: current time, timezone-aware.
    """

    def __init__(self, agent: HasLake, clock: Clock = utc_now) -> None:
        place = tokens_place(agent)
        self._table, self._clock = SharedTable(place, TOKENS, agent.spec.replay_horizon), clock
        self._reader = LakeReader.of(agent)

    def check_free(self, name: str) -> None:
        """Check that a token of a name may be made.

        Raises:
            ConfigurationError: one is good as yet.
        """
        self._check_free(name, self._known())

    def has_good(self, token_id: str) -> bool:
        """Say whether a token is here, and has not ended."""
        found = self._known().get(token_id)
        return found is not None and found.is_good(self._clock())

    def add(
        self,
        drawn: NewToken,
        name: str,
        scopes: Iterable[Scope],
        per_minute: int,
        ends_at: datetime | None,
        who: str,
    ) -> Token:
        """Keep the digest of a new token.

        Raises:
            ConfigurationError: a token of this name is good as yet; rotate or revoke it.
        """

        def decide(known: Mapping[str, Token]) -> list[Token]:
            self._check_free(name, known)
            return [self._made(drawn, name, frozenset(scopes), per_minute, ends_at, who)]

        return self._write(decide)[0]

    def rotate(self, token_id: str, drawn: NewToken, old_ends: datetime, who: str) -> Token:
        """Keep a new token in the place of one, which ends at `old_ends` if not before.

        The new one lives as long as the old one was given, counted from now.

        Raises:
            NotFoundError: there is no such token, or it has ended.
        """

        def decide(known: Mapping[str, Token]) -> list[Token]:
            old = self._good(token_id, known)
            life = None if old.ends_at is None else old.ends_at - old.created_at
            ends_at = None if life is None else self._clock() + life
            new = self._made(drawn, old.name, old.scopes, old.per_minute, ends_at, who)
            return [new, replace(old, ends_at=min(old_ends, old.ends_at or old_ends), who=who)]

        return self._write(decide)[0]

    def revoke(self, token_id: str, who: str) -> Token:
        """End a token now.

        Raises:
            NotFoundError: there is no such token, or it has ended.
        """
        return self._write(
            lambda known: [replace(self._good(token_id, known), ends_at=self._clock(), who=who)]
        )[0]

    def _made(
        self,
        drawn: NewToken,
        name: str,
        scopes: frozenset[Scope],
        per_minute: int,
        ends_at: datetime | None,
        who: str,
    ) -> Token:
        now = self._clock()
        return Token(drawn.token_id, name, drawn.digest, scopes, per_minute, now, ends_at, who)

    def _known(self) -> dict[str, Token]:
        return read_tokens(self._reader.anew())

    def _check_free(self, name: str, known: Mapping[str, Token]) -> None:
        if any(each.name == name and each.is_good(self._clock()) for each in known.values()):
            raise ConfigurationError(
                f"a token of the name {name!r} is good as yet: rotate or revoke it, or take another name"
            )

    def _good(self, token_id: str, known: Mapping[str, Token]) -> Token:
        found = known.get(token_id)
        if found is None or not found.is_good(self._clock()):
            raise no_such_token(token_id)
        return found

    def _write(self, decide: Callable[[Mapping[str, Token]], list[Token]]) -> list[Token]:
        def attempt() -> list[Token]:
            known = self._known()
            written, number = decide(known), self._table.last_batch(_STREAM) + 1
            rows = [self._row(each, number, is_new=each.token_id not in known) for each in written]
            self._table.append(pa.Table.from_pylist(rows, schema=TOKENS), Stamp(_STREAM, number))
            return written

        return self._table.by_turns(attempt)

    def _row(self, token: Token, number: int, *, is_new: bool) -> dict[str, object]:
        noted = {"number": number, "at": self._clock(), "token_id": token.token_id, "who": token.who}
        if not is_new:
            return {**noted, "event": _ENDS, "ends_at": token.ends_at}
        given = {name: getattr(token, name) for name in ("name", "digest", "per_minute", "ends_at")}
        return {**noted, **given, "event": _CREATED, "scopes": sorted(token.scopes)}


def _token(row: Mapping[str, Any], ends_at: datetime | None) -> Token:
    scopes = cast("Sequence[Scope]", row["scopes"] or ())
    made_at = row["at"].astimezone(UTC)
    return Token(
        row["token_id"], row["name"], row["digest"], frozenset(scopes), row["per_minute"], made_at, ends_at,
        row["who"],
    )  # fmt: skip


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
