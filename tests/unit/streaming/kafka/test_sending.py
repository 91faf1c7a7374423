from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RetryableError
from streaming.kafka.sending import Sender, SendSchedule


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pace_is_open_loop() -> None:
    clock = Clock()
    pace = SendSchedule(10, clock)
    assert pace.due(0) == 1
    assert pace.due(1) == 0
    assert pace.wait_s(1) == pytest.approx(0.1)
    clock.now += 5
    assert pace.due(1) == 50
    assert SendSchedule().due(10**9) > 10**9


@given(st.floats(0.5, 1e5), st.lists(st.floats(0, 2), max_size=50))
def test_pace_neither_drifts_nor_skips(rate: float, waits: list[float]) -> None:
    clock = Clock()
    pace, sent = SendSchedule(rate, clock), 0
    for wait in waits:
        clock.now += wait
        sent += pace.due(sent)
        assert abs(sent - ((clock.now - 100.0) * rate + 1)) <= 1


def test_undelivered_records_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.kafka.sending._DELIVERY_SECONDS", 0.2)
    with (
        pytest.raises(RetryableError, match="2 of 2 records"),
        Sender("127.0.0.1:1", "nowhere", SendSchedule()) as sender,
    ):
        sender.send([b"k", None], [b"a", b"b"])


def test_an_error_on_its_way_is_not_held_up_by_delivery() -> None:
    with pytest.raises(KeyError), Sender("127.0.0.1:1", "nowhere", SendSchedule()) as sender:
        sender.send([b"k"], [b"v"])
        raise KeyError
