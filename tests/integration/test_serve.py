"""The HTTP API over TCP: asked by a client, followed live, and ended by a signal while somebody follows."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
import yaml

from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.observe.desk_metrics import ServeMetrics
from streaming.testing.drivers import Child
from streaming.testing.small_lake import build_lake, spec_of
from streaming.tokens.bearer import draw
from streaming.tokens.token_table import TokenTable, read_tokens
from tests.browser_session import SAME_ORIGIN
from tests.ports import free_port
from tests.served import served

SPEC = spec_of()
SECONDS = 60.0
ENTRY = "from streaming.cli.root import main; main()"
SCREENS = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")


@pytest.mark.timeout(180)
def test_it_answers_follows_and_ends_orderly(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(settings, SPEC))
    drawn = draw()
    TokenTable(PlacedAgent(settings, SPEC)).add(drawn, "anna", ["triage"], 6_000, None, "tests")
    port = free_port()
    bearer = {"Authorization": f"Bearer {drawn.text.get_secret_value()}"}
    with (
        served(settings.home, SPEC, "--metrics-port", str(port)) as (address, child),
        httpx2.Client(base_url=address, headers=bearer, timeout=SECONDS) as client,
    ):
        with client.stream("GET", "/v1/alerts/live", params={"after": -1}) as feed:
            lines = feed.iter_lines()
            first = [next(lines) for _ in range(3)]
            assert (first[0], first[1]) == ("event: alert", "id: 0")
            alert = json.loads(first[2].removeprefix("data: "))
            shown = client.get(f"/v1/alerts/{alert['alert_id']}").json()
            assert shown["alert"]["transaction_id"] == alert["transaction_id"]
            label = {"transaction_id": alert["transaction_id"], "is_fraud": False}
            again = {"Idempotency-Key": "k1"}
            for expected in (None, "true"):
                done = client.post("/v1/labels", json={"labels": [label]}, headers=again)
                assert (done.json()["stored"], done.headers.get("idempotency-replayed")) == (1, expected)
            assert httpx2.get(f"{address}/v1/alerts").status_code == 401
            assert client.get("/readyz").text == "ok\n"
            check_watched(f"http://127.0.0.1:{port}")
            child.send_signal(signal.SIGTERM)
            list(lines)  # the feed comes to its end by itself
        assert child.wait(SECONDS) == 0


@pytest.mark.timeout(180)
def test_a_console_of_ones_own_signs_in_until_the_server_is_stopped(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(settings, SPEC))
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(SPEC.model_dump(mode="json")), encoding="utf-8")
    words = ["serve", "--spec", str(spec), "--home", str(settings.home), "--listen", "0", "--console"]
    screenless = {name: value for name, value in os.environ.items() if name not in SCREENS}
    child = Child([sys.executable, "-c", ENTRY, *words], env=screenless)
    try:
        child.wait_for(lambda line: line.startswith("The console: "), SECONDS)
        (line,) = [each for each in child.said if each.startswith("The console: ")]
        address, _, code = line.split()[-1].partition("/console/sign-in?code=")
        with httpx2.Client(base_url=address, timeout=SECONDS) as browser:
            signed_in = browser.post("/console/sign-in", data={"code": code}, headers=SAME_ORIGIN)
            assert signed_in.status_code == 303
            assert 'data-do="claim-next"' in browser.get("/console/cases").text
        child.send_signal(signal.SIGINT)
        assert child.wait(SECONDS) == 0
    finally:
        child.kill()
    (token,) = read_tokens(LakeReader(settings.lake(SPEC.name), SPEC.tables)).values()
    assert not token.is_good(datetime.now(UTC))


def check_watched(address: str) -> None:
    """See that its metrics and its health are served beside it."""
    assert [httpx2.get(f"{address}/{each}").text for each in ("livez", "readyz")] == ["ok\n", "ok\n"]
    page = httpx2.get(f"{address}/metrics").text
    about = f'agent="{SPEC.name}",endpoint="POST /v1/labels",status="200"'
    assert f"flagstream_api_requests_total{{{about}}} 2.0" in page
    for each in ServeMetrics([SPEC.name]).book.meanings:
        suffix = "_count" if each.kind == "histogram" else ""
        assert re.search(rf'^{each.name}{suffix}{{.*agent="{SPEC.name}"', page, re.MULTILINE), each.name
