"""The quarantine's pages show what waits as the API has it, page by page, and any bytes as what they are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from html import unescape
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.triage.untrusted_text import shows
from schemas.errors import StoreError
from streaming.console import quarantine_pages
from streaming.console.record_bytes import shown_bytes
from streaming.home.placed_agent import PlacedAgent
from streaming.serve import waiting_records
from streaming.serve.paced_work import StillReadingError
from streaming.serve.waiting_records import WaitingRecords
from streaming.testing.api import ApiClient
from streaming.testing.live_lake import agent
from streaming.testing.trial import Trial, trial
from tests.browser_session import HOSTILE, Texts, console_of, ok, sign_in

SENT = [b"{not json", b'{"tx_id": "t1"}', b"\xff\x00binary\x80" * 9, HOSTILE.encode(), b"", b"{also not"]
PATH = "/console/quarantine"


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with trial(tmp_path_factory.mktemp("quarantine"), agent()) as found:
        found.send(SENT)
        yield found


@pytest.fixture(scope="module")
def client(tried: Trial) -> Iterator[ApiClient]:
    with console_of(tried.settings, tried.spec) as asked:
        asked.headers.update(sign_in(asked, tried.spec, "operate"))
        yield asked


def listed(client: ApiClient, **query: Any) -> dict[str, Any]:
    answer = client.get("/v1/quarantine", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def places(shown: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'data-id="([^"]+)"', shown)]


def test_what_waits_is_the_api_s_page_by_page(client: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [f"{each['topic']}/{each['partition']}/{each['offset']}" for each in listed(client)["records"]]
    assert len(every) == len(SENT)
    assert places(ok(client, PATH)) == every
    monkeypatch.setattr(quarantine_pages, "_ROWS", 2)
    found, address = list[str](), PATH
    while True:
        shown = ok(client, address)
        found += places(shown)
        following = re.search(r'<a class="button" href="([^"]+)">Next page', shown)
        if following is None:
            break
        address = unescape(following[1])
    assert found == every


def test_many_who_look_share_one_reading_until_something_changes(
    tried: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()
    real = waiting_records.waiting

    def counted(*words: Any, **more: Any) -> Any:
        read.append(1)
        return real(*words, **more)

    monkeypatch.setattr(waiting_records, "waiting", counted)
    shared = WaitingRecords(PlacedAgent(tried.settings, tried.spec))
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: shared.in_page_order(), range(20)))
    assert (len(read), found[0].height) == (1, len(SENT))
    assert all(each is found[0] for each in found)
    log = PlacedAgent(tried.settings, tried.spec).lake / tried.spec.tables.quarantine / "_delta_log"
    os.utime(log.path)
    assert shared.in_page_order() is not found[0]
    assert len(read) == 2


def test_who_would_wait_long_for_another_is_told_to_ask_again(
    tried: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, began, go_on = WaitingRecords(PlacedAgent(tried.settings, tried.spec)), Event(), Event()

    def stuck(*_: Any, **__: Any) -> Any:
        began.set()
        assert go_on.wait(60)
        raise StoreError("away")

    monkeypatch.setattr(waiting_records, "waiting", stuck)
    monkeypatch.setattr(waiting_records, "LONGEST_WAIT_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shared.in_page_order)
        assert began.wait(60)
        with pytest.raises(StillReadingError):
            shared.in_page_order()
        go_on.set()
        assert isinstance(first.exception(60), StoreError)


def test_a_facet_has_what_it_counts(client: ApiClient) -> None:
    meant = listed(client)
    shown = ok(client, PATH)
    aside = shown[shown.index("<aside") : shown.index("</aside>")]
    facets = re.findall(r'href="([^"]+)"[^>]*>.*?</a><span class="faint number">(\d+)</span>', aside, re.S)
    assert len(facets) == len(meant["by_reason"]) + len(meant["by_topic"])
    assert sum(meant["by_topic"].values()) == meant["total"]
    for href, count in facets:
        assert f"<title>{count} in quarantine" in ok(client, unescape(href))


def test_times_choose_what_arrived_then(client: ApiClient) -> None:
    arrived = sorted(each["arrived"] for each in listed(client)["records"])
    for query in ({"since": arrived[0]}, {"until": arrived[-1]}, {"until": arrived[0]}):
        meant = listed(client, **query)
        assert f"<title>{meant['total']} in quarantine" in ok(client, PATH, **query)
    assert listed(client, until=arrived[0])["total"] < len(SENT)
    nothing = ok(client, PATH, since="2999-01-01T00:00")
    assert "Nothing that waits is like this." in nothing
    assert 'data-do="requeue"' not in nothing
    for wrong, said in (("yesterday", "expected a time"), ("9999-12-31T23:59:59-05:00", "no year in UTC")):
        refused = client.get(PATH, params={"since": wrong})
        assert refused.status_code == 400
        assert said in refused.text


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.timezones()))
def test_the_form_sends_the_moment_again_that_was_asked_for(moment: datetime) -> None:
    """Sent twice and more, it stays the same one; a field of a form has no zone and is read as UTC.

    Browsers leave a field empty whose seconds have more than three places.
    """
    moment = moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
    asked = moment.isoformat()
    for _ in range(2):
        asked = quarantine_pages._field(asked)
        found = quarantine_pages._moment(asked, "since")
        assert found == moment.astimezone(UTC)
        assert not asked.endswith("Z") and "+" not in asked
        assert len(asked.partition(".")[2]) == len("123")


def test_a_time_with_a_zone_is_the_same_moment(client: ApiClient) -> None:
    arrived = datetime.fromisoformat(max(each["arrived"] for each in listed(client)["records"]))
    for zone in (timezone(timedelta(hours=5)), timezone(-timedelta(hours=7)), UTC):
        moment = arrived.astimezone(zone).isoformat()
        meant = sum(datetime.fromisoformat(each["arrived"]) >= arrived for each in listed(client)["records"])
        order = {"why": "dry run", "dry_run": True, "since": moment}
        trial_ = client.post("/v1/quarantine/requeue", json=order)
        assert (trial_.status_code, trial_.json()["records"]) == (200, meant), zone


def test_a_cursor_that_is_none_is_refused(client: ApiClient) -> None:
    for wrong in ("x", "1:2:3", "1:2:x:events", "\u0661:2:3:events"):
        assert client.get("/v1/quarantine", params={"after": wrong}).status_code == 400
        assert client.get(PATH, params={"after": wrong}).status_code == 400


def test_a_record_shows_its_bytes_and_why_it_was_rejected(client: ApiClient) -> None:
    for each in listed(client)["records"]:
        place = f"{each['topic']}/{each['partition']}/{each['offset']}"
        sent = SENT[each["offset"]]
        shown = ok(client, f"{PATH}/records/{place}")
        text = "".join(Texts(shown).texts)
        assert each["reason"].replace("_", " ") in text
        assert f"{len(sent)} bytes" in text
        if sent.startswith(b"\xff"):
            assert sent[:16].hex(" ") in text
        elif sent != HOSTILE.encode():
            assert sent.decode() in text
        assert Texts(shown).foreign == []
        assert all(shows(one) or one == "\n" for one in text)
        preview = ok(client, PATH, selected=place)
        article = re.compile(r'<article id="detail".*?</article>', re.S)
        assert article.findall(preview) == article.findall(shown) != []


def test_what_is_not_there_is_said(client: ApiClient) -> None:
    for path in ("records/events/0/99", "records/events/x/0", "records/events/0/99999999999999999999"):
        assert client.get(f"{PATH}/{path}").status_code == 404, path
    assert "Nothing of this place was rejected" in ok(client, PATH, selected="events/0/99")
    assert "Nothing of this place was rejected" in ok(client, PATH, selected="nonsense")


def test_a_button_asks_for_what_the_list_chooses_and_how_it_ended_is_shown(client: ApiClient) -> None:
    reason = listed(client)["records"][0]["reason"]
    for query in ({}, {"reason": reason}, {"topic": "events"}, {"since": "2000-01-01T00:00"}):
        shown = ok(client, PATH, **query)
        (given_order,) = re.findall(r'data-key="r" data-order="([^"]+)"', shown)
        order = json.loads(unescape(given_order))
        body = {**order, "why": "dry run", "dry_run": True}
        trial_ = client.post("/v1/quarantine/requeue", json=body).json()
        assert f"<title>{trial_['records']} in quarantine" in shown
    assert "Nobody has asked for records yet" in ok(client, f"{PATH}/requests")
    wrong = client.post("/v1/quarantine/requeue", json={**body, "dry_run": False, "expect": 99})
    assert wrong.status_code == 409
    asked = client.post(
        "/v1/quarantine/requeue",
        json={**order, "why": "sender mended", "expect": trial_["records"]},
    )
    assert asked.status_code == 200, asked.text
    for path in (PATH, f"{PATH}/requests"):
        shown = ok(client, path)
        for word in (asked.json()["request"], "sender mended", "token:anna", "waiting"):
            assert word in shown
    assert "data-poll" in shown


def test_who_may_only_triage_is_offered_no_requeue(client: ApiClient, tried: Trial) -> None:
    kept = dict(client.cookies)
    try:
        sign_in(client, tried.spec, "triage", name="bert")
        for path in (PATH, f"{PATH}/records/events/0/0"):
            shown = ok(client, path)
            assert 'data-do="requeue"' not in shown
            assert "flagstream token create --spec … --name … --scope triage --scope operate" in shown
    finally:
        client.cookies.clear()
        client.cookies.update(kept)


@given(st.binary(max_size=5_000))
def test_bytes_are_shown_whole_or_say_how_much_follows(content: bytes) -> None:
    found = shown_bytes(content)
    assert found is not None
    assert found.size == len(content)
    if found.text is not None:
        assert (found.text.encode(), found.more) == (content, 0)
    else:
        shown = bytes.fromhex(" ".join(each for _, each, _ in found.rows))
        assert shown == content[: len(shown)]
        assert found.more == len(content) - len(shown)
