"""While many alerts and payments are copied, pages answer as well as they can, and say what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from schemas.errors import DiskError
from streaming.console.console import server_with_console
from streaming.delta.kept_rows import KeptLayout, KeptRows
from streaming.history import payments
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve import copies
from streaming.serve.api import Reach
from streaming.serve.served_agent import ServedAgent
from streaming.service.health import Condition
from streaming.testing.api import ApiClient, api_of
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import BUSY, build_lake, spec_of
from tests.browser_session import sign_in

SPEC, NUMBERS = spec_of(), count()
ENTITY = f"/v1/entities/terminal/{BUSY}"
SAID = "payments are being indexed, 0% of 600 so far: ask again soon"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    found = Settings.load(tmp_path_factory.mktemp("lake") / "home", {})
    build_lake(PlacedAgent(found, SPEC))
    return found


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a small lake count as one that is too large to be read through, and be copied by and by."""
    monkeypatch.setattr(payments, "SPAN", 0)
    monkeypatch.setattr(payments, "_MOST_READ_THROUGH", 0)
    monkeypatch.setattr(KeptLayout, "stretch", property(lambda _: 100))
    monkeypatch.setattr(copies, "_WORTH_TELLING", 0)


@pytest.fixture
def client(settings: Settings) -> Iterator[ApiClient]:
    """A server whose workers have not begun: what they do is done here."""
    asked = ApiClient(server_with_console([ServedAgent(PlacedAgent(settings, SPEC))], Reach()), settings)
    asked.follow_redirects = False
    agent = served(asked)
    agent.inbox.refresh()
    asked.headers.update(asked.bearer(SPEC, "triage", name=f"bert-{next(NUMBERS)}"))
    yield asked
    agent.close()


def served(client: ApiClient) -> ServedAgent:
    return client.server.agents[SPEC.name]


def answer(client: ApiClient, path: str, status: int = 200) -> Any:
    found = client.get(path)
    assert found.status_code == status, found.text
    return found.json()


@pytest.mark.usefixtures("many")
def test_what_is_not_there_yet_is_said_and_comes(client: ApiClient) -> None:
    alert = answer(client, "/v1/alerts?filter=rule = large&limit=1")["alerts"][0]["alert_id"]
    early = answer(client, f"/v1/alerts/{alert}")
    assert (early["without"], early["normal"], early["nearest"], early["history"]) == (SAID, [], [], [])
    assert early["adds_up"] and early["revisions"] and early["pins"]
    assert answer(client, ENTITY, 503)["detail"] == SAID
    while served(client).copies.go_on():
        pass
    late = answer(client, f"/v1/alerts/{alert}")
    assert late["without"] is None and late["normal"]
    given = ("without", "normal", "nearest", "history")
    assert {**early, **{name: late[name] for name in given}} == late
    assert answer(client, ENTITY)["payments"] > 0


@pytest.mark.usefixtures("many")
def test_pages_show_a_sentence_and_all_else(client: ApiClient) -> None:
    alert = answer(client, "/v1/alerts?limit=1")["alerts"][0]["alert_id"]
    del client.headers["Authorization"]
    sign_in(client, SPEC, "triage")
    for path in (f"/console/alerts/{alert}", f"/console/entities/terminal/{BUSY}"):
        early = client.get(path)
        assert (early.status_code, SAID in early.text) == (200, True), path
        assert "What follows from" in early.text
    entity = client.get(f"/console/entities/terminal/{BUSY}").text
    assert "Newest alerts" in entity and "Not known yet." in entity and "/console/alerts/" in entity
    while served(client).copies.go_on():
        pass
    for path in (f"/console/alerts/{alert}", f"/console/entities/terminal/{BUSY}"):
        assert "What follows from" not in client.get(path).text


@pytest.mark.usefixtures("many")
def test_how_far_it_is_stands_in_readyz(client: ApiClient, capfd: pytest.CaptureFixture[str]) -> None:
    agent = served(client)
    agent.tokens.refresh()
    assert client.get("/readyz").text == "ok\n"
    shares = []
    while agent.copies.go_on():
        shares.append(client.get("/readyz").text)
    assert len(shares) > 3
    assert all(each.startswith("copying tester: ") and each.endswith(" rows\n") for each in shares)
    assert len(set(shares)) == len(shares), "it gets on"
    assert client.get("/readyz").text == "ok\n"
    said = capfd.readouterr().err
    assert said.count("are being copied for single pages") == said.count("rows are copied, after") == 1


def test_payments_that_are_read_through_are_those_that_are_copied(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = (ENTITY, f"{ENTITY}/history?limit=1000", f"{ENTITY}/neighbours", "/v1/entities/customer/c1")
    with monkeypatch.context() as behind:
        behind.setattr(payments, "SPAN", -1)
        read = [answer(client, each) for each in paths]
    while served(client).copies.go_on():
        pass
    assert [answer(client, each) for each in paths] == read


def test_where_copies_cannot_be_made_it_is_told_once_and_the_tables_are_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(payments, "SPAN", 0)
    monkeypatch.setattr(payments, "_MOST_READ_THROUGH", 0)
    tries, build = list[int](), KeptRows.build

    def full(_: KeptRows) -> bool:
        tries.append(1)
        raise DiskError("no room")

    monkeypatch.setattr(KeptRows, "build", full)
    monkeypatch.setattr("streaming.serve.served_agent.LONGEST_PAUSE_SECONDS", 0.01)
    with api_of(settings, SPEC) as client:
        client.headers.update(client.bearer(SPEC, "read"))
        wait_until(lambda: len(tries) > 5, 60, "several tries")
        held = [each.condition for each in served(client).health.active]
        assert held == [Condition.COPIES_STALE]
        assert client.get("/readyz").text == "copies_stale\n"
        assert answer(client, ENTITY)["payments"] > 0
        monkeypatch.setattr(KeptRows, "build", build)
        wait_until(lambda: not served(client).health.active, 60, "it to be over")
        assert answer(client, ENTITY)["payments"] > 0
    assert capfd.readouterr().err.count("copies_stale: no room") == 1
