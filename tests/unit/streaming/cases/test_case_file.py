"""A case leaves as a file that is checked against the lake: whatever was changed in either is found."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigurationError
from streaming.cases.book import CaseBook
from streaming.cases.case_check import check_case_file
from streaming.cases.case_file import PARTS, CaseReader, digest_of
from streaming.cases.choosing import CaseFilter
from streaming.cases.orders import Order
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import build_lake, spec_of


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A small lake; its first case has a comment, an attachment and a case merged into it, and is closed."""
    settings = Settings.load(tmp_path_factory.mktemp("home"), {})
    build_lake(PlacedAgent(settings, spec_of()))
    book = CaseBook(PlacedAgent(settings, spec_of()))
    book.group()
    one, two = (each.case_id for each in book.page(limit=2).cases)
    book.act(one, Order("attach", name="note.txt", content=b"called them"), "anna")
    book.act(two, Order("merge", into=one), "anna")
    book.act(one, Order("close", reason="fraud", text="<b>\x1b[31m"), "bert")
    return settings


def reader(lake: Settings) -> CaseReader:
    return CaseReader(LakeReader(lake.lake("tester"), spec_of().tables), "tester")


def exported(lake: Settings) -> dict[str, Any]:
    book = CaseBook(PlacedAgent(lake, spec_of()))
    (one,) = {str(each.merged_into) for each in cases(book) if each.merged_into}
    document = reader(lake).document(one)
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def cases(book: CaseBook) -> Any:
    book.refresh()
    return book.page(CaseFilter(status=())).cases


def test_a_file_has_all_of_a_case_and_is_what_the_lake_has(lake: Settings) -> None:
    document = exported(lake)
    assert {each.state for each in check_case_file(document, reader(lake))} == {"same"}
    assert [each["event"] for each in document["timeline"]][-2:] == ["closed", "labelled"]
    alerts = {each["transaction_id"] for each in document["alerts"]}
    assert len(alerts) == len(document["transactions"]) == document["case"][0]["alerts"]
    assert {each["transaction_id"] for each in document["labels"] if each["source"] == "cases"} == alerts
    assert [each["name"] for each in document["attachments"]] == ["note.txt"]
    assert json.loads(document["pins"][0]["pins"])


def test_what_comes_later_leaves_an_earlier_file_as_good_as_it_was(lake: Settings) -> None:
    document = exported(lake)
    book = CaseBook(PlacedAgent(lake, spec_of()))
    book.act(document["case_id"], Order("comment", text="later"), "anna")
    checks = check_case_file(document, reader(lake))
    assert {each.state for each in checks} == {"same"}
    assert {each.part: each.later for each in checks if each.later} == {"case": 1, "timeline": 1}


def test_a_file_whose_end_was_cut_has_something_later(lake: Settings) -> None:
    whole = exported(lake)
    cut = {**whole["upto"], "case_events": whole["timeline"][-1]["number"]}
    parts = json.loads(json.dumps(reader(lake).read(whole["case_id"]).parts(cut)))
    head = {
        "format": whole["format"], "agent": whole["agent"], "case_id": whole["case_id"], "upto": cut,
        "digests": {name: digest_of(part) for name, part in parts.items()},
    }  # fmt: skip
    checks = check_case_file({**head, "digest": digest_of(head), **parts}, reader(lake))
    later = {each.part: each.later for each in checks}
    assert {each.state for each in checks} == {"same"}
    assert later["timeline"] >= 1


def test_a_case_that_is_merged_later_leaves_an_earlier_file_as_good_as_it_was(lake: Settings) -> None:
    """Its events have numbers below those that the file was read up to, and were none of this case's."""
    document = exported(lake)
    book = CaseBook(PlacedAgent(lake, spec_of()))
    third = next(each for each in cases(book) if each.case_id != document["case_id"] and not each.merged_into)
    book.act(document["case_id"], Order("reopen", text="another one"), "anna")
    book.act(third.case_id, Order("merge", into=document["case_id"]), "anna")
    checks = check_case_file(document, reader(lake))
    assert {each.state for each in checks} == {"same"}
    later = {each.part: each.later for each in checks}
    assert later["alerts"] == third.alerts > 0


def test_a_check_reads_no_more_than_an_export(lake: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    document, read = exported(lake), list[str]()
    for name in ("at", "select"):
        monkeypatch.setattr(StoredTable, name, noted(read, getattr(StoredTable, name)))
    reader(lake).document(document["case_id"])
    once = Counter(read)
    read.clear()
    check_case_file(document, reader(lake))
    assert Counter(read) == once
    assert once["alerts"] == once["transactions"] == 1


def noted(read: list[str], method: Callable[..., Any]) -> Callable[..., Any]:
    def called(table: StoredTable, *arguments: Any) -> Any:
        read.append(table.place.name)
        return method(table, *arguments)

    return called


@pytest.mark.parametrize("part", PARTS)
def test_an_edited_file_is_found_also_with_digests_made_anew(lake: Settings, part: str) -> None:
    document = exported(lake)
    edited = copy.deepcopy(document)
    edited[part] = [{**edited[part][0], "who": "nobody"}, *edited[part][1:]]
    states = {each.part: each.state for each in check_case_file(edited, reader(lake))}
    assert states == {name: "changed in the file" if name == part else "same" for name in PARTS}
    edited["digests"][part] = digest_of(edited[part])
    assert {each.state for each in check_case_file(edited, reader(lake))} == {"changed in the file"}
    head = {name: edited[name] for name in ("format", "agent", "case_id", "upto", "digests")}
    (found,) = [
        each
        for each in check_case_file({**edited, "digest": digest_of(head)}, reader(lake))
        if each.part == part
    ]
    assert (found.state, found.gone, found.further) == ("differs from the lake", 1, 1)


@pytest.mark.parametrize(
    "wrong", [{}, {"format": "flagstream case 2"}, {"upto": {}}, {"alerts": 1}, {"agent": "x"}]
)
def test_what_is_no_file_of_a_case_is_refused(lake: Settings, wrong: dict[str, Any]) -> None:
    document = {**exported(lake), **wrong} if wrong else {}
    with pytest.raises(ConfigurationError, match=r"format|another agent"):
        check_case_file(document, reader(lake))


def test_a_case_that_is_not_in_the_lake_is_said_part_by_part(lake: Settings, tmp_path: Path) -> None:
    other = Settings.load(tmp_path, {})
    checks = check_case_file(exported(lake), reader(other))
    assert {each.state for each in checks} == {"differs from the lake"}
    assert all(each.gone == each.items for each in checks)
