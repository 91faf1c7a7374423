"""The console in a real Chromium: people sign in, see alerts come, and decide cases by keyboard.

With CONSOLE_PICTURES=docs/pictures the pictures of docs/console.md are made anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import build_lake, spec_of
from tests.browser_session import one_more_alert
from tests.console_people import (
    HOSTILE,
    PHONE,
    THEMES,
    WIDE,
    House,
    People,
    check_looks,
    house_of,
    picture,
    said,
)

SPEC = spec_of()
OF_DOCS = {
    "inbox-wide-light.png": "inbox", "alert-wide-dark.png": "alert", "case-phone-light.png": "case",
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = Settings.load(tmp_path_factory.mktemp("console") / "home", {})
    build_lake(PlacedAgent(settings, SPEC))
    with house_of(settings, SPEC) as found:
        yield found


def case_of(page: Any) -> str:
    return str(page.get_attribute("#detail", "data-case"))


def test_a_code_signs_in_once_and_a_session_ends_by_signing_out(house: House, person: People) -> None:
    with person() as page:
        used = house.code("anna")
        for status in (200, 401):
            page.goto(f"/console/sign-in?code={used}")
            with page.expect_navigation() as went:
                page.click("button.primary")
            assert went.value.status == status
        page.goto("/console/cases")
        page.click("[data-do=sign-out]")
        page.wait_for_url("**/console/sign-in")
        assert page.goto("/console/cases").status == 401


def test_an_alert_appears_without_a_reload(house: House, person: People) -> None:
    with person() as page:
        page.goto("/console/alerts")
        page.evaluate("window.kept = true")
        before = int(page.text_content(".list h1").split()[0])
        entities = [("customer", "c3"), ("terminal", "m1")]
        one_more_alert(house.settings, SPEC, transaction_id="came-later", entities=entities)
        page.wait_for_selector("#queue .row[data-transaction=came-later]")
        assert page.text_content(".list h1") == f"{before + 1} alerts"
        assert page.evaluate("window.kept") is True


def test_a_case_that_is_closed_by_keyboard_ends_in_the_labels(house: House, person: People) -> None:
    for key, is_fraud in (("f", True), ("g", False)):
        with person() as page:
            page.keyboard.press("j")
            page.wait_for_selector("#detail")
            case = case_of(page)
            page.keyboard.press(key)
            said(page, f"Case {case[:8]} closed as {'fraud' if is_fraud else 'genuine'}")
            page.wait_for_selector(f"#detail:not([data-case='{case}'])")
            assert page.query_selector(f"[data-id='{case}']") is None
        members = [row for row in house.rows("case_events") if row["case_id"] == case]
        meant = {row["transaction_id"] for row in members if row["event"] == "alerted"}
        labels = [row for row in house.rows("labels") if row["decided_by"] == "token:anna"]
        assert meant <= {row["transaction_id"] for row in labels if row["is_fraud"] is is_fraud}


def test_on_a_phone_filters_unfold_and_the_bar_of_what_is_selected_is_one_line(person: People) -> None:
    with person(size=PHONE) as page:
        page.goto("/console/cases")
        assert not page.is_visible(".facets")
        page.click("text=Filters")
        assert page.is_visible(".facets")
        page.check("#queue .row input >> nth=0")
        page.wait_for_selector("#bulk")
        tall, wide, shown = page.evaluate("[bulk.offsetHeight, bulk.scrollWidth, bulk.clientWidth]")
        assert tall < 80
        assert wide > shown
    with person() as page:
        page.goto("/console/cases")
        assert page.is_visible(".facets")
        assert not page.is_visible("text=Filters")
        assert page.evaluate("document.querySelector('header.bar').offsetHeight") < 60


def test_two_people_cannot_take_one_case(house: House, person: People) -> None:
    with person() as anna, person("bert") as bert:
        anna.keyboard.press("n")
        anna.wait_for_url("**/console/cases/*")
        case = case_of(anna)
        bert.goto(f"/console/cases/{case}")
        bert.click("[data-act=claim]")
        said(bert, "token:anna")
        with bert.expect_response("**/close*"):
            bert.keyboard.press("f")
        wait_until(lambda: bert.evaluate("!busy"), 20, "the page to be done")
        said(bert, "token:anna")
        bert.keyboard.press("n")
        bert.wait_for_url(lambda url: "/console/cases/" in url and case not in url)
    events = [row for row in house.rows("case_events") if row["case_id"] == case]
    assert {row["who"] for row in events if row["event"] == "claimed"} == {"token:anna"}


def test_the_next_case_opens_by_itself_and_what_was_done_is_taken_back(house: House, person: People) -> None:
    with person() as page:
        page.keyboard.press("n")
        page.wait_for_url("**/console/cases/*")
        case = case_of(page)
        page.keyboard.press("e")
        page.fill("#ask-text", "asked the customer")
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "/console/cases/" in url and case not in url)
        said(page, f"Case {case[:8]} closed as other. This one is yours now.")
        assert "token:anna" in page.text_content("#detail .facts")
        page.keyboard.press("z")
        said(page, f"Case {case[:8]}: taken back, open.")
        page.keyboard.press("u")
        page.wait_for_selector(f"#queue [data-id='{case}']")
    assert {"closed", "undone"} <= {
        row["event"] for row in house.rows("case_events") if row["case_id"] == case
    }


def test_several_cases_are_assigned_and_given_back_at_once(person: People) -> None:
    with person() as page:
        page.goto("/console/cases?assignee=-")
        page.wait_for_selector("#queue .row")
        for _ in range(3):
            page.keyboard.press("j")
            page.keyboard.press("x")
        page.wait_for_selector("#detail")
        ids = [each.get_attribute("data-id") for each in page.query_selector_all(".row:has(input:checked)")]
        assert len(ids) == 3
        page.keyboard.press("a")
        page.fill("#ask-text", "token:bert")
        page.keyboard.press("Enter")
        said(page, "3 cases assigned")
        for each in ids:
            page.wait_for_selector(f"#queue [data-id='{each}']", state="detached")
        page.keyboard.press("z")
        said(page, "taken back")
        for each in ids:
            page.wait_for_selector(f"#queue [data-id='{each}']")


def test_closed_cases_that_are_selected_are_opened_again(person: People) -> None:
    with person() as page:
        for path, act, words in (
            ("/console/cases?assignee=-", "close][data-reason=other", "2 cases closed as other"),
            ("/console/cases?status=closed", "reopen", "2 cases open again"),
        ):
            page.goto(path)
            page.wait_for_selector("#queue .row")
            for place in (0, 1):
                page.check(f"#queue .row input >> nth={place}")
            page.click(f"#bulk [data-act={act}]")
            page.fill("#ask-text", "by mistake")
            page.keyboard.press("Enter")
            said(page, words)


def test_an_alert_is_labelled_and_labelled_otherwise(house: House, person: People) -> None:
    with person() as page:
        page.goto("/console/alerts?filter=label+%3D+none")
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        page.keyboard.press("o")
        page.wait_for_url("**/console/alerts/*")
        transaction = page.get_attribute("#detail", "data-transaction")
        for key, word in (("f", "fraud"), ("g", "genuine")):
            page.keyboard.press(key)
            page.wait_for_selector(f"#detail .head :text('labelled {word} by token:anna')")
    rows = sorted(house.rows("labels"), key=lambda row: row["label_sequence"])
    labels = [row["is_fraud"] for row in rows if row["transaction_id"] == transaction]
    assert labels == [True, False]


def test_the_keys_that_the_help_lists_are_those_of_the_page(person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        page.keyboard.press("?")
        page.wait_for_selector("#keys[open]")
        listed = [each.inner_text() for each in page.query_selector_all("#keys dt")]
        assert sorted(listed) == sorted([*"jkxofgeamn/?", "Ctrl+K"])


def visited(page: Any) -> Iterator[str]:
    """Go to every kind of page, with what people see on it."""
    yield "cases"
    if page.viewport_size == WIDE:
        page.keyboard.press("j")
        page.wait_for_selector("#preview #detail")
        yield "inbox"
    page.goto(page.get_attribute("#queue .row", "data-page"))
    yield "case"
    page.goto("/console/alerts?filter=customer+%3D+c18")
    page.goto(page.get_attribute("#queue .row", "data-page"))
    yield "alert"
    page.goto("/console/alerts")
    yield "alerts"
    page.goto("/console/nothing")
    yield "missing"
    page.goto("/console/sign-in")
    yield "sign-in"


@pytest.mark.parametrize("theme", THEMES)
def test_no_page_has_a_serious_fault_of_accessibility(theme: str, person: People, tmp_path: Path) -> None:
    for size, name in ((WIDE, "wide"), (PHONE, "phone")):
        with person(theme=theme, size=size) as page:
            for kind in visited(page):
                check_looks(page, f"{kind} {name}")
                file = f"{kind}-{name}-{theme}.png"
                picture(page, tmp_path / file, OF_DOCS.get(file))


def test_text_from_outside_does_nothing(house: House, person: People) -> None:
    entities, reason = [("customer", HOSTILE), ("terminal", HOSTILE)], {"name": "a", "contribution": 1.0}
    one_more_alert(
        house.settings, SPEC, transaction_id=HOSTILE, entities=entities, rationale=HOSTILE, rules=[HOSTILE],
        reasons=[{**reason, "text": HOSTILE}],
    )  # fmt: skip
    with person() as page:
        page.goto("/console/alerts")
        page.wait_for_selector("#queue .row >> text=window.hurt")
        page.keyboard.press("j")
        page.wait_for_selector("#preview #detail")
        page.keyboard.press("o")
        page.wait_for_url("**/console/alerts/*")
        shown = page.inner_text("#detail")
        assert r"\u202egro.live\u202c\x1b[31m{{7*7}}" in shown
        assert not re.search("[\u202a-\u202e\x1b]", shown)
        page.keyboard.press("c")
        page.wait_for_url("**/console/cases/*")
        page.keyboard.press("m")
        page.fill("#ask-text", HOSTILE.replace("\x1b", ""))
        page.keyboard.press("Enter")
        page.wait_for_selector(".timeline .said >> text=window.hurt")
        assert page.query_selector("#detail script, #detail img") is None


def test_a_server_that_is_away_is_said_and_nothing_is_lost(person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        page.context.set_offline(True)
        page.keyboard.press("n")
        said(page, "The server cannot be reached")
        assert page.query_selector("#queue .row") is not None
        page.context.set_offline(False)
        wait_until(lambda: page.evaluate("fetch('/livez').then((a) => a.ok)"), 20, "the server to be back")


def test_nothing_can_be_decided_that_is_not_shown(house: House, person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        held = list[Any]()

        def hold(route: Any) -> None:  # the driver counts its arguments
            held.append(route)

        page.route(re.compile("/console/cases/[0-9a-f]{16}"), hold)
        page.keyboard.press("j")
        wait_until(lambda: page.evaluate("1") and held != [], 20, "the page of the next case to be asked for")
        assert page.query_selector("#preview #detail") is None
        before = len(house.rows("case_events"))
        page.keyboard.press("g")
        held[0].continue_()
        page.wait_for_selector("#preview #detail")
        assert len(house.rows("case_events")) == before
        assert case_of(page) == page.get_attribute("#queue .row[data-chosen]", "data-id")


def test_a_key_that_is_held_decides_one_case(house: House, person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        case = case_of(page)
        before = closings(house)
        for _ in range(20):
            page.keyboard.down("g")
        page.keyboard.up("g")
        said(page, f"Case {case[:8]} closed as genuine")
        page.wait_for_selector(f"#detail:not([data-case='{case}'])")
    assert closings(house) == before + 1


def closings(house: House) -> int:
    """How often a case was closed."""
    return sum(row["event"] == "closed" for row in house.rows("case_events"))


def test_what_somebody_reads_stays_though_another_person_closes_it(person: People) -> None:
    with person() as anna, person("bert") as bert:
        anna.goto("/console/cases?assignee=-")
        anna.keyboard.press("j")
        anna.wait_for_selector("#detail")
        case = case_of(anna)
        bert.goto(f"/console/cases/{case}")
        bert.keyboard.press("g")
        bert.wait_for_url(lambda url: case not in url)
        anna.evaluate("refresh()")
        anna.wait_for_selector(f"#queue [data-id='{case}']", state="detached")
        assert case_of(anna) == case
        assert "closed" in anna.text_content("#detail .head")
        anna.keyboard.press("j")
        anna.wait_for_selector(f"#detail:not([data-case='{case}'])")
        assert anna.get_attribute("#queue .row:first-child", "data-chosen") == ""


def test_an_order_whose_answer_was_lost_is_done_once(house: House, person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        case, keys = case_of(page), list[str]()

        def lose(route: Any) -> None:
            keys.append(route.request.headers["idempotency-key"])
            if len(keys) == 1:
                route.fetch()  # the server does it
                route.abort()
            else:
                route.continue_()

        page.route("**/v1/cases/*/comment*", lose)
        page.keyboard.press("m")
        page.fill("#ask-text", "said once")
        page.keyboard.press("Enter")
        page.wait_for_selector(".timeline .said >> text=said once")
    assert len(keys) == 2
    assert len(set(keys)) == 1
    comments = [row for row in house.rows("case_events") if row["text"] == "said once"]
    assert [row["case_id"] for row in comments] == [case]


def test_the_palette_offers_what_the_page_can_do_and_leads_to_ids(person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        case = case_of(page)
        page.keyboard.press("x")
        page.keyboard.press("Control+k")
        offered = page.inner_text("#palette-list")
        for words in (
            "Fraud: all selected",
            "Assign: all selected",
            "Merge it into another case",
            "Go to Alerts",
        ):
            assert words in offered
        check_looks(page, "palette")
        page.fill("#palette-text", "comm")
        page.keyboard.press("Enter")
        page.fill("#ask-text", "by the palette")
        page.keyboard.press("Enter")
        page.wait_for_selector(".timeline .said >> text=by the palette")
        page.keyboard.press("Control+k")
        page.fill("#palette-text", case)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/console/cases/{case}")
        page.keyboard.press("Control+k")
        page.fill("#palette-text", "go to alerts")
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/alerts")


def test_a_list_is_saved_in_the_browser_and_forgotten(person: People) -> None:
    with person() as page:
        page.goto("/console/cases?assignee=-&severity=high")
        page.click("[data-do=save-list]")
        page.fill("#ask-text", HOSTILE.replace("\x1b", ""))
        page.keyboard.press("Enter")
        page.goto("/console/alerts")
        page.click("#presets a")
        page.wait_for_url("**/console/cases?assignee=-&severity=high")
        page.click("#presets button")
        page.wait_for_selector("#presets", state="hidden")
        assert page.evaluate("presets()") == []


def test_a_file_is_attached_and_a_case_becomes_part_of_another(house: House, person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        into = case_of(page)
        with page.expect_file_chooser() as chosen:
            page.click("[data-do=attach]")
        chosen.value.set_files({"name": "note.txt", "mimeType": "text/html", "buffer": b"<script>1</script>"})
        page.wait_for_selector(".timeline a >> text=note.txt")
        with page.expect_download() as kept:
            page.click(".timeline a >> text=note.txt")
        assert Path(kept.value.path()).read_bytes() == b"<script>1</script>"
        assert kept.value.suggested_filename == "note.txt"
        page.keyboard.press("j")
        page.wait_for_selector(f"#detail:not([data-case='{into}'])")
        other = case_of(page)
        page.click("[data-do=merge]")
        page.fill("#ask-text", f"{house.address}/console/cases/{into}")
        page.keyboard.press("Enter")
        said(page, f"Case {other[:8]} is part of case {into[:8]}")
        page.keyboard.press("z")
        said(page, "taken back")


def orders_of(page: Any, meant: int = 480) -> list[dict[str, Any]]:
    """Keep mass orders, of so many cases, from the server, and return them as they come."""
    orders = list[dict[str, Any]]()

    def answer(route: Any) -> None:
        orders.append(route.request.post_data_json)
        route.fulfill(json={"meant": meant, "changed": meant, "refused": {}})

    page.route("**/v1/cases/mass*", answer)
    return orders


def test_a_held_enter_answers_no_question(person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.keyboard.press("x")
        orders = orders_of(page)
        page.focus("#bulk [data-reason=fraud]")
        for _ in range(10):
            page.keyboard.down("Enter")
        page.keyboard.up("Enter")
        page.wait_for_selector("#ask[open]")
        page.keyboard.press("Enter")
        assert page.query_selector("#ask[open]") is not None, "what cannot be taken back takes a reason"
        page.keyboard.press("Escape")
        wait_until(lambda: page.evaluate("!busy"), 20, "the page to be done")
        assert orders == []


def test_a_list_that_has_become_another_is_not_changed_as_a_whole(person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.keyboard.press("x")
        orders = orders_of(page)
        page.evaluate("select(() => true, true)")
        page.click("#bulk [data-act=release]")
        said(page, "By now this list has 480 cases")
        assert [order["dry_run"] for order in orders] == [True]


def test_more_cases_than_are_changed_at_once_are_said_to_be_too_many(person: People) -> None:
    with person() as page:
        page.keyboard.press("j")
        page.keyboard.press("x")
        orders = orders_of(page, 12_000)
        page.evaluate("document.querySelector('#bulk').dataset.total = 12000; select(() => true, true)")
        page.click("#bulk [data-act=release]")
        said(page, "10,000 cases at most are changed at once, and these are 12,000")
        assert [order["dry_run"] for order in orders] == [True]


def test_boxes_that_a_browser_brings_back_select_nothing(person: People) -> None:
    with person() as page:
        page.check("#queue .row input >> nth=0")
        page.wait_for_selector("#bulk:not([hidden])")
        page.goto("/console/alerts")
        page.go_back()
        page.wait_for_selector("#queue .row")
        assert page.evaluate("[marked().length, $('#bulk').hidden]") == [0, True]


def test_what_was_done_stays_said_though_the_page_cannot_be_renewed(person: People) -> None:
    with person() as page:
        page.goto("/console/cases?assignee=-")
        page.keyboard.press("j")
        page.wait_for_selector("#detail")
        case = case_of(page)
        page.route("**/console/cases?*", lambda route: route.abort())
        page.keyboard.press("a")
        page.keyboard.press("Enter")
        said(page, "The page could not be renewed")
        assert f"Case {case[:8]} assigned" in page.inner_text("#toast")
        page.unroute("**/console/cases?*")
        page.keyboard.press("z")
        said(page, "taken back")


def test_what_is_decided_is_on_the_screen(person: People) -> None:
    with person() as page:
        for _ in range(min(25, len(page.query_selector_all("#queue .row")))):
            page.keyboard.press("j")
        page.wait_for_selector("#detail")
        page.keyboard.press("x")
        for part in ("#detail h1", "#detail [data-key=g]", "#bulk [data-key=g]"):
            box = page.locator(part).bounding_box()
            assert box["y"] >= 0, part
            assert box["y"] + box["height"] <= WIDE["height"], part


def test_several_alerts_are_labelled_after_a_question_and_otherwise_at_once(
    house: House, person: People
) -> None:
    with person() as page:
        page.goto("/console/alerts?filter=label+%3D+none&order=oldest")
        ids = [each.get_attribute("data-transaction") for each in page.query_selector_all("#queue .row")][:3]
        for _ in ids:
            page.keyboard.press("j")
            page.keyboard.press("x")
        page.keyboard.press("f")
        page.wait_for_selector("#ask[open]")
        page.click("#ask .primary")
        said(page, "3 labelled fraud")
        page.keyboard.press("z")
        said(page, "3 labelled genuine")
    rows = sorted(house.rows("labels"), key=lambda row: row["label_sequence"])
    assert {each: [row["is_fraud"] for row in rows if row["transaction_id"] == each] for each in ids} == {
        each: [True, False] for each in ids
    }
