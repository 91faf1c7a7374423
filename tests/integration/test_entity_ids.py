"""Over TCP every entity is found by its id, whatever that is: by `/v1/entity` and by the console's link."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from queue import Queue

import httpx2
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from streaming.console.console import server_with_console
from streaming.home.listen import ListenAddress
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.api import Reach
from streaming.serve.http_server import Listening, serve_until
from streaming.serve.served_agent import ServedAgent
from streaming.testing.small_lake import build_lake, spec_of
from streaming.tokens.bearer import draw
from streaming.tokens.token_table import TokenTable
from tests.browser_session import SAME_ORIGIN

SPEC, SECONDS = spec_of(), 60.0
NAMED = (
    "", ".", "..", "%2e%2e", "%2E", "../..", "a/../b", "a/./b", "/", "//", "a/history", "a/neighbours",
    "history", "neighbours", "\u202eevil\u202c", "\u200f\u2066x", "x" * 255, "\N{GRINNING FACE}" * 63, "a\nb",
    "\r\n", "\0", "\t", " ", "100%", "?id=x", "a&id=b", "#", "+",
    "a;b", "..;/x", "\\..\\", "c1?kind=terminal",
    "é", "e\u0301",
)  # fmt: skip
IDS = st.lists(
    st.text(st.characters(codec="utf-8"), max_size=12)
    | st.text("./%2eE\\;?#&=+ \n\u202e", min_size=1, max_size=8),
    min_size=1, max_size=40, unique=True,
)  # fmt: skip


@contextmanager
def asked(folder: Path, ids: Sequence[str]) -> Iterator[httpx2.Client]:
    """Serve a lake whose first customers have these ids, over TCP; yield a client that is signed in."""

    def edit(table: pa.Table) -> pa.Table:
        customers = [*ids, *table["customer"].to_pylist()[len(ids) :]]
        at = table.schema.get_field_index("customer")
        return table.set_column(at, table.schema.field(at), pa.array(customers, table.schema.field(at).type))

    settings, drawn = Settings.load(folder / "home", {}), draw()
    placed = PlacedAgent(settings, SPEC)
    build_lake(placed, max(100, len(ids)), edit=edit)
    TokenTable(placed).add(drawn, "anna", ["read"], 1_000_000, None, "tests")
    server, port, stop = server_with_console([ServedAgent(placed)], Reach()), Queue[int](), threading.Event()
    listening = Listening(ListenAddress(0))
    serving = threading.Thread(target=serve_until, args=(server.asgi, listening, stop, port.put))
    serving.start()
    try:
        bearer = {"Authorization": f"Bearer {drawn.text.get_secret_value()}"}
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port.get(timeout=SECONDS)}", timeout=SECONDS
        ) as client:
            code = client.post("/v1/console/codes", headers=bearer).json()["code"]
            assert (
                client.post("/console/sign-in", data={"code": code}, headers=SAME_ORIGIN).status_code == 303
            )
            yield client
    finally:
        stop.set()
        serving.join(SECONDS)


def check(client: httpx2.Client, entity_id: str) -> None:
    given = {"kind": "customer", "id": entity_id}
    page, history, around = (
        client.get(f"/v1/entity{part}", params=given) for part in ("", "/history", "/neighbours")
    )
    assert (page.status_code, page.json()["id"]) == (200, entity_id), page.text
    assert {each["entities"]["customer"] for each in history.json()} == {entity_id}
    terminal = around.json()[0]["id"]
    shown = client.get(f"/console/entities/terminal/{terminal}").text
    found = [unescape(each) for each in re.findall(r'href="(/console/entities/customer[^"]*)"', shown)]
    # Nothing in the path of a link that a browser or a proxy makes something else of.
    assert all(
        re.fullmatch(r"/console/entities/customer(/[A-Za-z0-9_-]+)?", each.split("?")[0]) for each in found
    )
    reached = [client.get(each) for each in dict.fromkeys(found)]
    assert {each.status_code for each in reached} == {200}
    own = client.get("/console/entities/customer", params={"id": entity_id})
    assert own.status_code == 200
    assert own.text in [each.text for each in reached]


@pytest.mark.long
@pytest.mark.timeout(600)
@given(ids=IDS)
@example(ids=list(NAMED))
@examples(deadline=None, max_examples=4, derandomize=True, suppress_health_check=list(HealthCheck))
def test_an_entity_of_any_id_is_found(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    with asked(tmp_path_factory.mktemp("ids"), ids) as client:
        for each in ids:
            check(client, each)
