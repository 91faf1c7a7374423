"""Pages show what the API answers; text from outside stays text; every address stands for itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.triage.untrusted_text import shows
from streaming.console import queue_pages, rendering
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.api import ApiClient
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import build_lake, spec_of
from tests.browser_session import HOSTILE, Texts, console_of, ok, one_more_alert, sign_in

SPEC = spec_of()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiClient]:
    home = Settings.load(tmp_path_factory.mktemp("lake") / "home", {})
    build_lake(PlacedAgent(home, SPEC))
    with console_of(home, SPEC) as asked:
        wait_until(lambda: asked.get("/readyz").status_code == 200, 60, "the alerts to be read")
        asked.headers.update(sign_in(asked, SPEC, "triage"))
        yield asked


def cases(client: ApiClient, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/cases", params=query).json()
    return found


def test_the_queue_of_cases_is_the_api_s(client: ApiClient) -> None:
    for query in (
        {},
        {"severity": "high"},
        {"assignee": "-"},
        {"entity": "customer=c18"},
        {"overdue": "true"},
    ):
        shown, meant = ok(client, "/console/cases", **query), cases(client, **query)
        ids = re.findall(r'data-id="([0-9a-f]{16})"', shown)
        assert ids == [each["case_id"] for each in meant["cases"]]
        assert f"<title>{meant['total']} case" in shown


def test_the_queue_of_alerts_is_the_api_s_page_by_page(client: ApiClient) -> None:
    for query in ({}, {"filter": "severity = critical"}, {"filter": "amount > 2300 or label = fraud"}):
        shown, meant = ok(client, "/console/alerts", **query), client.get("/v1/alerts", params=query).json()
        ids = re.findall(r'data-id="([0-9a-f]{32})"', shown)
        assert ids == [each["alert_id"] for each in meant["alerts"]]


def test_every_address_on_the_inbox_leads_somewhere_and_a_facet_has_what_it_counts(client: ApiClient) -> None:
    for path in ("/console/cases", "/console/alerts"):
        for text in ("", "(amount > 2300) or label = fraud") if path.endswith("alerts") else ("",):
            shown = ok(client, path, **({"filter": text} if text else {}))
            aside = shown[shown.index("<aside") : shown.index("</aside>")]
            found = re.findall(
                r'href="([^"]+)"[^>]*>.*?</a><span class="faint number">(\d*)</span>', aside, re.S
            )
            assert len(found) > 4
            for href, count in found:
                page = ok(client, unescape(href))
                if count:
                    assert re.search(rf"<title>{count} ", page), (href, count)


def test_a_condition_joins_a_filter_of_any_shape(client: ApiClient) -> None:
    for text in (
        "not (amount > 2300 and severity = critical and score > 0.5)",
        'transaction ~ " and " or amount > 1 and score > 0.1',
        'not transaction ~ " and " and amount > 1',
        "amount > 1 and (label = none or amount > 2 and score > 0.1)",
    ):
        shown = ok(client, "/console/alerts", filter=text)
        aside = shown[shown.index("<aside") : shown.index("</aside>")]
        for href in re.findall(r'href="([^"]+)"', aside):
            ok(client, unescape(href))


def test_a_row_stays_on_its_page_and_a_search_keeps_what_chose_the_list(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_pages, "_ROWS", 5)
    for path in ("/console/cases", "/console/alerts"):
        first = ok(client, path)
        (following,) = re.findall(r'<p><a class="button" href="([^"]+)">Next page', first)
        second = ok(client, unescape(following))
        ids = re.findall(r'data-id="([0-9a-f]+)"', second)
        row = re.findall(r'<a href="([^"]+selected=[^"]+)"', second)[0]
        chosen = ok(client, unescape(row))
        assert re.findall(r'data-id="([0-9a-f]+)"', chosen) == ids, path
        assert "data-chosen" in chosen
    searched = ok(client, "/console/cases", overdue="true", severity="high")
    form = searched[searched.index('<form class="search"') : searched.index("</form>")]
    for name, value in (("overdue", "true"), ("severity", "high")):
        assert f'<input type="hidden" name="{name}" value="{value}">' in form


def test_an_address_with_a_slash_at_its_end_is_the_inbox(client: ApiClient) -> None:
    answer = client.get("/console/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/cases")


def test_a_filter_that_cannot_be_used_is_explained_where_it_stands(client: ApiClient) -> None:
    for path, query in (
        ("/console/alerts", {"filter": "severty = high"}),
        ("/console/cases", {"entity": "c1"}),
    ):
        answer = client.get(path, params=query)
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
        assert next(iter(query.values())) in answer.text


def test_a_chosen_case_is_previewed_as_its_page_shows_it(client: ApiClient) -> None:
    case = cases(client)["cases"][0]["case_id"]
    article = re.compile(r'<article id="detail".*?</article>', re.S)
    preview = article.search(ok(client, "/console/cases", selected=case))
    page = article.search(ok(client, f"/console/cases/{case}"))
    assert preview is not None
    assert page is not None
    assert preview[0] == page[0]


def test_the_inbox_shows_how_far_a_case_was_escalated_and_lists_those_of_a_level(client: ApiClient) -> None:
    case = cases(client)["cases"][-1]
    assert "level=" not in ok(client, "/console/cases")
    answer = client.post(
        f"/v1/cases/{case['case_id']}/escalate", json={}, headers={"If-Match": f'"{case["version"]}"'}
    )
    assert answer.status_code == 200
    shown = ok(client, "/console/cases", level=1)
    assert re.findall(r'data-id="([0-9a-f]{16})"', shown) == [case["case_id"]]
    assert '<span class="tag high">level 1</span>' in shown
    assert """data-where='{"level": 1}'""" in shown
    assert '<input type="hidden" name="level" value="1">' in shown
    assert "level=0" in ok(client, "/console/cases")
    done = client.post(
        f"/v1/cases/{case['case_id']}/undo", headers={"If-Match": f'"{answer.json()["version"]}"'}
    )
    assert done.status_code == 200


def test_the_timeline_of_a_case_says_when_its_alerts_joined_and_when_they_were_raised(
    client: ApiClient,
) -> None:
    case = cases(client)["cases"][0]["case_id"]
    shown = ok(client, f"/console/cases/{case}")
    timeline = shown[shown.index('<ol class="timeline">') :]
    times = re.findall(r'<span class="faint nowrap">(.*?)</span>', timeline)
    assert len(times) > 1
    assert times == sorted(times, reverse=True)
    assert re.search("joined, raised", timeline)


def test_an_alert_shows_its_parts_its_payments_and_its_case(client: ApiClient) -> None:
    alert = client.get("/v1/alerts").json()["alerts"][0]["alert_id"]
    found = client.get(f"/v1/alerts/{alert}").json()
    shown = ok(client, f"/console/alerts/{alert}")
    texts = " ".join(Texts(shown).texts)
    for reason in found["alert"]["reasons"]:
        assert reason["text"] in texts
        assert f"{reason['contribution']:+.2f}" in texts
    assert shown.count('class="dot"') == len(found["history"])
    assert shown.count('class="marked"') == 1
    for other in client.get(f"/v1/alerts/{alert}/similar", params={"limit": 8}).json():
        assert f"/console/alerts/{other['alert_id']}" in shown
    (case,) = re.findall(r"/console/cases/([0-9a-f]{16})", shown)
    assert alert in ok(client, f"/console/cases/{case}")


def test_an_alert_shows_the_label_that_counts(client: ApiClient) -> None:
    """That is the latest decided: what a file brings later may have been decided before."""
    alert = client.get("/v1/alerts", params={"filter": "label = none"}).json()["alerts"][-1]
    steps = [(True, "2026-05-02", "fraud by chargebacks"), (False, "2026-05-01", "fraud by chargebacks")]
    for is_fraud, day, expected in [*steps, (False, "2026-05-02", "genuine by desk")]:
        who = "chargebacks" if is_fraud else "desk"
        label = {"transaction_id": alert["transaction_id"], "is_fraud": is_fraud, "decided_by": who}
        sent = {"labels": [{**label, "decided_at": f"{day}T00:00:00Z"}]}
        assert client.post("/v1/labels", json=sent).json()["stored"] == 1
        shown = ok(client, f"/console/alerts/{alert['alert_id']}")
        assert f"labelled {expected}" in shown, day


def test_what_is_not_there_is_said_on_a_page(client: ApiClient) -> None:
    for path in (
        f"/console/cases/{'0' * 16}",
        f"/console/alerts/{'0' * 32}",
        "/console/cases/x",
        "/console/cases?kind=x",
    ):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"].startswith("text/html")


def test_what_people_write_into_a_case_stays_text(client: ApiClient) -> None:
    case = cases(client)["cases"][-1]["case_id"]
    answer = client.post(f"/v1/cases/{case}/comment", json={"text": HOSTILE})
    assert answer.status_code == 200
    shown = ok(client, f"/console/cases/{case}")
    assert "<script>alert" not in shown
    texts = "".join(Texts(shown).texts)
    assert r"\u202egro.live\u202c \x1b[31m" in texts
    assert "{{7*7}}" in texts


@pytest.mark.long
def test_an_alert_with_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    home = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(home, SPEC))
    entities = {"entities": [("customer", HOSTILE), ("terminal", HOSTILE)]}
    reasons = [{"name": "amount", "contribution": 1.0, "text": HOSTILE}]
    alert_id = one_more_alert(
        home, SPEC, **entities, transaction_id=HOSTILE, rationale=HOSTILE, reasons=reasons, rules=[HOSTILE],
        evidence=[f"memo={HOSTILE}"],
    )  # fmt: skip
    with console_of(home, SPEC) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, 60, "the alerts to be read")
        sign_in(client, SPEC, "triage")
        shown = Texts(ok(client, f"/console/alerts/{alert_id}"))
        assert "".join(shown.texts).count("<script>alert(1)</script>") >= 6
        for path in ("/console/alerts", "/console/cases"):
            listed = Texts(ok(client, path))
            assert HOSTILE[:20] in "".join(listed.texts)
        for each in (shown, listed):
            assert each.foreign == []
            assert all(shows(character) or character == "\n" for character in "".join(each.texts))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_no_text_from_outside_becomes_a_tag_or_steers_the_page(text: str) -> None:
    template = rendering._PAGES.from_string('<p title="{{ text }}">{{ text }}</p>{{ text | outsider }}')
    shown = Texts(template.render(text=text))
    assert shown.tags == ["p", "bdi"]
    assert all(shows(each) or each == "\n" for each in "".join(shown.texts))


def test_who_may_only_read_is_offered_no_action(client: ApiClient) -> None:
    case = cases(client)["cases"][0]["case_id"]
    alert = client.get("/v1/alerts").json()["alerts"][0]["alert_id"]
    kept = dict(client.cookies)
    try:
        sign_in(client, SPEC, "read", name="reader")
        for path in (
            f"/console/cases/{case}",
            f"/console/alerts/{alert}",
            "/console/cases",
            "/console/alerts",
        ):
            shown = ok(client, path)
            for action in ("case", "label", "claim-next"):
                assert f'data-do="{action}"' not in shown, path
    finally:
        client.cookies.clear()
        client.cookies.update(kept)


def test_every_action_of_a_template_is_one_of_the_script() -> None:
    folder = Path(rendering.__file__).parent
    known = set[str]()
    for each in sorted((folder / "static").glob("*.js")):
        script = each.read_text(encoding="utf-8")
        known |= set(re.findall(r'^  "?([a-z-]+)"?(?:: |,)', script[script.index("actions") :], re.M))
        known |= set(re.findall(r"^actions\.([a-z]+) = ", script, re.M))
    used = set()
    for each in (folder / "templates").glob("*.html"):
        used |= set(re.findall(r'data-do="([a-z-]+)"', each.read_text(encoding="utf-8")))
    assert used
    assert used <= known


def test_the_table_of_keys_has_every_key_of_the_pages_and_no_other() -> None:
    folder = Path(rendering.__file__).parent
    keys = set[str]()
    for each in (folder / "templates").glob("*.html"):
        keys |= set(re.findall(r'data-key="([^"]+)"', each.read_text(encoding="utf-8")))
    for each in (folder / "static").glob("*.js"):
        keys |= set(re.findall(r'\bkey: "([^"]+)"', each.read_text(encoding="utf-8")))
    assert {"j", "z", "Ctrl+K"} <= keys
    assert keys == {key for row in documented_keys() for key in re.findall(r"`([^`]+)`", row)}


def documented_keys() -> list[str]:
    """The first column of the table of docs/console.md."""
    text = (Path(__file__).parents[4] / "docs" / "console.md").read_text(encoding="utf-8")
    table = text[text.index("\n## Keys\n") :]
    return re.findall(r"^\| (`.*?) \|", table, re.M)


@pytest.mark.parametrize("page", ["Cases", "Alerts", "Rules", "Versions", "Quarantine", "System", "Audit"])
def test_every_page_of_the_navigation_and_no_other_is_in_the_handbook(page: str) -> None:
    text = (Path(__file__).parents[4] / "docs" / "console.md").read_text(encoding="utf-8")
    desk = (Path(rendering.__file__).parent / "templates" / "desk.html").read_text(encoding="utf-8")
    assert f">{page}</a>" in desk
    assert f"*{page}*" in text


def test_every_button_that_has_words_is_named_in_the_handbook() -> None:
    text = (Path(__file__).parents[4] / "docs" / "console.md").read_text(encoding="utf-8")
    folder, words = Path(rendering.__file__).parent / "templates", set[str]()
    for each in folder.glob("*.html"):
        for button in re.findall(
            r"<button\b[^>]*data-do=[^>]*>(.*?)</button>", each.read_text("utf-8"), re.S
        ):
            words.add(re.sub(r"<kbd>.*?</kbd>|\{[{%].*", "", button).strip())
    assert {"Attach", "Release", "Try it", "Clear"} <= words
    assert {each for each in words if each and f"*{each}" not in text} == set()
