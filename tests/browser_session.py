"""A browser's side of the console, in this process: signs in by a code, keeps its cookie, reads pages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERTS
from schemas.spec import AgentSpec
from streaming.console.console import server_with_console
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.api import Reach
from streaming.serve.served_agent import ServedAgent
from streaming.testing.api import ApiClient
from streaming.testing.small_lake import RETENTION
from streaming.tokens.bearer import Scope

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
MOST_BYTES = 100_000
HOSTILE = "<script>alert(1)</script> \u202egro.live\u202c \x1b[31m \"onload=x ' {{7*7}} \u200b\u2066"
_CSRF = re.compile(r'<meta name="csrf" content="([^"]+)">')


@contextmanager
def console_of(
    settings: Settings, *specs: AgentSpec, seconds: Callable[[], float] | None = None
) -> Iterator[ApiClient]:
    """Run a server with the console and yield what asks it; nobody is signed in."""
    served = [ServedAgent(PlacedAgent(settings, each)) for each in specs]
    clock = {} if seconds is None else {"seconds": seconds}
    with ApiClient(server_with_console(served, Reach(), **clock), settings) as client:
        client.follow_redirects = False
        yield client


def code_of(client: ApiClient, bearer: dict[str, str]) -> str:
    """Draw a code, as `flagstream console` does."""
    answer = client.post("/v1/console/codes", headers=bearer)
    assert answer.status_code == 200, answer.text
    code: str = answer.json()["code"]
    return code


def exchanged(client: ApiClient, code: str) -> int:
    """Send a code as the sign-in page does; return the status."""
    return client.post("/console/sign-in", data={"code": code}, headers=SAME_ORIGIN).status_code


def sign_in(client: ApiClient, spec: AgentSpec, *scopes: Scope, name: str = "anna") -> dict[str, str]:
    """Sign in as somebody new; return the header with which their pages write."""
    client.cookies.clear()
    assert exchanged(client, code_of(client, client.bearer(spec, *scopes, name=name))) == 303
    return csrf(client)


def csrf(client: ApiClient) -> dict[str, str]:
    """Return the header of a page of whoever is signed in."""
    found = _CSRF.search(client.get("/console/sign-in").text)
    assert found is not None
    return {"X-CSRF-Token": found[1]}


def ok(client: ApiClient, path: str, **query: Any) -> str:
    answer = client.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < MOST_BYTES
    return answer.text


class Texts(HTMLParser):
    """The texts of a page, as a reader sees them, the tags in it, and the scripts that are none of ours."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts, self.tags, self.foreign = list[str](), list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        source = dict(attrs).get("src") or ""
        if tag == "script" and not source.startswith("/console/static/"):
            self.foreign.append(source)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def one_more_alert(settings: Settings, spec: AgentSpec, **changes: Any) -> str:
    """Store an alert in a small lake, like the newest but for `changes`; return its id."""
    place = settings.lake(spec.name) / "alerts"
    stored = read_stored(place, ALERTS.names)
    assert stored is not None
    number = stored.num_rows
    (newest,) = stored.filter(pc.equal(stored["outbox_seq"], number - 1)).to_pylist()
    alert_id = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    row = {**newest, "alert_id": alert_id, "outbox_seq": number, **changes}
    table = LakeTable(place, ALERTS, "tester/epoch", RETENTION)
    table.claim(1 + table.epoch)
    table.append(pa.Table.from_pylist([row], schema=ALERTS), Stamp("tester/q", number))
    return alert_id
