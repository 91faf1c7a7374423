"""Erasure and retention know the table of cases: ids become tokens, old cases leave whole, books go on."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.spec import AgentSpec
from streaming.cases.actions import NoSuchCaseError
from streaming.cases.book import CaseBook
from streaming.cases.choosing import CaseFilter
from streaming.cases.orders import Order
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.erasure_plan import Erasable
from streaming.erasure.erasing import Erasure
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.retention.enforcing import RetentionKeeper
from streaming.testing.live_lake import CONTRACT, agent
from streaming.testing.small_lake import build_lake, spec_of
from tests.unit.streaming.cases.case_samples import Desk, alert_row

ANY = CaseFilter(status=())
NOTE = b"of somebody else"


def test_an_erased_id_is_a_token_in_cases_comments_and_files(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    build_lake(PlacedAgent(settings, spec_of()))
    book = CaseBook(PlacedAgent(settings, spec_of()))
    book.group()
    (case,) = book.page(CaseFilter(entity=("customer", "c25"))).cases
    other = next(each for each in book.page().cases if each.entity_id != "c25")
    for meant in (case, other):
        book.act(meant.case_id, Order("comment", text="customer c25 called"), "anna")
        book.act(meant.case_id, Order("attach", name="a.txt", content=b"customer c25: mine"), "anna")
        book.act(meant.case_id, Order("attach", name="b.txt", content=NOTE), "anna")
    erased = Erasure(PlacedAgent(settings, spec_of())).run(
        [Erasable("customer", "c25")], "anna", "asked for it"
    )
    assert erased.rows["case_events"] > 0
    (token,) = erased.tokens
    for each in (book, CaseBook(PlacedAgent(settings, spec_of()))):
        assert each.case(case.case_id).entity_id == token
        assert each.case(case.case_id).alerts == case.alerts
        told = each.timeline(other.case_id)
        assert [f"customer {token} called"] == [entry["text"] for entry in told if "text" in entry]
    digests = {e["name"]: e["digest"] for e in book.timeline(other.case_id) if e["event"] == "attached"}
    assert book.attachment(other.case_id, digests["b.txt"]) == NOTE
    for meant, name in ((other, "a.txt"), (case, "a.txt"), (case, "b.txt")):
        with pytest.raises(NoSuchCaseError, match="no such file"):
            book.attachment(meant.case_id, digests[name])
    files = list((tmp_path / "lake" / "tester" / "case_events").rglob("*.parquet"))
    assert files
    # A word of its own: random ids and digests may hold these letters as well.
    assert not any(re.search(r"\bc25\b", str(pq.read_table(each).to_pylist())) for each in files)


def test_closed_cases_leave_whole_and_nothing_is_grouped_twice(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"retention": {"case_events": "30d"}})
    desk.now = datetime.now(UTC) - timedelta(days=40)
    desk.alert(*(alert_row(n, f"c{n}", n) for n in range(4)))
    book = desk.grouped()
    names = [each.case_id for each in book.page().cases]
    book.act(names[0], Order("close"), "anna")
    book.act(names[2], Order("merge", into=names[1]), "anna")
    book.act(names[1], Order("close", reason="genuine"), "anna")
    book.act(names[3], Order("comment", text="still open"), "anna")
    number = book.refresh()
    definition = AgentDefinition.pinned(agent(retention={"case_events": "30d"}), CONTRACT)
    now = datetime.now(UTC)
    keeper = RetentionKeeper(desk.settings, lambda: definition, lambda: now, lambda: now)
    assert keeper.enforce()["case_events"] > 8
    assert keeper.enforce() == {}
    for each in (book, desk.book()):
        assert each.group() == 0
        assert [case.case_id for case in each.page(ANY).cases] == [names[3]]
        assert each.refresh() == number
    desk.alert(alert_row(4, "c0", 9))
    assert book.group() == 1
    assert book.page().total == 2


def test_a_case_stays_with_those_merged_into_it_and_while_its_age_is_not_reached(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.now = datetime.now(UTC) - timedelta(days=40)
    desk.alert(alert_row(0, "c0"), alert_row(1, "c1"))
    book = desk.grouped()
    one, two = (each.case_id for each in book.page().cases)
    book.act(two, Order("merge", into=one), "anna")
    desk.now = datetime.now(UTC) - timedelta(days=20)
    book.act(one, Order("close"), "anna")
    definition = AgentDefinition.pinned(agent(retention={"case_events": "30d"}), CONTRACT)
    now = datetime.now(UTC)
    assert RetentionKeeper(desk.settings, lambda: definition, lambda: now, lambda: now).enforce() == {}
    assert desk.grouped().page(ANY).total == 2


def test_cases_are_kept_for_longer_than_norms_need_them_and_specs_without_them_stay_what_they_were() -> None:
    with pytest.raises(ConfigurationError, match="norms need them"):
        parse_document(
            {**agent().model_dump(mode="json"), "retention": {"case_events": "7d"}}, AgentSpec, where="x"
        )
    plain = agent(retention={"monitoring": "30d"}).model_dump_json()
    assert "case" not in plain
    assert agent(cases={"window": "1h"}).digest != agent(cases={}).digest == agent().digest
