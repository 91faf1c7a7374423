"""What pytest's workers report reaches the run whatever characters it holds."""

from __future__ import annotations

import execnet
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import encodable

TEXT = st.text(st.characters(categories=["Cs", "L", "P"]))
REPORTS = st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), TEXT),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXT, inner), st.tuples(inner, inner)),
)


@given(REPORTS)
def test_a_report_with_any_text_can_be_sent(report: object) -> None:
    execnet.dumps(encodable(report))


@given(st.text())
def test_text_that_can_be_sent_stays_as_it_is(text: str) -> None:
    assert encodable({"sections": [("log", text)]}) == {"sections": [("log", text)]}
