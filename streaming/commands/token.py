"""`flagstream token`: tokens of the HTTP API made, listed, replaced and ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agent.audit.events import is_name
from schemas.errors import ConfigurationError, NotFoundError, nearest
from streaming.audit.access import record_done, record_read
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json, say_error
from streaming.tokens.bearer import SCOPES, NewToken, Scope, draw
from streaming.tokens.principal import OF_TOKEN
from streaming.tokens.token_table import Token, TokenTable, no_such_token, read_tokens
from streaming.versions.moving import default_author

Agents = Sequence[PlacedAgent]
_HEADS = ("token", "name", "scopes", "per_minute", "created_at", "ends_at", "who")
_KEEP_IT = "The token is shown this once: keep it where your client reads its secrets."


@dataclass(frozen=True)
class TokenOrder:
    """A token that somebody wants.

    Attributes:
        name: whose it is, as the audit log names them.
        scopes: what it may do.
        life: how long it is good, None for ever.
        per_minute: requests that it may make in a minute.

    Raises:
        ConfigurationError: the name is none that the audit log may hold, or there is no scope.
    """

    name: str
    scopes: tuple[Scope, ...]
    life: timedelta | None
    per_minute: int

    @classmethod
    def of(cls, name: str, scopes: Sequence[str], life: timedelta | None, per_minute: int) -> TokenOrder:
        """Read what the command line was given.

        Raises:
            ConfigurationError: a scope is none, or see above.
        """
        return cls(name, tuple(map(_scope, scopes)), life, per_minute)

    def __post_init__(self) -> None:
        """Check the words."""
        if not is_name(f"{OF_TOKEN}{self.name}"):
            raise ConfigurationError("expected a name such as night-shift", where="--name")
        if not self.scopes:
            raise ConfigurationError("say what it may do, such as --scope read", where="--scope")


def create_token(agents: Agents, order: TokenOrder, *, as_json: bool) -> None:
    """Draw a token, keep its digest in the lake of each agent, and print it.

    Every lake is read before any is written to: of a token that one agent refuses nothing is kept. Where a
    lake cannot be written then, the token is good for the others, and is shown for them.

    Raises:
        ConfigurationError: a token of this name is good as yet.
        FlagstreamError: it could not be kept for an agent.
    """
    drawn, who, begun = draw(), default_author(), {each.name for each in agents if _has_begun(each)}
    ends_at = None if order.life is None else datetime.now(UTC) + order.life
    for each in agents:
        TokenTable(each).check_free(order.name)
    given = (order.name, order.scopes, order.per_minute, ends_at, who)
    done = _in_each(agents, "token-create", lambda table: table.add(drawn, *given))
    if done.tokens:
        _show_new(done.tokens[0], drawn, as_json=as_json)
    for each in done.agents:
        _say_lake(each, is_new=each.name not in begun)
    done.check(drawn.token_id)


def list_tokens(agents: Agents, *, as_json: bool) -> None:
    """Print the tokens of agents: what they may do, never what they are."""
    rows = []
    for each in agents:
        record_read(each, "token-list", [each.spec.tables.tokens])
        found = read_tokens(LakeReader.of(each))
        rows += [{"agent": each.name, **token.facts()} for token in found.values()]
    if as_json:
        print_json(rows)
        return
    heads = ("agent", *_HEADS)
    show_table(Terminal(), heads, [[_shown(row[name]) for name in heads] for row in rows])


def rotate_token(agents: Agents, token_id: str, overlap: timedelta, *, as_json: bool) -> None:
    """Draw a token in the place of one, which stays good for `overlap`, and print it.

    Every lake is read before any is written to. Where one cannot be written then, the old token stays there.

    Raises:
        NotFoundError: no agent has such a token that is good.
        FlagstreamError: it could not be rotated for an agent.
    """
    drawn, who, old_ends = draw(), default_author(), datetime.now(UTC) + overlap
    having = [each for each in agents if TokenTable(each).has_good(token_id)]
    done = _in_each(having, "token-rotate", lambda table: table.rotate(token_id, drawn, old_ends, who))
    if done.tokens:
        _show_new(done.tokens[0], drawn, as_json=as_json)
    done.check(token_id)


def revoke_token(agents: Agents, token_id: str, *, as_json: bool) -> None:
    """End a token; a server that runs refuses it within seconds.

    It is ended wherever that can be done, whatever happens to the lake of another agent.

    Raises:
        NotFoundError: no agent has such a token that is good.
        FlagstreamError: it could not be ended for an agent; the token may be good there.
    """
    who = default_author()
    done = _in_each(agents, "token-revoke", lambda table: table.revoke(token_id, who))
    if done.tokens:
        show_facts(done.tokens[0].facts(), as_json=as_json)
    done.check(token_id)


def _scope(name: str) -> Scope:
    found = next((scope for scope in SCOPES if scope == name), None)
    if found is None:
        raise ConfigurationError(f"no scope {name!r}; {nearest(name, SCOPES)}", where="--scope")
    return found


@dataclass
class _Done:
    """What has become of a step that was to be taken in several lakes."""

    tokens: list[Token] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    agents: list[PlacedAgent] = field(default_factory=list)

    def check(self, token_id: str) -> None:
        """Raise what has kept the step from being taken somewhere, or that no lake has such a token."""
        if self.faults:
            raise self.faults[0]
        if not self.tokens:
            raise no_such_token(token_id)


def _in_each(agents: Agents, command: str, step: Callable[[TokenTable], Token]) -> _Done:
    """Take a step in each lake, whatever happens to another, and put on record where it was taken."""
    done = _Done()
    for each in agents:
        try:
            done.tokens.append(step(TokenTable(each)))
            done.agents.append(each)
            record_done(each, command, 1, begins_log=True)
        except NotFoundError:
            continue
        except Exception as fault:  # a library's own keeps a token from no other lake either
            done.faults.append(fault)
    return done


def _show_new(token: Token, drawn: NewToken, *, as_json: bool) -> None:
    text = drawn.text.get_secret_value()
    if as_json:
        print_json({**token.facts(), "bearer": text})
        return
    show_facts({**token.facts(), "bearer": text}, as_json=False)
    say_error(_KEEP_IT)


def _has_begun(agent: PlacedAgent) -> bool:
    """Say whether there are tables of an agent, those that a batch or an earlier token has begun."""
    reader = LakeReader.of(agent)
    return any(reader.table(each) is not None for each in ("batches", "tokens"))


def _say_lake(agent: PlacedAgent, *, is_new: bool) -> None:
    if is_new:
        say_error(f"There was no lake of {agent.name} yet: {agent.lake} was begun. Is this the --home meant?")
    else:
        say_error(f"It was kept in the lake {agent.lake}.")


def _shown(value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "-" if value is None else value
