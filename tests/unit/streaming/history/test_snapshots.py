"""Snapshots on a real lake: replays from the copies alone, names, and damage."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.errors import ConfigurationError, DataLossError, RetryableError
from schemas.spec import AgentSpec
from streaming.cli.root import app
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.erasure_plan import Erasable, PlanFile
from streaming.delta.rewriting import maintained_alone, rewrite
from streaming.history.replay import Progress, Replayer
from streaming.history.replay_runs import ReplaySpan, run_replay, run_what_if
from streaming.history.replayed import ExactReplay
from streaming.history.snapshot_copy import create_snapshot
from streaming.history.snapshots import Snapshot, drop_snapshot, find_snapshot, new_snapshot, snapshots
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store import local_folders
from streaming.store.local_folders import LocalFolders
from streaming.testing.live_lake import CONTRACT, DAY, LARGE, agent, events, judge, run_live, without_broker

ROWS = 900


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an agent whose rules and labels changed on the way."""
    home, told = tmp_path_factory.mktemp("home"), events(ROWS)
    settings, strict = Settings.load(home, {}), agent(version="2.0.0", rules=[LARGE], threshold=0.9)
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, agent()), told[:400])
        judge(PlacedAgent(settings, agent()), [f"t{number:05d}" for number in range(0, 300, 7)])
        run_live(PlacedAgent(settings, agent()), told[400:600], first_batch=10)
        judge(PlacedAgent(settings, agent()), [f"t{number:05d}" for number in range(350, 560, 5)])
        run_live(PlacedAgent(settings, strict), told[600:], first_batch=20)
    return home


@pytest.fixture
def settings(lived: Path, tmp_path: Path) -> Settings:
    shutil.copytree(lived, tmp_path / "home")
    return Settings.load(tmp_path / "home", {})


def created(settings: Settings, name: str, wanted: ReplaySpan, spec: AgentSpec | None = None) -> Snapshot:
    spec = spec or agent()
    span = wanted.span(wanted.history(PlacedAgent(settings, spec)))
    return create_snapshot(settings, AgentDefinition.pinned(spec, CONTRACT), name, span)


def without_originals(settings: Settings) -> None:
    spec = agent()
    for table in spec.tables.model_dump().values():
        shutil.rmtree(settings.lake(spec.name) / table, ignore_errors=True)
    shutil.rmtree(settings.profiles(spec.name).path)


def replayed(settings: Settings, wanted: ReplaySpan) -> ExactReplay:
    return run_replay(PlacedAgent(settings, agent()), wanted)


SPANS = {
    "all": ReplaySpan(),
    "later": ReplaySpan(from_time=(DAY + timedelta(minutes=437)).replace(tzinfo=None)),
    "early": ReplaySpan(
        from_time=(DAY + timedelta(minutes=111)).replace(tzinfo=None),
        to_time=(DAY + timedelta(minutes=505)).replace(tzinfo=None),
    ),
    "versions": ReplaySpan(from_version=8, to_version=12),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SPANS)
def test_a_snapshot_replays_bit_for_bit_when_the_originals_are_gone(settings: Settings, name: str) -> None:
    before = replayed(settings, SPANS[name])
    made = created(settings, name, SPANS[name])
    without_originals(settings)
    found = replayed(settings, ReplaySpan(snapshot=name))
    assert (found.span, found.rows, found.alerts) == (before.span, before.rows, before.alerts)
    assert before.alerts > 10
    assert found.differences == before.differences == ()
    assert made.span == found.span
    assert made.rows["transactions"] >= found.rows
    assert made.rows["labels"] == 85


def test_a_replay_in_small_slices_needs_no_row_before_the_span(settings: Settings) -> None:
    created(settings, "later", SPANS["later"])
    without_originals(settings)
    wanted = ReplaySpan(snapshot="later")
    history = wanted.history(PlacedAgent(settings, agent()))
    replayer = Replayer(settings, AgentDefinition.pinned(agent(), CONTRACT), history, slice_rows=17)
    assert replayer.exactly(wanted.span(history)).differences == ()


def test_a_candidate_of_the_same_profiles_is_judged_on_a_snapshot(settings: Settings) -> None:
    strict = agent(version="3.0.0", threshold=0.9)
    on_lake = run_what_if(PlacedAgent(settings, agent()), strict, SPANS["later"])
    created(settings, "later", SPANS["later"])
    without_originals(settings)
    on_snapshot = run_what_if(PlacedAgent(settings, agent()), strict, ReplaySpan(snapshot="later"))
    assert {**on_lake.facts(), "sandbox": 0} == {**on_snapshot.facts(), "sandbox": 0}
    assert on_lake.added > 0
    other = agent(version="4.0.0", profiles={"block_rows": 128})
    with pytest.raises(ConfigurationError, match="holds no profiles of this spec's definition"):
        run_what_if(PlacedAgent(settings, agent()), other, ReplaySpan(snapshot="later"))


def test_a_damaged_snapshot_is_refused(settings: Settings) -> None:
    made = created(settings, "whole", ReplaySpan())
    made.check()
    file = next((made.place.path / "transactions").glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataLossError, match="damaged"):
        replayed(settings, ReplaySpan(snapshot="whole"))
    file.unlink()
    with pytest.raises(DataLossError, match="damaged"):
        made.check()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "x" * 65, "a b", "-x"])
def test_names_that_could_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    folders = LocalFolders.of(tmp_path)
    with pytest.raises(ConfigurationError, match="expected up to 64 letters"), new_snapshot(folders, name):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with new_snapshot(LocalFolders.of(tmp_path), "one") as folder:
            (folder / "file").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert snapshots(LocalFolders.of(tmp_path)) == list(tmp_path.iterdir()) == []


def test_created_listed_dropped(settings: Settings) -> None:
    folder = settings.snapshots("tester").path
    folders = LocalFolders.of(folder)
    assert snapshots(folders) == []
    first, second = created(settings, "one", SPANS["early"]), created(settings, "two", SPANS["later"])
    assert snapshots(folders) == [first, second]
    assert first.created_at.tzinfo == UTC
    with pytest.raises(ConfigurationError, match="already"):
        created(settings, "one", SPANS["early"])
    with pytest.raises(ConfigurationError, match="no snapshot 'onne'; did you mean 'one'"):
        find_snapshot(folders, "onne")
    with pytest.raises(ConfigurationError, match="no snapshot 'onne'; did you mean 'one'"):
        drop_snapshot(folders, "onne")
    (folder / "one" / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(ConfigurationError, match=r"manifest\.json: cannot be read: format 99 is not 1"):
        find_snapshot(folders, "one")
    drop_snapshot(folders, "one")
    assert [path.name for path in folder.iterdir()] == ["two"]
    assert replayed(settings, ReplaySpan()).differences == ()


def test_the_commands(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps(agent().model_dump(mode="json", exclude_defaults=True)))
    common = ["--spec", str(file), "--home", str(settings.home)]

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, *common], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    made = json.loads(run("snapshot", "create", "one", "--from-version", "8", "--json"))
    assert json.loads(run("snapshot", "list", "--json")) == [made]
    assert "one" in run("snapshot", "list")
    assert json.loads(run("replay", "--snapshot", "one", "--json"))["differences"] == 0
    with pytest.raises(ConfigurationError, match="choose one of"):
        run("replay", "--snapshot", "one", "--from-version", "8")
    assert json.loads(run("snapshot", "drop", "one", "--json")) == {"dropped": "one"}
    with pytest.raises(ConfigurationError, match="no snapshot 'one'; there are none"):
        run("snapshot", "drop", "one")


def begin(settings: Settings) -> PlanFile:
    plans = PlanFile(settings.lake(agent().name))
    plans.begin([Erasable("customer", "c5")], "anna", "asked for it", lambda _: "token")
    return plans


def copied(settings: Settings, on_progress: Progress) -> None:
    span = ReplaySpan().span(ReplaySpan().history(PlacedAgent(settings, agent())))
    definition = AgentDefinition.pinned(agent(), CONTRACT)
    create_snapshot(settings, definition, "kept", span, on_progress)


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "meanwhile", "put"])
def test_nothing_is_copied_of_what_is_being_erased(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Nor where it is begun while the copy, which is complete, is on its way to its place."""
    begun = list[str]()

    def at(moment: str) -> None:
        if moment == when and not begun:
            begun.append(moment)
            begin(settings)

    def put(folder: Path) -> None:
        at("put" if folder.name == ".unfinished-kept" else "profiles")

    monkeypatch.setattr(local_folders, "_sync_tree", put)
    at("before")
    with pytest.raises(ConfigurationError, match="is not finished: enter the same `flagstream erase`"):
        copied(settings, lambda _: at("meanwhile"))
    assert begun == [when]
    assert list(settings.snapshots(agent().name).path.glob("*")) == []


def test_an_erasure_that_begins_and_ends_meanwhile_leaves_no_copy_of_before(settings: Settings) -> None:
    place, ended = settings.lake(agent().name) / agent().tables.transactions, list[int]()

    def erase(rows: int) -> None:
        if ended:
            return
        plans = begin(settings)
        with maintained_alone(place):
            assert rewrite(place, lambda rows: rows.slice(0)).files > 0
        plans.remove()
        ended.append(rows)

    with pytest.raises(RetryableError, match=r"transactions: rows were changed .* create it once more"):
        copied(settings, erase)
    assert ended
    assert snapshots(LocalFolders.of(settings.snapshots(agent().name).path)) == []
