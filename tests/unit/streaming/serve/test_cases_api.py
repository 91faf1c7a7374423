"""Cases over HTTP: nothing is lost between two people, nobody is two, and words from outside stay words."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from schemas.errors import RetryableError, StoreError
from schemas.tables import AUDIT
from streaming.audit import case_notes
from streaming.cases.case_store import CaseStore
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.serve import paced_work
from streaming.serve.served_cases import ServedCases
from streaming.testing.api import ApiClient, api_of
from streaming.tokens.bearer import draw
from streaming.tokens.token_table import TokenTable
from tests.unit.streaming.cases.case_samples import Desk, alert_row

CASES = "/v1/cases"
NOWHERE = f"{CASES}/{'0' * 16}"
HOSTILE = (
    '<script>alert(1)</script> \u202egro.live\u202c \x1b[31m\0 "; DROP TABLE cases; -- {{7*7}} \r\nX-A: b'
)
TWO = {"cases": {"second_person": ["fraud"]}}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Three customers with alerts: c0 with two, one of them critical. Fraud takes two people."""
    found = Desk(tmp_path, TWO)
    found.alert(*(alert_row(n, f"c{n % 3}", n, severity="critical" if n == 3 else "high") for n in range(4)))
    return found


@pytest.fixture
def client(desk: Desk) -> Iterator[ApiClient]:
    with api_of(desk.settings, desk.spec) as asked:
        asked.headers.update(asked.bearer(desk.spec, "triage", name="anna"))
        yield asked


@pytest.fixture
def bert(desk: Desk, client: ApiClient) -> dict[str, str]:
    return client.bearer(desk.spec, "triage", name="bert")


class Curl(NamedTuple):
    """A request of a page: what a shell makes of it."""

    path: str
    headers: set[str]
    body: Any


def curls() -> list[Curl]:
    """The POSTs of docs/api.md, in order."""
    page = (Path(__file__).parents[4] / "docs" / "api.md").read_text(encoding="utf-8")
    lines = page.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("curl ")]
    posts = [words for words in commands if {"-d", "POST"} & set(words)]
    return [
        Curl(
            urlsplit(words[-1]).path,
            {after.partition(":")[0] for before, after in pairwise(words) if before == "-H"},
            next((json.loads(after) for before, after in pairwise(words) if before == "-d"), None),
        )
        for words in posts
    ]


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    return found


def first(client: ApiClient, **query: Any) -> dict[str, Any]:
    """The most urgent case of a filter."""
    found: dict[str, Any] = ok(client.get(CASES, params=query))["cases"][0]
    return found


def of(case: dict[str, Any], action: str = "") -> str:
    return f"{CASES}/{case['case_id']}" + (f"/{action}" if action else "")


def seen(case: dict[str, Any]) -> dict[str, str]:
    return {"If-Match": f'"{case["version"]}"'}


def do(client: ApiClient, case: dict[str, Any], action: str, **more: Any) -> dict[str, Any]:
    """Do something to a case as it is, and return what has become of it; its ETag says its version."""
    more = {"json": {}, **more, "headers": {**seen(case), **more.get("headers", {})}}
    answer = client.post(of(case, action), **more)
    found: dict[str, Any] = ok(answer)
    assert answer.headers["etag"] == f'"{found["version"]}"'
    return found


def written(desk: Desk) -> list[dict[str, Any]]:
    """All events of cases, as the table has them."""
    rows = read_stored(desk.settings.lake("tester") / "case_events")
    return [] if rows is None else rows.to_pylist()


def test_a_list_is_what_the_book_says_page_by_page(desk: Desk, client: ApiClient) -> None:
    page = ok(client.get(CASES, params={"limit": 2}))
    rest = ok(client.get(CASES, params={"limit": 2, "after": page["after"]}))
    assert [each["entity_id"] for each in page["cases"] + rest["cases"]] == ["c0", "c1", "c2"]
    assert (page["total"], rest["after"]) == (3, None)
    assert page["facets"]["status"] == {"open": 3}
    assert page["facets"] == desk.grouped().page().facets
    assert {each["case_id"] for each in page["cases"] + rest["cases"]} == {
        each.case_id for each in desk.grouped().page().cases
    }


def test_a_place_in_one_filter_is_none_in_another(client: ApiClient) -> None:
    after = ok(client.get(CASES, params={"limit": 1}))["after"]
    for query in ({"severity": "high"}, {"status": "closed"}, {"assignee": "-"}, {"entity": "customer=c1"}):
        said = refused(client.get(CASES, params={**query, "after": after}), 400)
        assert said["where"] == "after"
    refused(client.get(CASES, params={"after": HOSTILE}), 400)


def test_each_word_of_a_filter_chooses(client: ApiClient) -> None:
    mine = ok(client.post(f"{CASES}/claim-next"))
    expected = {
        "severity=critical": 1, "severity=critical&severity=high": 3, "assignee=-": 2,
        f"assignee={mine['assignee']}": 1, "entity=customer%3Dc1": 1, "kind=entity": 3, "kind=incident": 0,
        "overdue=true": 3, "overdue=false": 0, "status=closed": 0, "rule=large": 0,
    }  # fmt: skip
    assert {query: ok(client.get(f"{CASES}?{query}"))["total"] for query in expected} == expected
    refused(client.get(CASES, params={"status": "gone"}), 422)
    refused(client.get(CASES, params={"entity": "c1"}), 400)


def test_one_case_is_shown_with_its_newest_alerts_and_its_history(client: ApiClient) -> None:
    case = do(client, first(client), "comment", json={"text": "called them"})
    answer = client.get(of(case))
    found = ok(answer)
    assert found["case"] == case
    assert answer.headers["etag"] == f'"{case["version"]}"'
    assert [each["transaction_id"] for each in found["alerts"]] == ["t3", "t0"]
    assert [each["event"] for each in found["timeline"]] == ["opened", "alerted", "alerted", "commented"]
    assert (found["timeline"][-1]["who"], found["timeline"][-1]["text"]) == ("token:anna", "called them")
    assert len(ok(client.get(of(case), params={"limit": 1}))["alerts"]) == 1
    refused(client.get(NOWHERE), 404)


def test_every_action_is_done_under_the_name_of_the_token(
    desk: Desk, client: ApiClient, bert: dict[str, str]
) -> None:
    one, other, _ = ok(client.get(CASES))["cases"]
    one = do(client, one, "claim")
    assert one["assignee"] == "token:anna"
    assert do(client, one, "release")["assignee"] is None
    one = do(client, first(client), "assign", json={"to": "token:bert", "text": "yours"})
    assert (one["assignee"], one["leased_until"]) == ("token:bert", None)
    one = do(client, one, "escalate", json={"text": "three accounts"})
    assert one["level"] == 1
    one = do(client, one, "undo")
    assert (one["level"], one["last_move"]) == (0, "assigned")
    merged = do(client, other, "merge", json={"into": one["case_id"]})
    assert (merged["status"], merged["merged_into"]) == ("merged", one["case_id"])
    assert ok(client.get(of(one)))["case"]["alerts"] == one["alerts"] + other["alerts"]
    assert do(client, merged, "undo")["status"] == "open"
    one = ok(client.get(of(one)))["case"]
    one = do(client, one, "close", json={"reason": "other", "text": "spoke to them"}, headers=bert)
    assert (one["status"], one["closed_by"], one["labels"]) == ("closed", "token:bert", None)
    assert do(client, one, "reopen", json={"text": "a chargeback came"})["status"] == "open"
    people = {each["who"] for each in written(desk) if each["who"] is not None}
    assert people == {"token:anna", "token:bert"}


def test_lists_and_mass_updates_choose_cases_by_level(client: ApiClient) -> None:
    one = do(client, first(client), "escalate", json={})
    found = ok(client.get(CASES, params={"level": 1}))
    assert [each["case_id"] for each in found["cases"]] == [one["case_id"]]
    order = {"do": "escalate", "where": {"level": 1}, "dry_run": True}
    assert ok(client.post(f"{CASES}/mass", json=order))["changed"] == 1
    assert client.get(CASES, params={"level": -1}).status_code == 422


def test_the_next_case_has_an_etag_to_go_on_with(client: ApiClient) -> None:
    answer = client.post(f"{CASES}/claim-next")
    headers = {"If-Match": answer.headers["etag"]}
    assert answer.headers["etag"] == f'"{ok(answer)["version"]}"'
    assert ok(client.post(of(ok(answer), "escalate"), json={}, headers=headers))["level"] == 1
    while ok(answer) is not None:
        answer = client.post(f"{CASES}/claim-next")
    assert "etag" not in answer.headers


def test_the_page_s_requests_work_as_they_are_written(client: ApiClient) -> None:
    label, claim, close = curls()
    assert ok(client.post(label.path, json=label.body)) == {"stored": 1, "repeated": 0, "rejects": []}
    taken = client.post(claim.path)
    path = close.path.replace(close.path.split("/")[3], ok(taken)["case_id"])
    assert {"Content-Type", "If-Match"} <= close.headers
    closed = ok(client.post(path, json=close.body, headers={"If-Match": taken.headers["etag"]}))
    assert (closed["status"], closed["reason"]) == ("closed", "genuine")


def test_two_people_never_get_one_case(client: ApiClient, bert: dict[str, str]) -> None:
    mine, his = ok(client.post(f"{CASES}/claim-next")), ok(client.post(f"{CASES}/claim-next", headers=bert))
    assert mine["case_id"] != his["case_id"]
    assert "token:anna has it" in refused(client.post(of(mine, "claim"), headers=bert), 409)["detail"]
    taken = ok(client.post(f"{CASES}/claim-next", json={"severity": ["high"]}))
    assert taken["case_id"] not in (mine["case_id"], his["case_id"])
    assert ok(client.post(f"{CASES}/claim-next")) is None


def test_of_two_that_have_seen_one_version_one_is_first(client: ApiClient, bert: dict[str, str]) -> None:
    case = first(client)
    ends: list[tuple[str, Any]] = []
    both = Barrier(2)

    def assign(to: str, headers: dict[str, str]) -> None:
        both.wait()
        headers = {**headers, **seen(case)}
        ends.append((to, client.post(of(case, "assign"), json={"to": to}, headers=headers)))

    people = {"token:anna": {}, "token:bert": bert}
    threads = [Thread(target=assign, args=each) for each in people.items()]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    (winner, won), (_, lost) = sorted(ends, key=lambda each: each[1].status_code)
    assert ok(won)["assignee"] == winner
    assert "has changed since" in refused(lost, 412)["detail"]
    assert ok(client.get(of(case)))["case"]["assignee"] == winner


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("assign", {"to": "token:bert"}), ("escalate", {}), ("close", {"reason": "other"}), ("reopen", {}),
        ("merge", {"into": "0" * 16}), ("undo", {}),
    ],
)  # fmt: skip
def test_what_may_lose_an_update_says_which_version_it_has_seen(
    desk: Desk, client: ApiClient, action: str, body: dict[str, Any]
) -> None:
    one, other, _ = ok(client.get(CASES))["cases"]
    if action == "merge":
        body = {"into": other["case_id"]}
    ok(client.post(of(one, "comment"), json={"text": "news"}))
    before = len(written(desk))
    refused(client.post(of(one, action), json=body), 428)
    refused(client.post(of(one, action), json=body, headers=seen(one)), 412)
    for odd in ("*", "1", 'W/"1"', '"x"', HOSTILE.encode().hex()):
        refused(client.post(of(one, action), json=body, headers={"If-Match": odd}), 422)
    assert len(written(desk)) == before


def test_an_alert_that_has_come_since_is_seen_before_a_case_is_closed(
    desk: Desk, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paced_work, "rest_after", lambda *_: -1.0)
    case = first(client)
    desk.alert(alert_row(9, "c0", 9))
    refused(client.post(of(case, "close"), json={"reason": "genuine"}, headers=seen(case)), 412)
    assert read_stored(desk.settings.lake("tester") / "labels") is None


def rotated(desk: Desk, client: ApiClient) -> dict[str, str]:
    """Another token of whom the client is, beside the first."""
    drawn, tokens = draw(), TokenTable(PlacedAgent(desk.settings, desk.spec))
    token_id = client.headers["Authorization"].split("_")[1]
    tokens.rotate(token_id, drawn, datetime.now(UTC) + timedelta(days=1), "tests")
    client.server.agents[desk.spec.name].tokens.refresh()
    return {"Authorization": f"Bearer {drawn.text.get_secret_value()}"}


def test_one_person_is_not_two_whatever_they_send(
    desk: Desk, client: ApiClient, bert: dict[str, str]
) -> None:
    asked = do(client, first(client), "close", json={"reason": "fraud", "kind": "stolen_card"})
    assert (asked["status"], asked["asked_by"]) == ("closing", "token:anna")
    again = rotated(desk, client)
    for headers in (dict[str, str](), again):
        sent = client.post(of(asked, "close"), json={"reason": "fraud"}, headers={**seen(asked), **headers})
        assert "somebody else must close it" in refused(sent, 409)["detail"]
        for who in ({"who": "token:bert"}, {"asked_by": "token:bert"}):
            body = {"reason": "fraud", **who}
            refused(client.post(of(asked, "close"), json=body, headers={**seen(asked), **headers}), 422)
        ignored = client.post(
            of(asked, "close"), json={"reason": "fraud"}, params={"who": "token:bert"},
            headers={**seen(asked), **headers},
        )  # fmt: skip
        refused(ignored, 409)
    assert read_stored(desk.settings.lake("tester") / "labels") is None
    closed = do(client, asked, "close", json={"reason": "fraud", "kind": "stolen_card"}, headers=bert)
    assert (closed["status"], closed["closed_by"], closed["labels"]) == ("closed", "token:bert", "written")
    labels = read_stored(desk.settings.lake("tester") / "labels")
    assert labels is not None
    assert {(each["is_fraud"], each["kind"], each["decided_by"]) for each in labels.to_pylist()} == {
        (True, "stolen_card", "token:bert")
    }
    refused(client.post(of(closed, "undo"), headers=seen(closed)), 409)


def test_who_may_read_may_write_nothing(desk: Desk, client: ApiClient) -> None:
    case = first(client)
    before, reader = len(written(desk)), client.bearer(desk.spec, "read", name="reader")
    operator = client.bearer(desk.spec, "operate", name="operator")
    actions = (
        "claim", "release", "comment", "attach", "assign", "escalate", "close", "reopen", "merge", "undo"
    )  # fmt: skip
    for path in (f"{CASES}/claim-next", f"{CASES}/mass", *(of(case, each) for each in actions)):
        for headers in (reader, operator):
            assert refused(client.post(path, json={}, headers=headers), 403)["missing_scope"] == "triage"
    assert ok(client.get(CASES, headers=reader))["total"] == 3
    assert ok(client.get(of(case), headers=reader))["case"] == case
    assert len(written(desk)) == before


def mass(client: ApiClient, **order: Any) -> Any:
    return client.post(f"{CASES}/mass", json={"do": "assign", "where": {}, **order})


def test_a_mass_update_changes_as_many_as_its_dry_run_has_said(desk: Desk, client: ApiClient) -> None:
    first(client)
    before = len(written(desk))
    meant: dict[str, Any] = {"to": "token:bert", "where": {"severity": ["high"]}}
    said = ok(mass(client, **meant, dry_run=True))
    assert said == {"meant": 2, "changed": 2, "refused": {}, "cases": []}
    refused(mass(client, **meant), 400)
    assert "2 cases would be changed" in refused(mass(client, **meant, expect=3), 409)["detail"]
    assert len(written(desk)) == before
    done = ok(mass(client, **meant, expect=2))
    assert (len(done["cases"]), {**done, "cases": []}) == (2, said)
    assert ok(client.get(CASES, params={"assignee": "token:bert"}))["total"] == 2
    refused(mass(client, expect=10_001), 422)
    refused(mass(client, do="merge", expect=1), 422)


def test_a_mass_update_of_named_cases_says_why_others_stay(client: ApiClient, bert: dict[str, str]) -> None:
    held, free, _ = ok(client.get(CASES))["cases"]
    ok(client.post(of(held, "claim"), headers=bert))
    where = {"cases": [held["case_id"], free["case_id"]]}
    done = ok(mass(client, do="close", reason="other", where=where, expect=1))
    assert done == {"meant": 2, "changed": 1, "refused": {"token:bert has it": 1}, "cases": [free["case_id"]]}
    assert ok(client.get(of(free)))["case"]["status"] == "closed"
    assert ok(mass(client, do="close", where={"cases": []}, dry_run=True))["meant"] == 0


def test_a_mass_update_means_the_cases_that_it_names_whatever_their_status(client: ApiClient) -> None:
    """Who selects closed cases opens them again, and who selects one that was closed since hears of it."""
    names = [each["case_id"] for each in ok(client.get(CASES))["cases"]]
    ok(mass(client, do="close", reason="other", where={"cases": names[:2]}, expect=2))
    again = ok(mass(client, do="close", reason="other", where={"cases": names}, expect=1))
    assert (again["cases"], again["refused"]) == (names[2:], {"it is closed": 2})
    assert ok(mass(client, do="reopen", where={"cases": names}, expect=3))["changed"] == 3
    assert ok(mass(client, do="reopen", where={"cases": names, "status": ["closed"]}, expect=0))["meant"] == 0


def test_a_write_that_is_sent_again_is_done_once_by_a_server_that_was_restarted(
    desk: Desk, client: ApiClient
) -> None:
    case = first(client)

    def comments(asked: ApiClient, text: str, key: str) -> Any:
        asked.server.agents[desk.spec.name].tokens.refresh()
        headers = {**client.headers, "Idempotency-Key": key}
        return ok(asked.post(of(case, "comment"), json={"text": text}, headers=headers))["comments"]

    assert [comments(client, "x", "k1") for _ in range(2)] == [1, 1]
    with api_of(desk.settings, desk.spec) as restarted:
        assert comments(restarted, "x", "k1") == 1
        assert comments(restarted, "y", "k2") == 2
    with api_of(desk.settings, desk.spec) as restarted:
        assert comments(restarted, "words that the key was not used for", "k1") == 3


def test_hostile_words_are_kept_and_given_back_as_they_are(client: ApiClient) -> None:
    case = do(client, first(client), "comment", json={"text": HOSTILE})
    case = do(client, case, "escalate", json={"text": HOSTILE})
    answer = client.get(of(case))
    assert [each["text"] for each in ok(answer)["timeline"][-2:]] == [HOSTILE, HOSTILE]
    assert answer.headers["content-type"] == "application/json"
    assert "x-a" not in answer.headers
    refused(client.post(of(case, "assign"), json={"to": HOSTILE}, headers=seen(case)), 400)
    refused(client.post(of(case, "close"), json={"reason": HOSTILE}, headers=seen(case)), 422)
    for query in ({"rule": HOSTILE}, {"assignee": HOSTILE}, {"entity": f"customer={HOSTILE}"}):
        assert ok(client.get(CASES, params=query))["total"] == 0
    for path in (f"{CASES}/..%2F..%2Fetc", f"{CASES}/{'Z' * 16}", f"{CASES}/x"):
        assert client.get(path).status_code in (404, 422)


def test_a_file_comes_back_byte_by_byte_and_runs_nowhere(client: ApiClient) -> None:
    content, name = b"<script>\0\xff", "../\u202e".replace("/", "") + "cod.html\r\nX-A: b"
    case = first(client)
    sent = client.post(of(case, "attach"), params={"name": name}, content=content)
    assert ok(sent)["attachments"] == 1
    told = ok(client.get(of(case)))["timeline"][-1]
    digest = hashlib.sha256(content).hexdigest()
    assert (told["name"], told["digest"], told["size"]) == (name, digest, len(content))
    got = client.get(of(case, f"attachments/{digest}"))
    assert (got.status_code, got.content) == (200, content)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == "attachment"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "x-a" not in got.headers
    refused(client.get(of(case, f"attachments/{'0' * 64}")), 404)
    for odd in ("a/b", "a\0b"):
        refused(client.post(of(case, "attach"), params={"name": odd}, content=content), 400)
    refused(client.post(of(case, "attach"), params={"name": "a"}), 400)
    refused(client.post(of(case, "attach"), params={"name": "a"}, content=b"x" * ((1 << 20) + 1)), 413)


def test_writes_are_on_record_one_by_one_and_reads_as_counts(desk: Desk, client: ApiClient) -> None:
    case = first(client)
    do(client, case, "comment", json={"text": HOSTILE})
    ok(mass(client, to="token:bert", dry_run=True))
    client.server.agents["tester"].trail.flush(whole=True)
    rows = read_stored(desk.settings.lake("tester") / "audit", list(AUDIT.names))
    assert rows is not None
    told = [str(each) for each in rows.to_pylist()]
    for command in ("api/list-cases", "api/comment-on-case", "api/update-cases"):
        assert any(command in each and "token:anna" in each for each in told), command
    assert not any("script" in each for each in told)


def test_whatever_is_done_to_a_case_is_on_record_with_the_case(desk: Desk, client: ApiClient) -> None:
    case, into = ok(client.get(CASES))["cases"][:2]
    orders: dict[str, dict[str, Any]] = {
        "claim": {}, "release": {}, "comment": {"text": "seen"}, "assign": {"to": "token:anna"},
        "escalate": {"text": "more"}, "undo": {}, "merge": {"into": into["case_id"]},
    }  # fmt: skip
    now = case
    for what, order in orders.items():
        now = do(client, now, what, json=order)
    claimed = ok(client.post(f"{CASES}/claim-next"))["case_id"]
    client.server.agents["tester"].trail.flush(whole=True)
    rows = read_stored(desk.settings.lake("tester") / "audit", ["number", "kind", "detail"])
    assert rows is not None
    told = rows.sort_by("number").to_pylist()
    actions = [json.loads(each["detail"]) for each in told if each["kind"] == "action"]
    named = [each["case"] for each in actions if "case" in each]
    assert named == [f"case-{case['case_id']}"] * len(orders) + [f"case-{claimed}"]
    assert [each["into"] for each in actions if "into" in each] == [f"case-{into['case_id']}"]


@pytest.mark.parametrize("fault", [StoreError("refused"), OSError("read-only")])
def test_where_nothing_can_be_written_the_cases_on_record_are_shown(
    desk: Desk, client: ApiClient, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    content = b"a file"
    ok(client.post(of(first(client), "attach"), params={"name": "a"}, content=content))
    cases, one = ok(client.get(CASES)), first(client)
    desk.alert(alert_row(9, "c9", 9))

    def refuse(*_: object, **__: object) -> int:
        raise fault

    monkeypatch.setattr(CaseStore, "write", refuse)
    with api_of(desk.settings, desk.spec) as other:
        other.headers.update(client.headers)
        assert ok(other.get(CASES))["cases"] == cases["cases"]
        assert ok(other.get(of(one)))["case"] == one
        file = other.get(f"{of(one)}/attachments/{hashlib.sha256(content).hexdigest()}")
        assert (file.status_code, file.content) == (200, content)
        assert other.post(of(one, "claim")).status_code in (500, 503)


def test_a_book_is_grouped_once_a_second_however_many_ask() -> None:
    now, grouped = [0.0], list[float]()

    class Book:
        def group(self) -> int:
            grouped.append(now[0])
            return 0

    book: Callable[..., Any] = Book
    cases = ServedCases(book(), lambda: now[0])
    for at in (0.0, 0.4, 1.0, 1.1, 1.2, 3.0):
        now[0] = at
        cases.grouped()
    assert grouped == [0.0, 1.0, 3.0]


def test_who_asks_while_cases_are_being_read_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_work, "LONGEST_WAIT_SECONDS", 0.01)
    begun, go_on = Event(), Event()

    class Book:
        def group(self) -> int:
            begun.set()
            assert go_on.wait(60)
            return 0

    book: Callable[..., Any] = Book
    cases = ServedCases(book())
    first_of_them = Thread(target=cases.grouped)
    first_of_them.start()
    try:
        assert begun.wait(60)
        with pytest.raises(RetryableError, match="ask again"):
            cases.grouped()
    finally:
        go_on.set()
        first_of_them.join(60)
    assert cases.grouped() is not None


def actions_on_record(desk: Desk, client: ApiClient) -> list[dict[str, Any]]:
    client.server.agents["tester"].trail.flush(whole=True)
    rows = read_stored(desk.settings.lake("tester") / "audit", ["number", "at", "kind", "detail"])
    assert rows is not None
    told = rows.sort_by("number").to_pylist()
    return [json.loads(each["detail"]) for each in told if each["kind"] == "action"]


def test_a_mass_update_names_each_case_in_the_audit_log(
    desk: Desk, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_notes, "MOST_CASES", 2)
    ids = sorted(each["case_id"] for each in ok(client.get(CASES))["cases"])
    assert len(ids) == 3
    done = ok(mass(client, do="close", reason="genuine", expect=3))
    assert sorted(done["cases"]) == ids
    assert ok(mass(client, do="close", reason="genuine", expect=0))["cases"] == []
    names = [f"case-{each}" for each in ids]
    rows = [each for each in actions_on_record(desk, client) if each["command"] == "api/update-cases"]
    digest = hashlib.sha256("".join(f"{each}\n" for each in names).encode()).hexdigest()
    assert [each["rows"] for each in rows] == [2, 1, 0]
    assert sorted([*rows[0]["cases"], *rows[1]["cases"]]) == names
    for each in rows[:2]:
        said = (each["actor"], each["action"], each["reason"], each["cases_in_all"], each["cases_digest"])
        assert said == ("token:anna", "close", "genuine", 3, digest)
    assert "cases" not in rows[2]


def test_an_undo_names_every_case_that_it_was_done_to(desk: Desk, client: ApiClient) -> None:
    ok(mass(client, to="token:bert", expect=3))
    case = first(client, assignee="token:bert")
    do(client, case, "undo", headers={"Idempotency-Key": "k1"})
    ids = sorted(f"case-{each['case_id']}" for each in ok(client.get(CASES))["cases"])
    (undone,) = [each for each in actions_on_record(desk, client) if each["command"] == "api/undo-on-case"]
    assert (sorted(undone["cases"]), undone["rows"]) == (ids, 3)
