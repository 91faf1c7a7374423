"""Whoever watches hears of each request once, and of nothing that a client has made up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.api import Reach, Server, build_server
from streaming.serve.routers import ROUTERS
from streaming.serve.served_agent import ServedAgent
from streaming.serve.watched import OTHER
from streaming.testing.api import ApiClient
from streaming.testing.live_lake import agent

SPECS = (agent(name="first"), agent(name="second"))
Heard = tuple[str | None, str, int, float]


class Listened:
    """A server of two agents, and what its watch has heard."""

    def __init__(self, settings: Settings) -> None:
        self.heard: list[Heard] = []
        served = [ServedAgent(PlacedAgent(settings, each)) for each in SPECS]
        self.server: Server = build_server(served, Reach(), ROUTERS, watch=self.hear)
        self.client = ApiClient(self.server, settings)

    def hear(self, *heard: object) -> None:
        self.heard.append(heard)  # type: ignore[arg-type]  # as RequestWatch has them

    def ask(self, method: str, path: str, bearer: dict[str, str] | None = None) -> tuple[int, list[Heard]]:
        before = len(self.heard)
        response = self.client.request(method, path, headers=bearer or {})
        return response.status_code, self.heard[before:]


@pytest.fixture(scope="module")
def listened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listened]:
    made = Listened(Settings.load(tmp_path_factory.mktemp("home"), {}))
    with made.client:
        yield made


def test_it_hears_which_agent_and_which_endpoint_a_request_was_about(listened: Listened) -> None:
    both = listened.client.bearer(SPECS[0], "read")
    status, ((about, endpoint, said, seconds),) = listened.ask("GET", "/v1/alerts?agent=first", both)
    assert (status, about, endpoint, said) == (200, "first", "GET /v1/alerts", 200)
    assert 0 < seconds < 60
    path = "/v1/alerts/0123456789abcdef0123456789abcdef"
    status, ((about, endpoint, said, _),) = listened.ask("GET", path, both)
    assert (status, about, endpoint, said) == (404, "first", "GET /v1/alerts/{alert_id}", 404)


def test_an_answer_from_memory_is_about_what_the_first_one_was(listened: Listened) -> None:
    writer = {**listened.client.bearer(SPECS[0], "triage", name="writer"), "Idempotency-Key": "once"}
    first, ((*heard, _),) = listened.ask("POST", "/v1/cases/claim-next?agent=first", writer)
    again, ((*replayed, _),) = listened.ask("POST", "/v1/cases/claim-next?agent=first", writer)
    assert (again, replayed) == (first, heard)
    assert heard[1] == "POST /v1/cases/claim-next"


def test_it_hears_of_those_who_are_refused_and_of_no_agent_that_they_name(listened: Listened) -> None:
    for path in ("/v1/alerts?agent=first", "/v1/alerts?agent=third", "/v1/nothing", "/v1/me"):
        status, ((about, _, said, _),) = listened.ask("GET", path)
        assert (about, said) == (None, status)
        assert status in (401, 404)


def test_its_own_health_is_no_request(listened: Listened) -> None:
    assert [listened.ask("GET", path)[1] for path in ("/livez", "/readyz")] == [[], []]


WORDS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
PATHS = st.one_of(
    st.sampled_from(["/v1/alerts", "/v1/cases", "/v1/me", "/openapi.json", "/v1/labels"]),
    st.builds("/v1/alerts/{}".format, WORDS),
    st.builds("/v1/cases/{}/comments".format, WORDS),
    st.lists(WORDS, max_size=3).map(lambda parts: "/" + "/".join(parts)),
)
METHODS = st.one_of(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]), WORDS)


@given(method=METHODS, path=PATHS)
def test_no_client_can_make_series_of_its_own(listened: Listened, method: str, path: str) -> None:
    status, ((about, endpoint, said, _),) = listened.ask(method, path)
    assert (about, said) == (None, status)
    assert endpoint in {OTHER, *declared(listened.server)}


def declared(server: Server) -> set[str]:
    described = server.api.openapi()["paths"]
    hidden = {f"{method} /openapi.json" for method in ("GET", "HEAD")}
    return hidden | {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
