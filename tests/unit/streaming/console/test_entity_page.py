"""The page of an entity shows what the API says of it, whatever its id is, and leads to its neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pytest

from streaming.console.charts import amounts_plot
from streaming.console.entity_page import days_text
from streaming.console.graph import neighbours_graph
from streaming.console.rendering import entity_place
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.entity_pages import EntityNeighbour
from streaming.testing.api import ApiClient
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import BUSY, BUSY_ALERTS, DAY, build_lake, spec_of
from tests.browser_session import HOSTILE, Texts, console_of, ok, sign_in

SPEC = spec_of()
ODD = ("a/b", "a/history", "100%", "..", ".", " ", "\n", "a\nb", "\u202eevil", HOSTILE, "?x=1#y", "a&b=c+d")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiClient]:
    yield from served(tmp_path_factory.mktemp("lake"), lambda table: table)


@pytest.fixture(scope="module")
def odd_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiClient]:
    """A lake whose first customers have odd ids, each with a payment of another currency."""

    def edit(table: pa.Table) -> pa.Table:
        customers, currencies = table["customer"].to_pylist(), table["currency"].to_pylist()
        for place, each in enumerate(ODD):
            customers[-1 - place], customers[place], currencies[place] = each, each, "JPY"
        for name, values in (("customer", customers), ("currency", currencies)):
            at = table.schema.get_field_index(name)
            table = table.set_column(
                at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
            )
        return table

    yield from served(tmp_path_factory.mktemp("odd"), edit)


def served(folder: Path, edit: Callable[[pa.Table], pa.Table]) -> Iterator[ApiClient]:
    home = Settings.load(folder / "home", {})
    build_lake(PlacedAgent(home, SPEC), edit=edit)
    with console_of(home, SPEC) as asked:
        wait_until(lambda: asked.get("/readyz").status_code == 200, 60, "the alerts to be read")
        sign_in(asked, SPEC, "read")
        yield asked


def address(kind: str, entity_id: str) -> tuple[str, dict[str, str]]:
    return entity_place(kind, entity_id)


def shown_of(client: ApiClient, kind: str, entity_id: str, **query: Any) -> str:
    path, given = address(kind, entity_id)
    return ok(client, path, **given, **query)


def test_an_entity_shows_what_the_api_says_of_it(client: ApiClient) -> None:
    shown = shown_of(client, "terminal", BUSY)
    found = client.get(f"/v1/entities/terminal/{BUSY}").json()
    text = " ".join(" ".join(Texts(shown).texts).split())
    assert f"{BUSY_ALERTS} alerts" in text
    assert f"{found['known_frauds']} labelled fraud" in text
    (usual,) = found["currencies"]
    assert f"{usual['median_amount']:,.2f}" in text
    assert f"{usual['largest_amount']:,.2f}" in text
    alerts = [each["alert_id"] for each in found["newest_alerts"]]
    assert re.findall(r"/console/alerts/([0-9a-f]{32})", shown) == alerts
    for alert in alerts[:3]:
        (case,) = set(re.findall(r"/console/cases/([0-9a-f]{16})", ok(client, f"/console/alerts/{alert}")))
        assert f"/console/cases/{case}" in shown


def test_open_cases_are_those_of_the_api(client: ApiClient) -> None:
    case = client.get("/v1/cases").json()["cases"][0]
    kind, entity_id = case["entity"], case["entity_id"]
    shown = shown_of(client, kind, entity_id)
    meant = client.get("/v1/cases", params={"entity": f"{kind}={entity_id}"}).json()
    table = shown[shown.index("Open cases about it") : shown.index("Newest alerts")]
    assert re.findall(r"/console/cases/([0-9a-f]{16})", table) == [each["case_id"] for each in meant["cases"]]
    assert meant["total"] >= 1


def test_payments_are_drawn_listed_and_paged(client: ApiClient) -> None:
    path = f"/v1/entities/terminal/{BUSY}/history"
    meant = client.get(path, params={"limit": 500}).json()
    shown = shown_of(client, "terminal", BUSY)
    assert shown.count('class="marked"') == sum(each["alerted"] for each in meant)
    assert shown.count('class="dot"') == sum(not each["alerted"] for each in meant)
    rows, before = list[str](), None
    while True:
        shown = shown_of(client, "terminal", BUSY, **({} if before is None else {"before": before}))
        table = shown[shown.index('aria-label="Payments"') :]
        rows += re.findall(r"(t\d{5})</bdi>", table)
        following = re.search(r"before=(\d+)[^\"]*\">Earlier", shown)
        if following is None:
            break
        before = following[1]
    assert rows == [each["transaction_id"] for each in meant]


def test_neighbours_are_the_api_s_and_lead_to_their_pages(client: ApiClient) -> None:
    meant = client.get(f"/v1/entities/terminal/{BUSY}/neighbours", params={"limit": 200}).json()
    shown = shown_of(client, "terminal", BUSY)
    table = shown[shown.index('aria-label="Neighbours"') : shown.index('id="payments"')]
    links = re.findall(r'href="(/console/entities/customer/[^"]+)"', table)
    expected = sorted(meant, key=lambda each: -each["payments"])
    assert links == [f"/console/entities/customer/{each['id']}" for each in expected[:24]]
    for each in links[:2]:
        assert f"/console/entities/terminal/{BUSY}" in ok(client, each)
    assert shown.count('class="neighbour alerted"') == sum(each["alerts"] > 0 for each in expected[:24])
    if len(meant) > 24:
        assert f"And {len(meant) - 24} with fewer payments." in shown


@pytest.mark.parametrize("entity_id", ODD)
def test_an_id_of_any_text_has_a_page_that_shows_it_as_text(odd_client: ApiClient, entity_id: str) -> None:
    shown = shown_of(odd_client, "customer", entity_id)
    read = Texts(shown)
    assert read.foreign == []
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    own = re.search(r'<h1>customer <a href="([^"]+)">', shown)
    assert own is not None
    assert own[1] in ok(odd_client, unescape(own[1]))
    terminals = re.findall(r'href="(/console/entities/terminal/[^"]+)"', shown)
    back = ok(odd_client, terminals[0], before=10**9)
    assert own[1] in back


@pytest.mark.parametrize("entity_id", ODD)
def test_the_api_finds_an_id_of_any_text(odd_client: ApiClient, entity_id: str) -> None:
    given, base = {"kind": "customer", "id": entity_id}, "/v1/entities/customer"
    page, history, around = (
        odd_client.get(f"/v1/entity{part}", params=given) for part in ("", "/history", "/neighbours")
    )
    assert page.status_code == 200, page.text
    assert (page.json()["id"], page.json()["payments"] >= 2) == (entity_id, True)
    if entity_id in (".", "..") or "\n" in entity_id:
        return  # no path can hold these
    path = f"{base}/{quote(entity_id, safe='')}"
    if not entity_id.endswith("/history"):
        assert odd_client.get(path).json() == page.json()
    payments = odd_client.get(f"{path}/history").json()
    assert payments == history.json()
    assert len(payments) == page.json()["payments"]
    assert {each["entities"]["customer"] for each in payments} == {entity_id}
    assert odd_client.get(f"{path}/neighbours").json() == around.json() != []


def test_a_link_without_text_would_be_seen_by_nobody(odd_client: ApiClient) -> None:
    assert "\u201c \u201d" in shown_of(odd_client, "customer", " ")


def test_each_currency_is_drawn_by_itself(odd_client: ApiClient) -> None:
    first = shown_of(odd_client, "customer", "a/b")
    assert sum(map(first.count, ('class="dot"', 'class="marked"'))) == 1
    others = re.findall(r'href="([^"]+currency=[^"]+)"', first)
    names = {unquote(unescape(each)).split("currency=")[1] for each in others}
    assert names == {"EUR#over-time", "JPY#over-time"}
    for each in others:
        assert 'aria-current="true"' in ok(odd_client, unescape(each).split("#")[0])


def test_refunds_are_no_payments(tmp_path: Path) -> None:
    """Figures of both together would be of neither; each row says which it is."""

    def edit(table: pa.Table) -> pa.Table:
        directions = ["refund" if number % 3 == 0 else "payment" for number in range(table.num_rows)]
        return table.append_column("direction", pa.array(directions))

    with contextmanager(served)(tmp_path, edit) as client:
        path = "/v1/entities/customer/c1"
        found, rows = client.get(path).json(), client.get(f"{path}/history?limit=1000").json()
        for direction, count, figures in (
            ("payment", found["payments"], found["currencies"]),
            ("refund", found["refunds"], found["refund_currencies"]),
        ):
            amounts = [each["amount"] for each in rows if each["direction"] == direction]
            (usual,) = figures
            assert (count, usual["payments"], usual["largest_amount"]) == (len(amounts),) * 2 + (
                max(amounts),
            )
            assert usual["median_amount"] == pytest.approx(median(amounts), abs=1e-4)
        shown = shown_of(client, "customer", "c1")
        assert shown.count('class="dot"') + shown.count('class="marked"') == found["payments"]
        assert shown[shown.index('id="payments"') :].count(">refund<") == found["refunds"]


def test_what_is_not_stored_is_said(client: ApiClient) -> None:
    for path in (
        "/console/entities/customer/nobody",
        "/console/entities/planet/mars",
        "/console/entities/customer",
    ):
        answer = client.get(f"/console/entities/{path}")
        assert answer.status_code == 404, path
        assert "text/html" in answer.headers["content-type"]


def test_alert_and_case_lead_to_their_entities(client: ApiClient) -> None:
    alert = client.get("/v1/alerts").json()["alerts"][0]
    shown = ok(client, f"/console/alerts/{alert['alert_id']}")
    for kind, name in alert["entities"].items():
        assert f'<a href="/console/entities/{kind}/{name}">' in shown
    case = client.get("/v1/cases").json()["cases"][0]
    head = f'<a href="/console/entities/{case["entity"]}/{case["entity_id"]}">'
    assert head in ok(client, f"/console/cases/{case['case_id']}")


def neighbour(number: int, payments: int, kind: str = "terminal") -> EntityNeighbour:
    return EntityNeighbour(kind=kind, id=f"m{number}", payments=payments, first=DAY, last=DAY, alerts=0)


@pytest.mark.parametrize("count", [1, 2, 3, 24])
def test_no_label_of_the_graph_runs_into_another(count: int) -> None:
    graph = neighbours_graph("c1", [neighbour(each, 24 - each) for each in range(count)], kinds=1)
    assert len(graph.neighbours) == count
    for on_left in (True, False):
        levels = sorted(each.y for each in graph.neighbours if each.on_left is on_left)
        assert all(later - earlier >= 14 for earlier, later in pairwise(levels))
        assert all(10 < each < graph.height - 10 for each in levels)
    widths = [each.width for each in sorted(graph.neighbours, key=lambda each: -each.of.payments)]
    assert widths == sorted(widths, reverse=True)


def test_a_plot_of_one_payment_is_a_plot() -> None:
    plot = amounts_plot([(DAY, 0.0, True)])
    assert (len(plot.dots), len(plot.marked), plot.first) == (0, 1, DAY)


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (None, "-"),
        (0.0, "less than a minute"),
        (0.01, "14.4 min"),
        (0.5, "12.0 h"),
        (1_000.0, "1,000.0 days"),
    ],
)
def test_a_span_is_said_in_its_unit(days: float | None, said: str) -> None:
    assert days_text(days) == said
