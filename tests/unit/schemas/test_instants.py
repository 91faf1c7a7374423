"""Spans that no calendar holds end where it does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.instants import earlier, later

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)), st.timedeltas(min_value=timedelta(0)))
def test_every_moment_and_span_give_a_moment(moment: datetime, span: timedelta) -> None:
    assert earlier(moment, span) == (moment - span if span <= moment - FIRST else FIRST)
    assert later(moment, span) == (moment + span if span <= LAST - moment else LAST)
