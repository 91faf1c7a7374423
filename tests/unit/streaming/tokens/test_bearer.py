"""A token is drawn once, known by its digest, and shown by nothing that prints it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from streaming.output.redaction import redacted
from streaming.tokens.bearer import SCOPES, digest_of, draw, granted, id_of, is_of


@given(st.binary(min_size=38, max_size=38))
def test_what_is_drawn_is_known_again_and_nothing_else_is(drawn: bytes) -> None:
    parts = [drawn[:6], drawn[6:]]
    token = draw(lambda count: parts.pop(0)[:count])
    text = token.text.get_secret_value()
    assert id_of(text) == token.token_id == drawn[:6].hex()
    assert is_of(text, token.digest)
    other = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert not is_of(other, token.digest)


@given(st.text())
def test_no_other_text_is_taken_for_a_token(text: str) -> None:
    looks_like_one = re.fullmatch(r"fst_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text) is not None
    assert (id_of(text) is not None) is looks_like_one
    assert not is_of(text, digest_of(f"{text}x"))


def test_a_token_has_256_random_bits_and_its_text_is_never_shown() -> None:
    sizes: list[int] = []

    def random(count: int) -> bytes:
        sizes.append(count)
        return bytes(range(count))

    token = draw(random)
    assert sizes[-1] * 8 == 256
    text = token.text.get_secret_value()
    assert text not in repr(token) + str(token)
    assert redacted(f"sent {text} to") == "sent [redacted] to"
    assert text not in token.digest


def test_whoever_may_change_something_may_see_it() -> None:
    assert granted(["admin"]) == frozenset(SCOPES)
    for scope in SCOPES:
        assert {"read", scope} <= granted([scope])
    assert "operate" not in granted(["triage", "read"])
    assert "triage" not in granted(["operate"])
