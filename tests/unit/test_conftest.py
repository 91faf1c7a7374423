"""What pytest's workers report reaches the run whatever characters it holds; no test sets up another one."""

from __future__ import annotations

import logging
from pathlib import Path

import execnet
from hypothesis import given
from hypothesis import strategies as st

from streaming.arrays.kernel_folder import kernel_folder
from streaming.cli.options import settings_in
from streaming.store.spool import spooled
from tests.conftest import encodable, process_kept

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


def test_what_a_command_sets_for_its_process_ends_with_the_test(tmp_path: Path) -> None:
    before = set_for_the_process()
    with process_kept():
        settings_in(tmp_path / "home", "json")
        assert all(now != then for now, then in zip(set_for_the_process(), before, strict=True))
    assert set_for_the_process() == before


def set_for_the_process() -> tuple[object, ...]:
    with spooled("probe-") as folder:
        return folder.parent, kernel_folder(), logging.getLogger().handlers[:]
