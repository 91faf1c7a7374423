"""The page of the audit log has its rows, the newest first, and says whether they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from agent.audit.events import AuditEvent
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.console import rendering
from streaming.console.audit_page import entry_of
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.api import ApiClient
from streaming.testing.small_lake import RETENTION, spec_of
from tests.browser_session import Texts, console_of, ok, sign_in

SPEC = spec_of()
PATH = "/console/audit"
CALLS = 230


def told(settings: Settings) -> None:
    """Record calls of a model, and what people did."""
    log = LakeAudit(AuditPlaces(PlacedAgent(settings, SPEC)), RETENTION)
    calls = [
        AuditEvent(
            "model_call", "gpt-small",
            {"model": "gpt-small", "prompt": "triage/3", "outcome": "answered", "input_tokens": at},
            "t/q", at,
        )
        for at in range(CALLS)
    ]  # fmt: skip
    log.record(calls)
    for at in range(3):
        detail = {
            "command": "api/requeue-records",
            "actor": "token:bert",
            "rows": at,
            "tables": ["quarantine"],
        }
        log.record([AuditEvent("action", "api", {**detail, "why": "sender mended"}, "command/x", at)])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    found = Settings.load(tmp_path_factory.mktemp("audited") / "home", {})
    told(found)
    return found


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[ApiClient]:
    with console_of(settings, SPEC) as asked:
        sign_in(asked, SPEC, "read")
        yield asked


def numbers(shown: str) -> list[int]:
    return [int(each) for each in re.findall(r'<tr id="row-(\d+)">', shown)]


def listed(client: ApiClient, **query: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get("/v1/audit", params=query).text.splitlines()]


def every_page(client: ApiClient, **query: Any) -> list[int]:
    shown, found = ok(client, PATH, **query), list[int]()
    while True:
        found += numbers(shown)
        older = re.search(r'<a class="button" href="([^"]+)">Older', shown)
        if older is None:
            return found
        shown = ok(client, unescape(older[1]))


def test_pages_from_the_newest_back_have_every_row_once(client: ApiClient) -> None:
    for query in ({}, {"kind": "model_call"}, {"who": "token:bert"}, {"kind": "action", "who": "token:bert"}):
        meant = [row["number"] for row in listed(client, limit=10_000, **query)]
        assert meant
        assert every_page(client, before=meant[-1] + 1, by="all", **query) == meant[::-1]
    assert every_page(client, who="token:bert") == [CALLS + 2, CALLS + 1, CALLS]


def test_what_the_agent_does_by_itself_drowns_nobody_s_rows(client: ApiClient) -> None:
    """Its rows are far more; each row is of one of the two."""
    both = [row["number"] for row in listed(client, limit=10_000)]
    # What was read is recorded once a second: the two lists may have rows that came after the whole one.
    people, agents = (
        [row["number"] for row in listed(client, limit=10_000, by=by) if row["number"] <= both[-1]]
        for by in ("people", "agent")
    )
    assert sorted([*people, *agents]) == both
    assert len(agents) == CALLS
    assert every_page(client, before=both[-1] + 1) == people[::-1]
    assert every_page(client, before=both[-1] + 1, by="agent") == agents[::-1]
    assert numbers(ok(client, PATH, kind="model_call")), "who asks for a kind gets it"
    assert client.get("/v1/audit", params={"by": "nobody"}).status_code == 422


def test_a_row_says_who_did_what_to_which_data_and_has_an_address(client: ApiClient) -> None:
    shown = ok(client, PATH, who="token:bert")
    text = " ".join(" ".join(Texts(shown).texts).split())
    assert "token:bert api/requeue-records api - quarantine" in text
    assert "sender mended" in text
    href = unescape(re.findall(rf'href="([^"]+)#row-{CALLS}"', shown)[0])
    assert numbers(ok(client, href))[0] == CALLS
    calls = " ".join(" ".join(Texts(ok(client, PATH, kind="model_call")).texts).split())
    assert f"triage/3 gpt-small gpt-small - answered input tokens {CALLS - 1}" in calls


def test_a_span_of_rows_of_a_batch_is_data_and_nothing_else_is_lost() -> None:
    detail = {"first_sequence": 0, "next_sequence": 600, "status": "decided", "alerts": 40, "policy": None}
    found = entry_of({"number": 1, "detail": detail})
    assert (found.data, found.outcome, found.who) == ("rows 0 to 599", "decided", "-")
    assert found.rest == {"alerts": "40"}
    empty = entry_of({"number": 1, "detail": {"first_sequence": 5, "next_sequence": 5}})
    assert empty.data == "no rows"


def test_the_chain_is_checked_as_far_as_it_is_said(client: ApiClient) -> None:
    shown = ok(client, PATH)
    said = re.search(r"Rows 0 to (\d+) have the hashes they must have.*the anchor names row (\d+)", shown)
    assert said is not None
    # A row of what was read may come between the list and its check.
    assert int(said[1]) == int(said[2]) >= numbers(shown)[0] >= CALLS + 2
    assert "Rows 0 to 99 have the hashes" in ok(client, PATH, before=100)
    checked = client.get("/v1/audit/check", params={"limit": 10}).json()
    assert (checked["sound"], checked["rows"], checked["findings"]) == (True, 10, [])


def test_what_cannot_be_used_or_found_is_said(client: ApiClient) -> None:
    refused = client.get(PATH, params={"kind": "nonsense"})
    assert (refused.status_code, 'role="alert"' in refused.text) == (400, True)
    assert "No row is like this." in ok(client, PATH, who="token:nobody")
    assert client.get(PATH, params={"before": "x"}).status_code == 404


def test_a_log_that_was_changed_is_not_sound_and_one_without_its_key_is_not_checked(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    told(settings)
    places = AuditPlaces(PlacedAgent(settings, SPEC))
    with console_of(settings, SPEC) as client:
        sign_in(client, SPEC, "read")
        assert "not sound" not in ok(client, PATH)
        newest = sorted((places.table / "_delta_log").path.glob("*.json"))[-1]
        with away(newest):
            shown = ok(client, PATH)
            assert "The log is not what was written" in shown
            assert re.search(r"row \d+, cut", shown)
        with away((settings.audit(SPEC.name) / "key").path):
            shown = ok(client, PATH)
            assert "not checked" in shown
            assert numbers(shown)


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Take a file away for a while."""
    kept = path.rename(path.with_suffix(".away"))
    yield
    kept.rename(path)


def test_an_agent_without_a_log_says_when_it_begins(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    with console_of(settings, SPEC) as client:
        client.cookies.clear()
        bearer = client.bearer(SPEC, "read")
        shown = client.get(PATH, headers=bearer).text
        assert "Nothing was recorded yet" in shown
        assert "not checked" in shown


def test_a_digest_is_shown_by_its_first_characters_and_other_text_whole() -> None:
    template = rendering._PAGES.from_string("{{ text | shortened }}")
    digest, hostile = "0a" * 32, "<script>" * 8
    shown = Texts(template.render(text=digest))
    assert "".join(shown.texts) == f"{digest[:12]}…"
    assert f'title="{digest}"' in template.render(text=digest)
    assert "".join(Texts(template.render(text=hostile)).texts) == hostile


def test_who_asked_goes_before_the_process_that_wrote() -> None:
    detail = {"change": "promoted", "who": "token:bert", "actor": "uid:1000"}
    entry = entry_of({"detail": detail, "kind": "configuration_change", "number": 1})
    assert (entry.who, entry.what, entry.rest) == ("token:bert", "promoted", {"actor": "uid:1000"})
