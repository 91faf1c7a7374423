"""The clock of a case says how long there is, or how long ago it was, in two units at most."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streaming.console.case_pages import span_text


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ({"days": 3, "hours": 2, "minutes": 5}, "3 d 2 h left"),
        ({"hours": 1, "seconds": 59}, "1 h left"),
        ({"seconds": 30}, "less than a minute left"),
        ({"seconds": -30}, "less than a minute over"),
        ({"minutes": -61}, "1 h 1 min over"),
        ({"days": -1}, "1 d over"),
    ],
)
def test_a_deadline_is_said_in_two_units(span: dict[str, int], said: str) -> None:
    assert span_text(timedelta(**span)) == said
