"""Every page and every list answers about an agent of which little is known yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.label import GIVEN
from streaming.console.rendering import POLICY
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.book import LabelBook
from streaming.testing.api import ApiClient
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import RETENTION, build_lake, spec_of
from tests.browser_session import Texts, console_of, ok, sign_in

SPEC = spec_of(rules=[], threshold=0.999999)
PAGES = (
    "cases",
    "alerts",
    "rules",
    "versions",
    "what-ifs",
    "quarantine",
    "quarantine/requests",
    "system",
    "audit",
)
LISTS = (
    "alerts", "alerts/fields", "cases", "rules", "rules/recall", "versions", "versions/beside",
    "versions/rollback", "what-ifs", "quarantine", "quarantine/requests", "labels/status", "status", "system",
    "cost", "audit", "labels?transaction=t1",
)  # fmt: skip
_UNFORMATTED = re.compile(r"\b(None|nan|inf|undefined)\b")


def nothing(_: PlacedAgent) -> None:
    """An agent that never ran."""


def labels_alone(placed: PlacedAgent) -> None:
    rows = [
        {"transaction_id": f"t{at}", "is_fraud": at < 12, "decided_by": "bank", "source_position": at}
        for at in range(20)
    ]
    book = LabelBook(placed.lake / "labels", retention=RETENTION)
    book.record(pa.Table.from_pylist(rows, schema=GIVEN), source="test")


def payments_alone(placed: PlacedAgent) -> None:
    """Payments of which none was alerted, and no label."""

    def usual(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index("amount")
        return rows.set_column(at, rows.schema.field(at), pa.array([10.0] * rows.num_rows))

    build_lake(placed, edit=usual)


@pytest.fixture(params=[nothing, labels_alone, payments_alone], ids=lambda each: each.__name__)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ApiClient]:
    begin: Callable[[PlacedAgent], None] = request.param
    settings = Settings.load(tmp_path / "home", {})
    begin(PlacedAgent(settings, SPEC))
    with console_of(settings, SPEC) as asked:
        wait_until(lambda: asked.get("/readyz").status_code == 200, 60, "the lake to be read")
        asked.headers.update(sign_in(asked, SPEC, "operate"))
        yield asked


def test_every_page_says_something_about_a_bare_lake(client: ApiClient) -> None:
    for each in PAGES:
        assert client.get(f"/console/{each}").headers["content-security-policy"] == POLICY
        text = " ".join(Texts(ok(client, f"/console/{each}")).texts)
        assert not _UNFORMATTED.search(text), (each, _UNFORMATTED.findall(text))


def test_every_list_of_a_bare_lake_is_answered(client: ApiClient) -> None:
    for each in LISTS:
        answer = client.get(f"/v1/{each}")
        assert answer.status_code == 200, (each, answer.text)
    assert client.get(f"/v1/alerts/{'0' * 32}").status_code == 404
    assert client.get(f"/v1/alerts/{'0' * 32}/similar").status_code == 404
    assert client.get("/v1/entities/customer/nobody").status_code == 404
