"""The actions of the planning agent on a real small lake: what they find, and what they cannot do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from deltalake import DeltaTable

from agent.planning.catalogue import EntityHistory, EntityProfile, ReplayPreview, SimilarAlerts
from agent.planning.curated import curated_views
from agent.planning.finding import Claim, Finding
from agent.planning.sql_guard import check_query
from schemas.errors import ConfigurationError, FlagstreamError, MachineError, RetryableError
from schemas.policy import QueryLimits, ReplayLimits
from streaming.actions.entity_actions import EntityActions
from streaming.actions.findings import FindingFacts
from streaming.actions.lake_actions import LakeActions
from streaming.actions.query import plain
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.place import Place
from streaming.testing.live_lake import agent, events
from streaming.testing.small_lake import BUSY, BUSY_ALERTS, CONTRACT, DAY, build_lake, spec_of
from streaming.testing.trial import trial

VIEWS = curated_views(CONTRACT)
LIMITS = QueryLimits(rows=50, seconds=10, megabytes=64)
FACTS = FindingFacts("a" * 32, "why?", "p", "b" * 64)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    build_lake(PlacedAgent(Settings.load(folder, {}), spec_of()))
    return folder


@pytest.fixture
def actions(home: Path) -> LakeActions:
    return LakeActions(PlacedAgent(Settings.load(home, {}), spec_of()), CONTRACT, VIEWS, FACTS, lambda: DAY)


def answer(actions: LakeActions, sql: str, *values: str, seconds: float = 10.0, **limits: Any) -> Any:
    bounds = LIMITS.model_copy(update=limits)
    return actions.query_aggregates(
        check_query(sql, VIEWS, tuple(VIEWS), bounds.rows), values, bounds, seconds
    )


def test_a_query_counts_what_is_stored(actions: LakeActions) -> None:
    found = answer(actions, "SELECT count(*) AS n, min(amount) AS low FROM alerts WHERE terminal = ?", BUSY)
    assert found.rows[0]["n"] == BUSY_ALERTS
    assert found.rows[0]["low"] > 1_000
    by_day = answer(actions, "SELECT day, count(*) AS n FROM transactions GROUP BY day")
    assert by_day.rows == ({"day": "2026-05-01", "n": 600},)
    assert by_day.reveals["day"] == {"event_hour"}


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_every_view_can_be_queried_also_over_a_table_that_is_not_there_yet(
    actions: LakeActions, view: str
) -> None:
    found = answer(actions, f"SELECT * FROM {view}")
    stored = read_stored(actions._engine._places[view])
    assert bool(found.rows) == (stored is not None and stored.num_rows > 0)
    assert not found.rows or list(found.rows[0]) == [column.name for column in VIEWS[view].columns]


def test_views_join_labels_and_break_reasons_out(actions: LakeActions) -> None:
    sql = "SELECT count(*) AS n FROM alerts JOIN labels USING (transaction_id) WHERE is_fraud"
    assert answer(actions, sql).rows == ({"n": 2},)
    reasons = answer(actions, "SELECT reason, count(*) AS n FROM alerts GROUP BY reason ORDER BY n DESC")
    assert sum(row["n"] for row in reasons.rows) >= BUSY_ALERTS


def test_rows_are_limited_and_the_rest_is_told(actions: LakeActions) -> None:
    found = answer(actions, "SELECT amount FROM transactions", rows=7)
    assert (len(found.rows), found.facts["more_rows"]) == (7, True)
    found = answer(actions, "SELECT amount FROM transactions LIMIT 7", rows=7)
    assert (len(found.rows), found.facts["more_rows"]) == (7, False)


@pytest.mark.parametrize("seconds", [0.0, 0.2])  # with 0 the first interrupt comes before the query
def test_a_query_that_takes_too_long_is_interrupted(actions: LakeActions, seconds: float) -> None:
    endless = "SELECT count(*) AS n FROM transactions a, transactions b, transactions c, transactions d"
    with pytest.raises(RetryableError, match=f"longer than {seconds:.3g} s"):
        answer(actions, f"{endless} WHERE a.amount + b.amount < c.amount * d.amount", seconds=seconds)


def test_a_query_that_wants_too_much_memory_fails_and_spills_nothing(
    actions: LakeActions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the engine would spill to by itself
    wide = (
        "SELECT a.amount * b.amount + c.amount AS x, count(*) AS n "
        "FROM transactions a, transactions b, transactions c GROUP BY x ORDER BY n LIMIT 1"
    )
    with pytest.raises(MachineError, match="more than 32 MB"):
        answer(actions, wide, megabytes=32, seconds=60)
    assert not list(tmp_path.iterdir())


def test_a_value_of_another_type_is_an_error_and_no_injection(actions: LakeActions) -> None:
    with pytest.raises(ConfigurationError, match="ConversionException"):
        answer(actions, "SELECT count(*) AS n FROM alerts WHERE day = CAST(? AS DATE)", "no day")
    found = answer(actions, "SELECT count(*) AS n FROM alerts WHERE terminal = ?", "x' OR 1=1 --")
    assert found.rows == ({"n": 0},)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{path}')",
        "COPY (SELECT 1) TO '{path}'",
        "SELECT * FROM '{path}'",
        "SET enable_external_access = true",
        "ATTACH '{path}'",
        "INSTALL httpfs",
    ],
)
def test_the_engine_itself_reaches_nothing_even_if_the_guard_let_it_through(
    home: Path, actions: LakeActions, sql: str
) -> None:
    path = home / "secret.csv"
    path.write_text("a\n1\n", encoding="utf-8")
    harmless = check_query("SELECT count(*) AS n FROM alerts", VIEWS, tuple(VIEWS), 50)
    with actions._engine._connection(harmless, LIMITS) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql.format(path=path))
    assert path.read_text(encoding="utf-8") == "a\n1\n"


def test_values_become_json() -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    assert json.dumps(
        [plain(each) for each in (moment, moment.date(), float("nan"), None, True, timedelta(1))]
    )


def test_a_profile_says_what_is_usual_and_what_was_found(actions: LakeActions) -> None:
    facts = actions.look_up(EntityProfile(entity="terminal", id=BUSY)).facts
    assert (facts["payments"], facts["alerts"], facts["known_frauds"]) == (BUSY_ALERTS, BUSY_ALERTS, 2)
    assert facts["median_amount"] == pytest.approx(2_450, abs=100)
    with pytest.raises(ConfigurationError, match="no payments of this terminal"):
        actions.look_up(EntityProfile(entity="terminal", id="m999"))


def test_a_history_lists_the_newest_payments_first(actions: LakeActions) -> None:
    rows = actions.look_up(EntityHistory(entity="terminal", id=BUSY, limit=5)).rows
    times = [str(row["event_time"]) for row in rows]
    assert len(rows) == 5
    assert times == sorted(times, reverse=True)
    assert all(row["alerted"] for row in rows)
    assert "memo" not in rows[0]


def test_similar_alerts_are_nearest_first_and_hold_not_the_alert_itself(actions: LakeActions) -> None:
    one = answer(actions, "SELECT alert_id, amount FROM alerts WHERE terminal = 'm1' LIMIT 1").rows[0]
    found = actions.look_up(SimilarAlerts(alert=one["alert_id"][:8], limit=6))
    distances = [row["distance"] for row in found.rows]
    assert distances == sorted(distances)
    assert one["alert_id"] not in {row["alert_id"] for row in found.rows}
    assert found.facts["alert_id"] == one["alert_id"]
    with pytest.raises(ConfigurationError, match="no alert"):
        actions.look_up(SimilarAlerts(alert="0" * 32, limit=5))


SPAN = {"from_time": DAY, "to_time": DAY + timedelta(days=1)}


@pytest.mark.long
def test_a_preview_says_what_another_threshold_would_alert_and_changes_nothing_else(
    home: Path, actions: LakeActions
) -> None:
    before = {path.name: DeltaTable(path).version() for path in (home / "lake" / "tester").iterdir()}
    same = actions.replay_preview(ReplayPreview(**SPAN, threshold=0.999), ReplayLimits()).facts
    assert (same["added"], same["removed"], same["transactions"]) == (0, 0, 600)
    looser = actions.replay_preview(ReplayPreview(**SPAN, threshold=0.5), ReplayLimits()).facts
    assert looser["added"] > 100
    assert looser["published_alerts"] == same["kept"]
    after = {path.name: DeltaTable(path).version() for path in (home / "lake" / "tester").iterdir()}
    assert before == after


def test_a_preview_of_too_many_transactions_is_refused(actions: LakeActions) -> None:
    with pytest.raises(ConfigurationError, match="holds 600 transactions, at most 599"):
        actions.replay_preview(ReplayPreview(**SPAN, threshold=0.5), ReplayLimits(transactions=599))


def candidate(home: Path, **changes: Any) -> str:
    folder = home / "candidates"
    folder.mkdir(exist_ok=True)
    content = spec_of(**changes).model_dump(mode="json", exclude_none=True)
    (folder / "candidate.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return "candidates/candidate.yaml"


def test_a_preview_of_a_candidate_spec(home: Path, actions: LakeActions) -> None:
    wanted = ReplayPreview(**SPAN, candidate=candidate(home, threshold=0.9, rules=[]))
    assert actions.replay_preview(wanted, ReplayLimits()).facts["added"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"rules_file": "../../etc/passwd"},
        {"policy": "/etc/policy.json"},
        {"model": {"path": "/opt/model"}},
        {"data_sources": {"transactions": {"contract": "../other.yaml", "topic": "events"}}},
    ],
)
def test_a_candidate_reaches_no_file_outside_of_its_folder(
    home: Path, actions: LakeActions, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="outside of its folder"):
        actions.replay_preview(ReplayPreview(**SPAN, candidate=candidate(home, **changes)), ReplayLimits())


VALID = Finding("many", (Claim(text="40 alerts", evidence=("s1.n",)),), {"s1.n": 40})


@pytest.fixture
def posting(tmp_path: Path) -> Iterator[tuple[Path, LakeActions]]:
    settings = Settings.load(tmp_path, {})
    yield (
        settings.lake("tester").path,
        LakeActions(PlacedAgent(settings, spec_of()), CONTRACT, VIEWS, FACTS, lambda: DAY),
    )


def test_a_valid_finding_is_promoted_and_kept_once(posting: tuple[Path, LakeActions]) -> None:
    lake, actions = posting
    for _ in range(2):
        assert actions.post_finding(VALID).facts["promoted"] is True
    for name in ("findings_sandbox", "findings"):
        rows = read_stored(Place.local(lake / name))
        assert rows is not None
        (row,) = rows.to_pylist()
        assert json.loads(row["claims"]) == [{"text": "40 alerts", "evidence": {"s1.n": 40}}]
        assert (row["run_id"], row["goal"], row["written_by"]) == ("a" * 32, "why?", "rules")


def test_a_finding_that_does_not_hold_stays_in_the_sandbox(posting: tuple[Path, LakeActions]) -> None:
    lake, actions = posting
    broken = Finding("many", VALID.claims, {}, problems=("cites s1.n, which no result holds",))
    assert actions.post_finding(broken).facts["promoted"] is False
    kept = read_stored(Place.local(lake / "findings_sandbox"))
    assert kept is not None
    assert kept["problems"].to_pylist() == [["cites s1.n, which no result holds"]]
    assert read_stored(Place.local(lake / "findings")) is None


def test_an_action_on_a_lake_that_is_not_there_says_so(posting: tuple[Path, LakeActions]) -> None:
    _, actions = posting
    assert answer(actions, "SELECT count(*) AS n FROM alerts").rows == ({"n": 0},)
    for act in (
        lambda: actions.look_up(EntityProfile(entity="terminal", id=BUSY)),
        lambda: actions.look_up(SimilarAlerts(alert="abcdef", limit=3)),
        lambda: actions.replay_preview(ReplayPreview(**SPAN, threshold=0.5), ReplayLimits()),
    ):
        with pytest.raises(FlagstreamError):
            act()


def test_what_is_usual_is_said_by_currency(tmp_path: Path) -> None:
    payments = [
        {**each, "customer_id": "c1", "amount": amount, "currency": currency}
        for each, (amount, currency) in zip(
            events(5),
            [(40.0, "EUR"), (4_500.0, "JPY"), (45.0, "EUR"), (50.0, "EUR"), (5_500.0, "JPY")],
            strict=True,
        )
    ]
    spec = agent(rules=[])
    with trial(tmp_path, spec) as tried:
        tried.send(payments)
    found = EntityActions(PlacedAgent(tried.settings, spec), ("customer", "terminal")).profile(
        "customer", "c1"
    )
    facts = {name: found.facts[name] for name in ("payments", "currency", "median_amount", "largest_amount")}
    assert facts == {"payments": 5, "currency": "EUR", "median_amount": 45.0, "largest_amount": 50.0}
    assert found.rows == (
        {"currency": "EUR", "payments": 3, "median_amount": 45.0, "largest_amount": 50.0},
        {"currency": "JPY", "payments": 2, "median_amount": 5_000.0, "largest_amount": 5_500.0},
    )
    assert found.reveals["median_amount"] == {"amount"}
