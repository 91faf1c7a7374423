"""The real Prometheus scrapes a running agent: every panel and rule works, and rules fire as they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.throughput import fill
from schemas.spec import AgentSpec, load_spec
from streaming.audit.access import record_done, record_read
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.observe.dashboards import DASHBOARDS
from streaming.observe.desk_metrics import NotifyMetrics, ServeMetrics
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import judge
from streaming.testing.streams import Stream, write_spec
from tests.ports import free_port
from tests.prometheus import FILES, PrometheusServer, installed, prometheus, promtool

pytestmark = pytest.mark.timeout(900)
EVENTS, BATCH = 100_000, 2_500  # forty samples of a thousand: enough for both windows of drift
_METRIC = re.compile(r"\b(?:flagstream|process)_[a-z0-9_]+\b")
_FILTERED = re.compile(r"== 1|> 0")
_RULES = yaml.safe_load((FILES / "flagstream-rules.yml").read_text(encoding="utf-8"))
ALERTS = [rule["alert"] for group in _RULES["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def programs() -> Path:
    return installed(Settings.load(Path("var"), os.environ))


class Scraped:
    """A running agent with a model, labels and people who ask, and what its endpoint says."""

    def __init__(self, settings: Settings, spec: AgentSpec, port: int) -> None:
        self.settings, self.spec, self.port = settings, spec, port

    def page(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
            return str(reply.read().decode())

    def has(self, text: str) -> Callable[[], bool]:
        def found() -> bool:
            try:
                return re.search(text, self.page()) is not None
            except OSError:
                return False

        return found


@pytest.fixture(scope="module")
def scraped(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("scraped")
    settings = Settings.load(folder / "home", os.environ)
    with scripted.scripted_llm() as server:
        llm = {"base_url": server.base_url, "model": "gpt-4o-mini", "budget": {"tokens_per_day": 10_000_000}}
        file = write_spec(folder, lambda name: f"scraped-{name}", llm=llm)
        content = yaml.safe_load(file.read_text())
        content["data_sources"]["transactions"]["max_records_per_batch"] = BATCH
        content["threshold"] = 0.99
        file.write_text(yaml.safe_dump(content))
        spec = load_spec(file)
        fill(bootstrap, "scraped-events", EVENTS)  # of the two weeks up to now
        stream, port = Stream(bootstrap, "scraped-events"), free_port()
        command = [
            str(Path(sys.executable).parent / "flagstream"), "run", "--spec", str(file),
            "--home", str(settings.home), "--metrics-port", str(port), "--log-format", "json",
        ]  # fmt: skip
        environ = {**os.environ, "FLAGSTREAM_KAFKA": bootstrap, "OPENAI_API_KEY": "sk-not-a-key"}
        with (folder / "log").open("wb") as out:
            child = subprocess.Popen(command, stdout=out, stderr=out, env=environ)
        running = Scraped(settings, spec, port)
        try:
            wait_until(running.has(r"\nflagstream_late_answers_total\S* [1-9]"), 240, "answers of the model")
            use(running)
            wait_until(running.has(r"\nflagstream_score_drift_psi"), 600, "drift")
            wait_until(running.has(r"\nflagstream_alert_precision_ratio"), 120, "labels")
            stream.send(200)
            yield running
        finally:
            child.terminate()
            assert child.wait(120) == 0, (folder / "log").read_text()[-3_000:]


def use(running: Scraped) -> None:
    """Have people label alerts and read tables."""
    reader = LakeReader(running.settings.lake(running.spec.name), running.spec.tables)
    alerted = reader.frame("alerts", ["transaction_id"])["transaction_id"].to_list()
    judge(PlacedAgent(running.settings, running.spec), alerted[:50])
    record_done(PlacedAgent(running.settings, running.spec), "labels import", 50)
    record_read(PlacedAgent(running.settings, running.spec), "explain", ["alerts"])


@pytest.fixture(scope="module")
def server(
    programs: Path, scraped: Scraped, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    folder = tmp_path_factory.mktemp("prometheus") / "server"
    with prometheus(programs, folder, free_port(), f"127.0.0.1:{scraped.port}") as running:

        def counts() -> bool:
            return bool(running.ask("query", query="rate(flagstream_records_read_total[10s])")["result"])

        wait_until(counts, 60, "two scrapes")
        yield running


def as_asked(query: str) -> str:
    return query.replace("$agent", ".+").replace("$__rate_interval", "1m")


def test_the_agent_is_live_and_ready(scraped: Scraped) -> None:
    assert scraped.page("/livez") == "ok\n"
    assert scraped.page("/readyz") == "ok\n"
    assert scraped.has(r'flagstream_ready\{agent="tester"\} 1\.0')()


@pytest.mark.parametrize(
    ("title", "query"),
    [
        (f"{each.uid}: {panel.title}", query)
        for each in DASHBOARDS
        for panel in each.panels
        for query, _ in panel.queries
    ],
)
def test_every_panel_has_series_where_the_agent_has_them(
    title: str, query: str, server: PrometheusServer, scraped: Scraped
) -> None:
    found = server.ask("query", query=as_asked(query))["result"]
    page = scraped.page()
    has_them = all(re.search(rf"^{name}[ {{]", page, re.MULTILINE) for name in _METRIC.findall(query))
    if has_them and not _FILTERED.search(query):
        assert found, f"{title}: {query}"
    for each in found:
        assert each["metric"].get("agent", "tester") == "tester"


def test_nearly_every_metric_is_there(scraped: Scraped) -> None:
    page, missing = scraped.page(), []
    for each in DASHBOARDS:
        for panel in each.panels:
            names = {name for query, _ in panel.queries for name in _METRIC.findall(query)}
            missing += [name for name in names if not re.search(rf"^{name}[ {{]", page, re.MULTILINE)]
    beside = {
        each.name for book in (ServeMetrics(["a"]).book, NotifyMetrics("a").book) for each in book.meanings
    }
    beside |= {each for each in missing if each.startswith("flagstream_executor")}  # it has no cluster
    missing = [each for each in missing if each.removesuffix("_bucket") not in beside]
    assert set(missing) <= {"flagstream_records_filtered_total"}  # the contract wants everything


def test_every_rule_is_evaluated_without_an_error(server: PrometheusServer) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), 60, "an evaluation")
    assert {rule["name"] for rule in rules()} == set(ALERTS)
    assert [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []


def test_names_and_helps_pass_the_linter_of_prometheus(programs: Path, scraped: Scraped) -> None:
    ours = "".join(
        f"{line}\n" for line in scraped.page().splitlines() if re.match(r"(# \w+ )?flagstream_", line)
    )
    checked = promtool(programs, "check", "metrics", given=ours)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_configuration_and_the_rules_are_valid(programs: Path) -> None:
    for what, name in (("config", "prometheus.yml"), ("rules", "flagstream-rules.yml")):
        checked = promtool(programs, "check", what, FILES / name)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_rule_fires_when_it_should_and_is_silent_when_not(programs: Path) -> None:
    checked = promtool(programs, "test", "rules", FILES / "flagstream-rules-test.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tests = yaml.safe_load((FILES / "flagstream-rules-test.yml").read_text(encoding="utf-8"))["tests"]
    names = {each["name"] for each in tests}
    assert names == {f"{alert} {what}" for alert in ALERTS for what in ("fires", "is silent")}


@pytest.mark.parametrize("expression", ["vector(1)", "vector(0) > 1"])
def test_rules_that_always_or_never_fire_fail_their_tests(
    expression: str, programs: Path, tmp_path: Path
) -> None:
    name = "flagstream-rules-test.yml"
    (tmp_path / name).write_text((FILES / name).read_text(encoding="utf-8"), encoding="utf-8")
    changed = yaml.safe_load((FILES / "flagstream-rules.yml").read_text(encoding="utf-8"))
    for rule in changed["groups"][0]["rules"]:
        rule["expr"] = expression
    (tmp_path / "flagstream-rules.yml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    checked = promtool(programs, "test", "rules", tmp_path / name)
    assert checked.returncode != 0
    assert set(re.findall(r"Flagstream\w+", checked.stdout + checked.stderr)) == set(ALERTS)
