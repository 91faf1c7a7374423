"""Receivers can check who has sent a request, with ten lines of their own."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.notify.signing import secret_key, signed_headers

ROOT = Path(__file__).parents[4]
KEYS = st.binary(min_size=24, max_size=64)
Verifier = Callable[..., bool]


@cache
def verify() -> Verifier:
    """The verifier that docs/integrations.md shows."""
    page = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    (program,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "hmac" in each)
    assert len(program.strip().splitlines()) <= 14
    known: dict[str, Verifier] = {}
    exec(compile(program, "docs/integrations.md", "exec"), known)
    return known["is_genuine"]


def written(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def test_a_signature_is_that_of_the_specification_s_example() -> None:
    key = secret_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(KEYS, KEYS, st.binary(max_size=200), st.integers(0, 2**33))
def test_whoever_knows_one_of_the_live_secrets_accepts_it_while_they_are_changed(
    newer: bytes, older: bytes, body: bytes, now: int
) -> None:
    headers = signed_headers([newer, older], "msg_1_1", now, body)
    for key in (newer, older):
        assert verify()(written(key), headers, body, now)
    if newer != older:
        assert not verify()(written(older), signed_headers([newer], "msg_1_1", now, body), body, now)


@given(KEYS, st.binary(max_size=50), st.data())
def test_a_request_that_was_changed_or_is_old_is_not_accepted(
    key: bytes, body: bytes, data: st.DataObject
) -> None:
    now = 1_800_000_000
    headers = signed_headers([key], "msg_1_1", now, body)
    other = data.draw(st.binary(max_size=50).filter(lambda each: each != body))
    assert not verify()(written(key), headers, other, now)
    assert not verify()(written(key), {**headers, "webhook-id": "msg_1_2"}, body, now)
    assert not verify()(written(key), {**headers, "webhook-timestamp": str(now + 1)}, body, now)
    assert not verify()(written(key), headers, body, now + data.draw(st.integers(301, 10**9)))


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "abc", "whsec_!!!", "whsec_c2hvcnQ=", written(b"x" * 65), written(b"x" * 32)[6:]]
)
def test_a_secret_that_is_none_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="expected whsec_ and base64 of 24 to 64 bytes") as refused:
        secret_key(secret)
    assert len(secret) < 8 or secret not in str(refused.value)
