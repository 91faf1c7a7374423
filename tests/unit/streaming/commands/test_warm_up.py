"""Candidates with other profiles: warmed up on a span before theirs, or exact."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from schemas.errors import ConfigurationError, DataLossError
from streaming.commands.what_if_page import page
from streaming.commands.what_if_view import show_what_if
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.detection.scoring import Scorer
from streaming.history.decided import DecidedHistory
from streaming.history.replay import Replayer
from streaming.history.replay_runs import ReplaySpan, run_what_if, warm_up_of
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.local_folders import LocalFolders
from streaming.testing.live_lake import CONTRACT, DAY, agent, events, run_live, without_broker

ROWS, FIRST = 900, 600
LATER = ReplaySpan(from_time=(DAY + timedelta(minutes=FIRST)).replace(tzinfo=None))
OTHER = agent(version="2.0.0", profiles={"block_rows": 32, "horizons": ["1h", "3d"]})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings.load(tmp_path_factory.mktemp("home"), {})
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, agent()), events(ROWS))
    return settings


def folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the first row of every fold."""
    seen: list[int] = []
    real = Scorer.score

    def noted(scorer: Scorer, *arguments: object) -> object:
        seen.append(scorer.next_sequence)
        return real(scorer, *arguments)  # type: ignore[arg-type]  # passes on what it got

    monkeypatch.setattr(Scorer, "score", noted)
    return seen


@pytest.mark.long
@pytest.mark.parametrize(("minutes", "first"), [(100, 480), (1, 576), (10_000, None)])
def test_other_profiles_know_the_warm_up_alone(
    settings: Settings, minutes: int, first: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = folded(monkeypatch)
    found = run_what_if(PlacedAgent(settings, agent()), OTHER, LATER, timedelta(minutes=minutes))
    assert (found.cold_from, found.span) == (first, (FIRST, ROWS))
    assert min(seen) == (first or 0)
    assert found.facts()["cold_from"] == first


@pytest.mark.long
def test_a_candidate_that_a_checkpoint_fits_and_one_without_a_warm_up_are_exact(settings: Settings) -> None:
    fitting = run_what_if(PlacedAgent(settings, agent()), agent(threshold=0.9), LATER, timedelta(minutes=1))
    assert fitting.cold_from is None
    assert fitting.facts() | {"sandbox": 0} == run_what_if(
        PlacedAgent(settings, agent()), agent(threshold=0.9), LATER
    ).facts() | {"sandbox": 0}
    exact = run_what_if(PlacedAgent(settings, agent()), OTHER, LATER)
    assert exact.cold_from is None
    long = run_what_if(PlacedAgent(settings, agent()), OTHER, LATER, timedelta(days=30))
    assert long.facts() | {"sandbox": 0} == exact.facts() | {"sandbox": 0}


@pytest.mark.long
def test_reports_say_that_profiles_started_cold(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = run_what_if(PlacedAgent(settings, agent()), OTHER, LATER, timedelta(minutes=100))
    exact = run_what_if(PlacedAgent(settings, agent()), OTHER, LATER)
    told = "the candidate's profiles started cold at sequence 480"
    for found, expected in ((cold, True), (exact, False)):
        show_what_if(found, Console(width=200))
        assert (told in capsys.readouterr().out) == expected
        assert ("started cold at sequence 480" in page(found)) == expected


def test_a_cold_start_scores_as_if_its_first_row_were_the_very_first(settings: Settings) -> None:
    rows = read_stored(settings.lake("tester") / "transactions")
    assert rows is not None
    part = rows.sort_by("sequence").slice(480)
    cold, blank = Scorer.under(OTHER, CONTRACT), Scorer.under(OTHER, CONTRACT)
    cold.begin(480)
    place = part.schema.get_field_index("sequence")
    renumbered = part.set_column(place, "sequence", [np.arange(part.num_rows)])
    for first in range(0, part.num_rows, 50):
        scored = [each.score(rows.slice(first, 50)) for each, rows in ((cold, part), (blank, renumbered))]
        assert np.array_equal(scored[0].log_odds, scored[1].log_odds)
        for each, batch in zip((cold, blank), scored, strict=True):
            each.commit(batch)
    with pytest.raises(DataLossError):
        cold.begin(960)
    with pytest.raises(DataLossError):
        Scorer.under(OTHER, CONTRACT).begin(479)


def test_a_snapshot_has_nothing_to_warm_up_on(settings: Settings, tmp_path: Path) -> None:
    history = DecidedHistory(PlacedAgent(settings, agent()))
    history.profiles = LocalFolders.of(tmp_path)
    replayer = Replayer(settings, AgentDefinition.pinned(agent(), CONTRACT), history)
    transactions = history.tables(history.whole).transactions
    with pytest.raises(ConfigurationError, match="--snapshot"):
        next(replayer.decide(OTHER, transactions, history.whole, 480))


def test_options() -> None:
    assert warm_up_of(None) is None
    assert warm_up_of("7d") == timedelta(days=7)
    for text in ("soon", "-1d"):
        with pytest.raises(ConfigurationError, match="--warm-up"):
            warm_up_of(text)
