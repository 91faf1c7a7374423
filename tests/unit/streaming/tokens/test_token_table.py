"""Tokens in a lake: made, rotated with an overlap, ended; the text of none is written down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, NotFoundError
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent
from streaming.tokens.bearer import NewToken, draw
from streaming.tokens.token_table import Token, TokenTable, folded, read_tokens

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPEC = agent()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def known(settings: Settings) -> dict[str, Token]:
    return read_tokens(LakeReader(settings.lake(SPEC.name), SPEC.tables))


def made(settings: Settings, clock: Clock, name: str = "anna", life: timedelta | None = 10 * DAY) -> NewToken:
    drawn = draw()
    ends_at = None if life is None else clock() + life
    TokenTable(PlacedAgent(settings, SPEC), clock).add(drawn, name, ["triage"], 60, ends_at, "root")
    return drawn


def test_a_token_is_kept_as_its_digest_alone(settings: Settings) -> None:
    drawn = made(settings, Clock())
    (token,) = known(settings).values()
    assert (token.token_id, token.name, token.digest) == (drawn.token_id, "anna", drawn.digest)
    assert (token.scopes, token.per_minute, token.who) == (frozenset({"triage"}), 60, "root")
    assert token.ends_at == NOW + 10 * DAY
    secret = drawn.text.get_secret_value().rpartition("_")[2].encode()
    files = [path for path in settings.lake(SPEC.name).path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret in path.read_bytes()]
    assert "digest" not in token.facts()


def test_a_rotated_token_stays_good_for_the_overlap_and_the_new_one_lives_as_long(settings: Settings) -> None:
    clock = Clock()
    old, table = made(settings, clock), TokenTable(PlacedAgent(settings, SPEC), clock)
    clock.now = NOW + 4 * DAY
    new = draw()
    table.rotate(old.token_id, new, clock() + DAY, "bert")
    found = known(settings)
    assert found[old.token_id].ends_at == NOW + 5 * DAY
    assert found[new.token_id].ends_at == NOW + 14 * DAY
    assert (found[new.token_id].name, found[new.token_id].scopes) == ("anna", frozenset({"triage"}))
    last = draw()
    clock.now = NOW + 4.5 * DAY
    table.rotate(old.token_id, last, clock() + 90 * DAY, "bert")
    assert known(settings)[old.token_id].ends_at == NOW + 5 * DAY, "no overlap makes a token live longer"


def test_a_revoked_token_ends_now_and_cannot_end_again(settings: Settings) -> None:
    clock = Clock()
    drawn, table = made(settings, clock, life=None), TokenTable(PlacedAgent(settings, SPEC), clock)
    with pytest.raises(ConfigurationError, match="'anna' is good as yet"):
        made(settings, clock)
    table.revoke(drawn.token_id, "bert")
    assert not known(settings)[drawn.token_id].is_good(NOW)
    for change in (table.revoke, lambda token, who: table.rotate(token, draw(), NOW, who)):
        with pytest.raises(NotFoundError, match=drawn.token_id):
            change(drawn.token_id, "bert")
    assert made(settings, clock).token_id in known(settings), "the name is free again"


def test_two_who_write_at_once_both_have_their_token(settings: Settings) -> None:
    one, other = TokenTable(PlacedAgent(settings, SPEC)), TokenTable(PlacedAgent(settings, SPEC))
    first, second = draw(), draw()
    one.add(first, "anna", ["read"], 1, None, "a")
    other.add(second, "bert", ["read"], 1, None, "b")
    assert {first.token_id, second.token_id} == set(known(settings))


STEPS = st.lists(st.tuples(st.sampled_from(["created", "ends"]), st.sampled_from("abc"), st.integers(0, 9)))


@given(STEPS)
def test_the_last_end_that_was_noted_counts(steps: Sequence[tuple[str, str, int]]) -> None:
    rows = [
        {
            "event": event, "token_id": name, "name": name, "digest": "d", "scopes": ["read"], "at": NOW,
            "per_minute": 1, "ends_at": NOW + day * DAY, "who": "w",
        }
        for event, name, day in steps
    ]  # fmt: skip
    found = folded(rows)
    created = {name for event, name, _ in steps if event == "created"}
    assert set(found) == created
    for name, token in found.items():
        first = next(at for at, step in enumerate(steps) if step[:2] == ("created", name))
        last = [day for _, each, day in steps[first:] if each == name][-1]
        assert token.ends_at == NOW + last * DAY
