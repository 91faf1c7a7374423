"""What people do to cases: each action once, none lost, none taken twice, and labels that follow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from schemas.errors import ConfigurationError, ConflictError, RetryableError
from streaming.cases import book as book_module
from streaming.cases.actions import CaseRefusedError, NoSuchCaseError
from streaming.cases.alert_intake import AlertIntake
from streaming.cases.book import CaseBook
from streaming.cases.choosing import LIVE_CASES, NOBODY, CaseFilter
from streaming.cases.orders import Order
from streaming.delta.whole_tables import read_stored
from streaming.labels.book import LabelBook
from tests.unit.streaming.cases.case_samples import Desk, alert_row

FRAUD = Order("close", reason="fraud", kind="stolen_card")
ANY = CaseFilter(status=())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Three customers with alerts: c0 with two, one of them critical."""
    found = Desk(tmp_path)
    found.alert(*(alert_row(n, f"c{n % 3}", n, severity="critical" if n == 3 else "high") for n in range(4)))
    return found


def labels(desk: Desk) -> list[dict[str, Any]]:
    rows = read_stored(desk.settings.lake("tester") / "labels")
    return [] if rows is None else rows.sort_by("label_sequence").to_pylist()


def test_cases_come_most_urgent_first_and_page_by_page(desk: Desk) -> None:
    book = desk.grouped()
    first = book.page(limit=2)
    rest = book.page(limit=2, after=first.after)
    assert [each.entity_id for each in (*first.cases, *rest.cases)] == ["c0", "c1", "c2"]
    assert (first.total, rest.after) == (3, None)
    assert first.facets["severity"] == {"high": 2, "critical": 1}
    assert first.cases[0].overdue
    for wanted, after in ((LIVE_CASES, "x"), (LIVE_CASES, "1:2:3"), (ANY, first.after)):
        with pytest.raises(ConfigurationError, match="earlier page"):
            book.page(wanted, after=after)
    assert book.page(CaseFilter(entity=("customer", "c1"))).total == 1
    assert book.page(CaseFilter(assignee=NOBODY, severity=("critical",))).total == 1


def test_what_a_case_comes_to_has_refunds_apart(tmp_path: Path) -> None:
    """In whichever process: one that has grouped the alerts, and one that opens the cases later."""
    desk = Desk(tmp_path)
    desk.alert(alert_row(0, amount=100.0, direction="payment"), alert_row(1, amount=30.0, direction="refund"))
    early = desk.grouped()
    for more, expected in (
        ({}, (100.0, 30.0)),
        ({"amount": 5.0, "direction": "refund"}, (100.0, 35.0)),
        ({"amount": 7.0}, (107.0, 35.0)),
        ({"currency": "USD"}, (None, None)),
    ):
        if more:
            desk.alert(alert_row(desk.written + 1, **more))
        early.group()
        for book in (early, desk.grouped()):
            (case,) = book.page().cases
            assert (case.amount, case.refunds) == expected


def test_two_people_cannot_take_one_case_until_the_lease_is_over(desk: Desk) -> None:
    anna, bert = desk.grouped(), desk.grouped()
    mine = anna.claim_next("anna")
    assert mine is not None
    his = bert.claim_next("bert")
    assert his is not None
    assert his.case_id != mine.case_id
    with pytest.raises(CaseRefusedError, match="anna has it"):
        bert.act(mine.case_id, Order("claim"), "bert")
    desk.now += timedelta(minutes=15)
    assert bert.case(mine.case_id).assignee is None
    assert bert.act(mine.case_id, Order("claim"), "bert").assignee == "bert"
    with pytest.raises(CaseRefusedError, match="bert has it"):
        anna.act(mine.case_id, Order("close"), "anna")


def test_an_action_on_a_case_that_has_changed_since_writes_nothing(desk: Desk) -> None:
    anna, bert = desk.grouped(), desk.grouped()
    seen = anna.page().cases[0]
    bert.act(seen.case_id, Order("comment", text="called them"), "bert")
    with pytest.raises(ConflictError, match="changed since"):
        anna.act(seen.case_id, FRAUD, "anna", seen.version)
    desk.alert(alert_row(9, "c0", 9))
    now = anna.case(seen.case_id)
    anna.group()
    with pytest.raises(ConflictError, match="changed since"):
        anna.act(seen.case_id, FRAUD, "anna", now.version)
    assert labels(desk) == []
    assert anna.act(seen.case_id, FRAUD, "anna", anna.case(seen.case_id).version).status == "closed"


def test_an_action_under_a_key_is_done_once(desk: Desk) -> None:
    book = desk.grouped()
    case = book.page().cases[0]
    order = Order("comment", text="x")
    said = [book.act(case.case_id, order, "anna", case.version, key="k") for _ in range(3)]
    assert {each.comments for each in said} == {1}
    assert book.claim_next("anna", key="c") == book.claim_next("anna", key="c")
    assert desk.book().act(case.case_id, order, "bert", key="k").comments == 2


def test_closing_says_what_transactions_were_and_reopening_lets_them_be_something_else(desk: Desk) -> None:
    book = desk.grouped()
    case = book.page().cases[0]
    assert book.act(case.case_id, FRAUD, "anna").labels == "written"
    found = [(row["transaction_id"], row["is_fraud"], row["kind"], row["decided_by"]) for row in labels(desk)]
    assert found == [("t0", True, "stolen_card", "anna"), ("t3", True, "stolen_card", "anna")]
    with pytest.raises(CaseRefusedError, match="labels are in use"):
        book.undo(case.case_id, "anna")
    desk.now += timedelta(minutes=1)
    book.act(case.case_id, Order("reopen"), "bert")
    assert book.act(case.case_id, Order("close", reason="genuine"), "bert").labels == "written"
    latest = LabelBook(desk.settings.lake("tester") / "labels", retention=timedelta(days=1)).latest()
    assert latest["is_fraud"].to_pylist() == [False, False]
    assert book.act(book.page().cases[0].case_id, Order("close"), "anna").labels is None
    assert len(labels(desk)) == 4


class KilledError(BaseException):
    """Stands for a process that dies."""


def dies(*_: object, **__: object) -> None:
    raise KilledError


@pytest.mark.parametrize("where", ["record", "_noted"])
def test_labels_of_a_closing_are_there_once_wherever_its_process_dies(
    desk: Desk, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = desk.grouped()
    case = book.page().cases[0].case_id
    target = "streaming.labels.book.LabelBook.record"
    target = target if where == "record" else "streaming.cases.closing_labels.ClosingLabels._noted"
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(target, dies)
        book.act(case, FRAUD, "anna")
    assert len(labels(desk)) == (0 if where == "record" else 2)
    others = [desk.book(), desk.book()]
    assert [each.case(case).labels for each in others] == ["pending", "pending"]
    for each in others:
        each.group()
    assert len(labels(desk)) == 2
    assert desk.grouped().case(case).labels == "written"


def test_labels_follow_a_closing_that_was_reopened_before_they_were_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = desk.grouped()
    case = book.page().cases[0].case_id
    with monkeypatch.context() as patch:
        patch.setattr(LabelBook, "record", away)
        assert book.act(case, FRAUD, "anna").labels == "pending"
        book.act(case, Order("reopen"), "anna")
        desk.alert(alert_row(20, "c0", 5))
        book.group()
    assert desk.grouped().case(case).alerts == 3
    assert [row["transaction_id"] for row in labels(desk)] == ["t0", "t3"]


def away(*_: object, **__: object) -> None:
    raise RetryableError("the store is away")


def test_whoever_writes_labels_leaves_the_closings_of_others_to_be_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, bert = desk.grouped(), desk.grouped()
    hers, his, _ = (each.case_id for each in anna.page().cases)
    record = LabelBook.record

    def beside(*given: Any, **more: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(LabelBook, "record", away)
            bert.act(his, FRAUD, "bert")
        monkeypatch.setattr(LabelBook, "record", record)
        return record(*given, **more)

    monkeypatch.setattr(LabelBook, "record", beside)
    anna.act(hers, FRAUD, "anna")
    assert [row["transaction_id"] for row in labels(desk)] == ["t0", "t3"]
    assert desk.book().case(his).labels == "pending"
    anna.group()
    assert [row["transaction_id"] for row in labels(desk)] == ["t0", "t3", "t1"]
    assert desk.book().case(his).labels == "written"


def test_labels_that_the_book_does_not_take_yet_stay_pending_until_it_does(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = desk.grouped()
    case = book.page().cases[0].case_id
    desk.now += timedelta(minutes=10)  # this process's clock is ahead
    with monkeypatch.context() as patch:
        patch.setattr(LabelBook, "record", away)
        book.act(case, FRAUD, "anna")
    desk.now -= timedelta(minutes=10)
    other = desk.grouped()
    assert (other.case(case).labels, labels(desk)) == ("pending", [])
    desk.now += timedelta(minutes=6)
    other.group()
    assert other.case(case).labels == "written"
    assert [row["transaction_id"] for row in labels(desk)] == ["t0", "t3"]


def test_some_closings_take_two_people(desk: Desk) -> None:
    desk.changes = {"cases": {"second_person": ["fraud"]}}
    book = desk.grouped()
    case = book.page().cases[0].case_id
    asked = book.act(case, FRAUD, "anna")
    assert (asked.status, asked.asked_by, labels(desk)) == ("closing", "anna", [])
    for order, who, said in (
        (FRAUD, "anna", "somebody else"),
        (Order("close", reason="genuine"), "bert", "anna asked to close it as fraud"),
    ):
        with pytest.raises(CaseRefusedError, match=said):
            book.act(case, order, who)
    assert book.act(case, Order("reopen"), "bert").status == "open"
    book.act(case, FRAUD, "bert")
    done = book.act(case, FRAUD, "anna")
    assert (done.status, done.closed_by, len(labels(desk))) == ("closed", "anna", 2)
    assert book.act(book.page().cases[0].case_id, Order("close", reason="genuine"), "anna").status == "closed"


def test_merged_cases_are_one_and_can_be_parted_again(desk: Desk) -> None:
    book = desk.grouped()
    one, two, three = (each.case_id for each in book.page().cases)
    assert book.act(two, Order("merge", into=one), "anna").merged_into == one
    assert book.act(three, Order("merge", into=one[:6]), "anna").merged_into == one
    assert book.case(one).alerts == 4
    assert [len(book.alerts_of(each)) for each in (one, two)] == [4, 0]
    assert book.cases_of_alerts([f"{1:032x}"]) == {f"{1:032x}": one}
    with pytest.raises(CaseRefusedError, match="part of"):
        book.act(two, FRAUD, "anna")
    with pytest.raises(CaseRefusedError, match="since"):
        book.undo(two, "anna")
    assert book.undo(three, "anna").case.status == "open"
    book.act(one, FRAUD, "anna")
    assert sorted(row["transaction_id"] for row in labels(desk)) == ["t0", "t1", "t3"]
    with pytest.raises(CaseRefusedError, match="it is closed"):
        book.act(three, Order("merge", into=one), "anna")


def test_alerts_that_came_while_cases_were_merged_part_with_them(desk: Desk) -> None:
    book = desk.grouped()
    one, two, _ = book.page().cases
    seen = book.act(two.case_id, Order("merge", into=one.case_id), "anna") and book.case(one.case_id)
    desk.alert(alert_row(10, str(two.entity_id), 5))
    book.group()
    assert [book.case(each.case_id).alerts for each in (one, two)] == [one.alerts + two.alerts + 1, 0]
    with pytest.raises(ConflictError, match="changed since"):
        book.act(one.case_id, FRAUD, "anna", seen.version)
    merged = book.case(one.case_id).version
    book.undo(two.case_id, "anna")
    assert [book.case(each.case_id).alerts for each in (one, two)] == [one.alerts, two.alerts + 1]
    assert {row["alert_id"] for row in book.alerts_of(two.case_id).to_dicts()} >= {f"{10:032x}"}
    assert book.case(one.case_id).version > merged
    desk.alert(alert_row(11, str(two.entity_id), 6))
    book.group()
    assert book.case(two.case_id).alerts == two.alerts + 2


def test_a_closing_that_is_refused_leaves_the_deadline_and_a_reopening_sets_another(desk: Desk) -> None:
    desk.changes = {"cases": {"second_person": ["fraud"]}}
    book = desk.grouped()
    case = book.page().cases[0]
    desk.now += timedelta(hours=1)
    book.act(case.case_id, FRAUD, "anna")
    assert book.act(case.case_id, Order("reopen"), "bert").deadline == case.deadline
    book.act(case.case_id, Order("close"), "anna")
    again = book.act(case.case_id, Order("reopen"), "anna")
    assert again.since == desk.now
    desk.now += timedelta(hours=1)
    book.act(case.case_id, FRAUD, "anna")
    assert book.act(case.case_id, Order("reopen"), "bert").since == again.since


@pytest.mark.parametrize(
    "order", [Order("assign", assignee="bert"), Order("escalate"), Order("close"), Order("claim")]
)
def test_what_can_be_undone_leaves_the_case_as_it_was(desk: Desk, order: Order) -> None:
    book = desk.grouped()
    before = book.page().cases[0]
    book.act(before.case_id, order, "anna")
    after = book.undo(before.case_id, "anna").case
    assert after.version > before.version
    assert {**after.document, "version": 0} == {**before.document, "version": 0}
    with pytest.raises(CaseRefusedError, match="nothing was done"):
        book.undo(before.case_id, "anna")


def test_a_mass_update_says_before_what_it_will_do_and_is_undone_as_one(desk: Desk) -> None:
    book = desk.grouped()
    held = book.claim_next("bert")
    assert held is not None
    order = Order("close")
    told = book.mass(CaseFilter(), order, "anna", dry_run=True)
    assert (told.meant, told.changed, told.refused) == (3, 2, {"bert has it": 1})
    version = book.refresh()
    with pytest.raises(ConflictError, match="2 cases would be changed now, not 3"):
        book.mass(CaseFilter(), order, "anna", dry_run=False, expected=3)
    assert book.refresh() == version
    assert book.mass(CaseFilter(), order, "anna", dry_run=False, expected=2, key="m").changed == 2
    assert book.mass(CaseFilter(), order, "anna", dry_run=False, expected=2, key="m").changed == 2
    assert book.refresh() == version + 2
    closed = book.page(CaseFilter(status=("closed",))).cases
    book.undo(closed[0].case_id, "anna")
    assert book.page().total == 3


def test_a_mass_update_of_no_cases_changes_none(desk: Desk) -> None:
    book = desk.grouped()
    version = book.refresh()
    done = book.mass(CaseFilter(cases=()), Order("close"), "anna", dry_run=False)
    assert (done.meant, done.changed, book.refresh()) == (0, 0, version)
    (one, *_) = book.page().cases
    assert book.mass(CaseFilter(cases=(one.case_id,)), Order("close"), "anna", dry_run=False).changed == 1


def test_files_are_kept_with_a_case_by_their_digest(desk: Desk) -> None:
    book = desk.grouped()
    case = book.page().cases[0].case_id
    content = bytes(range(256)) * 4_096
    assert book.act(case, Order("attach", name="call.wav", content=content), "anna").attachments == 1
    digest = hashlib.sha256(content).hexdigest()
    assert desk.book().attachment(case, digest) == content
    with pytest.raises(NoSuchCaseError):
        book.attachment(case, "0" * 64)
    for name, bad in (("x", content + b"1"), ("x", b""), ("../x", b"1"), ("", b"1")):
        with pytest.raises(ConfigurationError, match="attachment"):
            book.act(case, Order("attach", name=name, content=bad), "anna")


def test_who_asks_while_the_store_does_not_answer_another_keeps_no_thread(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "_WAIT_SECONDS", 0.01)
    book, begun, go_on = desk.grouped(), Event(), Event()
    case = book.page().cases[0].case_id

    def waits(*_: object) -> int:
        begun.set()
        assert go_on.wait(60)
        return 0

    monkeypatch.setattr(AlertIntake, "group", waits)
    first = Thread(target=book.group)
    first.start()
    asks: list[Callable[[], object]] = [
        book.page, book.refresh, lambda: book.case(case), lambda: book.act(case, FRAUD, "anna"),
    ]  # fmt: skip
    try:
        assert begun.wait(60)
        for ask in asks:
            with pytest.raises(RetryableError, match="ask again"):
                ask()
    finally:
        go_on.set()
        first.join(60)
    assert book.case(case).status == "open"


REFUSED: list[tuple[Callable[[CaseBook, str], object], type[Exception], str]] = [
    (lambda book, _: book.case("nothing"), NoSuchCaseError, "no such case"),
    (lambda book, _: book.case(""), NoSuchCaseError, "no such case"),
    (lambda book, case: book.act(case, Order("comment", text=" "), "anna"), ConfigurationError, "a text"),
    (lambda book, case: book.act(case, Order("claim"), "no name"), ConfigurationError, "a name"),
    (
        lambda book, case: book.act(case, Order("assign", assignee=""), "anna"),
        ConfigurationError,
        "a name",
    ),
    (lambda book, case: book.act(case, Order("close", reason="x"), "anna"), ConfigurationError, "no reason"),  # type: ignore[arg-type]  # as a client may send it
    (lambda book, case: book.act(case, Order("reopen"), "anna"), CaseRefusedError, "it is open"),
    (lambda book, case: book.act(case, Order("release"), "anna"), CaseRefusedError, "does not have it"),
    (lambda book, case: book.act(case, Order("merge", into=case), "anna"), CaseRefusedError, "merge into"),
    (
        lambda book, case: book.act(case, Order("comment", text="x" * 10_001), "anna"),
        ConfigurationError,
        "10,000",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "said"), REFUSED)
def test_what_cannot_be_done_is_said_and_writes_nothing(
    desk: Desk, wrong: Callable[[CaseBook, str], object], error: type[Exception], said: str
) -> None:
    book = desk.grouped()
    version = book.refresh()
    with pytest.raises(error, match=said):
        wrong(book, book.page().cases[0].case_id)
    assert desk.book().refresh() == version


def test_a_lake_without_alerts_or_cases_opens_and_nothing_is_made(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    book = desk.grouped()
    assert book.page(ANY).total == 0
    assert book.claim_next("anna") is None
    assert not (tmp_path / "lake").exists()


def test_several_that_group_at_once_group_each_alert_once(desk: Desk) -> None:
    one, two = desk.book(), desk.book()
    one.refresh()
    two.refresh()
    assert one.group() == 4
    assert two.group() == 0
    desk.alert(alert_row(4, "c0", 4))
    assert (two.group(), one.group()) == (1, 0)
    assert one.page(ANY) == two.page(ANY)
    assert sum(each.alerts for each in one.page(ANY).cases) == 5


@pytest.mark.parametrize("at_once", [1, 3, 5, 7, 100])
def test_alerts_that_another_has_not_seen_are_not_skipped_after_it_was_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("streaming.cases.alert_intake._AT_ONCE", at_once)
    quick, slow = desk.book(), desk.book()
    seen = quick._intake._opened()
    assert seen is not None
    monkeypatch.setattr(seen, "refresh", lambda: None)  # it sees no more than the first four
    desk.alert(*(alert_row(n, f"c{n}", n) for n in range(4, 9)))
    write = slow._store.write

    def overtaken(*given: Any, **more: Any) -> int:
        monkeypatch.setattr(slow._store, "write", write)
        assert quick.group() == 4
        return write(*given, **more)

    monkeypatch.setattr(slow._store, "write", overtaken)
    assert slow.group() == 5
    assert sum(each.alerts for each in desk.grouped().page(ANY).cases) == 9


def test_a_desk_that_begins_after_retention_took_the_first_alerts_groups_the_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.alert(alert_row(450_000), alert_row(900_000, "c2"))
    book = desk.book()
    assert (book.group(), book.group()) == (2, 0)
    assert book.page().total == 2


def test_the_timeline_has_everything_in_its_order(desk: Desk) -> None:
    book = desk.grouped()
    case = book.page().cases[0].case_id
    book.act(case, Order("escalate", text="who is that?"), "anna")
    book.undo(case, "anna")
    told = book.timeline(case)
    assert [each["event"] for each in told] == ["opened", "alerted", "alerted", "escalated", "undone"]
    assert [each.get("undone", False) for each in told] == [False, False, False, True, False]
    assert told[3]["text"] == "who is that?"


def test_alerts_stand_in_the_timeline_when_they_were_grouped_and_all_times_are_in_order(
    desk: Desk,
) -> None:
    book = desk.grouped()
    case = book.page().cases[0]
    told = book.timeline(case.case_id)
    times = [each["at"] for each in told]
    assert times == sorted(times)
    (opened, *joined) = told
    assert {each["at"] for each in joined} == {opened["at"]}
    alerts = book.alerts_of(case.case_id)
    assert sum(each["alerts"] for each in joined) == alerts.height
    assert joined[0]["alerted_at"] == alerts["alerted_at"].min()
    assert joined[0]["alerted_at"] != joined[0]["at"]


def test_escalated_cases_are_chosen_by_their_level_and_keep_their_place(desk: Desk) -> None:
    book = desk.grouped()
    before = [each.case_id for each in book.page().cases]
    book.act(before[-1], Order("escalate"), "anna")
    assert [each.case_id for each in book.page().cases] == before
    found = book.page(CaseFilter(level=1))
    assert [each.case_id for each in found.cases] == before[-1:]
    assert before[-1] not in {each.case_id for each in book.page(CaseFilter(level=0)).cases}
    assert book.page().facets["level"] == {"0": len(before) - 1, "1": 1}
