"""JSON with the frame of a schema registry: what follows it is read as JSON without one is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from streaming.events.decode import decode
from streaming.events.exact_decode import ExactDecoder
from tests.unit.streaming.events.test_decode import (
    FLAT,
    NOW,
    bits,
    check_against_exact,
    contract,
    event,
    one,
    reason,
    records,
)

FRAMED = contract(format={"json": {"framing": "confluent"}})
FRAME = b"\0\0\0\x03\xe8"

_values = st.one_of(
    st.none(),
    st.binary(max_size=12),
    st.builds(
        lambda size, text: FRAME[:size] + text, st.integers(0, 5), st.sampled_from([event(), b"{", b""])
    ),
    st.builds(lambda frame: frame + event(), st.binary(min_size=5, max_size=5)),
    st.integers(0, 450).map(lambda size: FRAME + event(other="x" * size)),
)


@given(st.lists(_values, max_size=12))
def test_whatever_is_framed_is_what_the_exact_decoder_says(values: list[bytes | None]) -> None:
    taken = records(values)
    check_against_exact(taken, decode(taken, FRAMED, NOW), FRAMED)


@given(st.lists(st.binary(min_size=4, max_size=4), min_size=1, max_size=9))
def test_the_id_in_the_frame_changes_nothing(ids: list[bytes]) -> None:
    bare = decode(records([event()] * len(ids)), FLAT, NOW).valid
    framed = decode(records([b"\0" + each + event() for each in ids]), FRAMED, NOW).valid
    for name in bare.column_names:
        assert bits(framed[name]) == bits(bare[name])


@pytest.mark.parametrize("value", [event(), b"\1" + FRAME[1:] + event(), b"\0\0\0\3", b""])
def test_a_record_without_a_frame_has_a_reason_of_its_own(value: bytes) -> None:
    assert reason(value, FRAMED) == "missing_framing"


def test_what_is_rejected_keeps_its_frame() -> None:
    assert one(FRAME + b"[]", FRAMED)["value"] == FRAME + b"[]"


def test_a_frame_is_no_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    assert one(FRAME + event(), FRAMED)["transaction_id"] == "t1"


def test_a_contract_that_names_no_format_keeps_its_digest() -> None:
    assert "format" not in FLAT.model_dump()
    assert contract(format={"json": {"framing": "none"}}).digest == FLAT.digest
    assert FRAMED.digest != FLAT.digest
    assert EventContract.model_validate_json(FRAMED.model_dump_json()) == FRAMED


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jsn": {}}, "did you mean 'json'"),
        ({"json": {"framin": "confluent"}}, "did you mean 'framing'"),
        ({"json": {"framing": "confluence"}}, "confluent"),
    ],
)
def test_a_wrong_format_is_said_by_its_nearest_name(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        contract(format=given)
