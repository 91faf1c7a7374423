"""An agent whose lake is in a store needs the URI and secrets alone: what is on a machine is expendable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import obstore
import pyarrow.parquet as pq
import pytest
from obstore.store import from_url

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, ModelReference
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.commands.train import run_training
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.history.replay_evidence import note_replay
from streaming.history.replay_runs import ReplaySpan, run_replay, run_what_if
from streaming.history.snapshot_copy import create_snapshot
from streaming.history.snapshots import drop_snapshot, snapshots
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.retention.enforcing import RetentionKeeper
from streaming.retention.witness import witnessed
from streaming.run.status import read_status
from streaming.store.object_files import ObjectFiles
from streaming.store.opening import files_of, folders_of
from streaming.store.place import Place
from streaming.store.store_check import try_store
from streaming.testing.live_lake import agent, events, judge, run_live, without_broker
from streaming.testing.stores import RunningStore, accounts, surroundings
from streaming.versions.moving import PromotionOptions, complete, promoted_to
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.stages import version_in

pytestmark = pytest.mark.timeout(300)
KEY = "a" * 32
ROWS = 180
BATCH = 90

LARGE_AMOUNT = 100
ANNA = Author("anna", "a try")
ASKED = {"maturity": "0s", "least_labels": 1, "alerts_tolerance": 10}
SHORT = {"block_rows": 64, "checkpoint_rows": 150, "horizons": ["10m", "1h"]}

Machine = Callable[[str], Settings]


in_both_clouds = pytest.mark.parametrize("store", ["gofakes3", "azurite"], indirect=True)


@pytest.fixture
def machine(store: RunningStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Settings of machines that share nothing but a store; each has a home of its own."""
    without_broker(monkeypatch)
    given = {"FLAGSTREAM_STORE": str(store.place), "FLAGSTREAM_AUDIT_KEY": KEY}
    return lambda name: Settings.load(tmp_path / name, given)


def replays_everywhere(settings: Settings, spec: AgentSpec) -> None:
    """The whole history replays bit for bit: from the lake, and from a snapshot of it in the store."""
    before = run_replay(PlacedAgent(settings, spec), ReplaySpan())
    assert (before.differences, before.rows) == ((), ROWS)
    assert before.alerts > 0
    kept = folders_of(settings.snapshots(spec.name), settings.spool)
    made = create_snapshot(settings, AgentDefinition.of(spec), "kept", before.span)
    assert made.place.uri.startswith(str(settings.snapshots(spec.name)))
    assert [each.name for each in snapshots(kept)] == ["kept"]
    again = run_replay(PlacedAgent(settings, spec), ReplaySpan(snapshot="kept"))
    assert (again.differences, again.rows, again.alerts) == ((), before.rows, before.alerts)
    drop_snapshot(kept, "kept")
    assert snapshots(kept) == []


def texts_of(store: RunningStore) -> Iterator[str]:
    """Names and contents of all objects of a prefix; of tables the rows, which lie compressed."""
    bucket = from_url(store.place.uri)
    for each in (found for batch in obstore.list(bucket) for found in batch):
        content = bytes(obstore.get(bucket, each["path"]).bytes())
        yield each["path"] + content.decode("latin-1")
        if each["path"].endswith(".parquet"):
            yield str(pq.read_table(BytesIO(content)).to_pylist())


def holds_no_secret(store: RunningStore, homes: Path, said: str) -> None:
    """Neither the store's keys nor the audit log's are in a home, an object, or what was printed."""
    kept = [path.read_bytes().decode("latin-1") for path in homes.rglob("*") if path.is_file()]
    texts = [said, *kept, *texts_of(store)]
    assert any("'t00001'" in text for text in texts), "rows of tables are looked through"
    hidden = [*store.secrets, KEY]
    assert len(hidden) > 1
    assert not [secret for secret in hidden for text in texts if secret in text]


@in_both_clouds
def test_another_machine_goes_on_where_the_first_one_ended(
    machine: Machine, store: RunningStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec, payments = agent().anew(), events(ROWS)
    run_live(PlacedAgent(machine("one"), spec), payments[:BATCH], rows=BATCH)
    run_live(PlacedAgent(machine("two"), spec), payments, first_batch=0, rows=BATCH)
    elsewhere = machine("three")
    lake = LakeReader(elsewhere.lake(spec.name), spec.tables)
    stored = lake.rows("transactions", ["transaction_id"])["transaction_id"].to_pylist()
    assert sorted(stored) == [each["tx_id"] for each in payments]
    assert folders_of(elsewhere.profiles(spec.name)).names() == [f"{ROWS:020d}"]
    status = read_status(PlacedAgent(elsewhere, spec), None)
    assert status.totals["stored"] == ROWS
    report = check_audit(AuditPlaces(PlacedAgent(elsewhere, spec)))
    assert (report.sound, report.anchored) == (True, report.rows - 1)
    replays_everywhere(elsewhere, spec)
    for name in ("one", "two", "three"):
        home = machine(name).home
        kept = {path.name for path in home.iterdir()} if home.exists() else set()
        assert not kept & {"lake", "profiles", "models", "audit"}
    holds_no_secret(store, tmp_path, "".join(capfd.readouterr()))


@in_both_clouds
def test_what_is_too_old_leaves_a_lake_in_a_store_and_what_remembers_it_stays(machine: Machine) -> None:
    spec, settings = (
        agent(retention=dict.fromkeys(("transactions", "alerts", "audit"), "400d")),
        machine("one"),
    )
    payments = events(4 * BATCH)
    run_live(PlacedAgent(settings, spec), payments[: 3 * BATCH], rows=BATCH)
    lake = LakeReader(settings.lake(spec.name), spec.tables)
    closed = lake.frame("batches", ["next_sequence", "closed_at"]).sort("next_sequence")["closed_at"]
    later: datetime = closed[-1] + timedelta(days=400)
    keeper = RetentionKeeper(settings, lambda: AgentDefinition.of(spec), lambda: later, lambda: later)
    removed = keeper.enforce()
    cut = removed["transactions"]
    assert 0 < cut < 3 * BATCH
    run_live(PlacedAgent(machine("two"), spec), payments, first_batch=0, rows=BATCH)
    elsewhere = machine("three")
    left = lake.rows("transactions", ["sequence"])["sequence"].to_pylist()
    assert sorted(left) == list(range(cut, 4 * BATCH))
    found = run_replay(PlacedAgent(elsewhere, spec), ReplaySpan())
    assert (found.differences, found.rows) == ((), 4 * BATCH - cut)
    assert read_status(PlacedAgent(elsewhere, spec), None).totals["stored"] == 4 * BATCH
    assert check_audit(AuditPlaces(PlacedAgent(elsewhere, spec))).sound


@in_both_clouds
def test_what_is_old_is_known_by_the_stores_own_clock(machine: Machine) -> None:
    settings, spec = machine("one"), agent()
    assert witnessed(PlacedAgent(settings, spec)) is None
    assert files_of(settings.owners).create("tester.json", b"{}") is not None
    noted = witnessed(PlacedAgent(settings, spec))
    assert noted is not None
    assert abs(noted - datetime.now(UTC)) < timedelta(minutes=1)


def trained_and_promoted(settings: Settings, first: AgentSpec) -> str:
    """Train on what is stored, promote a version with the model; return the model's digest."""
    SpecRegistry(PlacedAgent(settings, first)).add(first, ANNA)
    trained = run_training(PlacedAgent(settings, first), datetime(2030, 1, 1), "decided", "1h", seed=0)
    second = complete(first.model_copy(update={"version": "1.1.0", "model": model_at(trained["artefact"])}))
    registry = SpecRegistry(PlacedAgent(settings, first))
    registry.add(second, ANNA)
    found = run_what_if(PlacedAgent(settings, first), second, ReplaySpan())
    assert note_replay(PlacedAgent(settings, first), second, found, "anna")
    promoted_to(registry, "1.1.0", ANNA, PromotionOptions("active"))
    return str(trained["sha256"])


def model_at(place: str) -> ModelReference:
    assert "://" in place
    return ModelReference(path=place)


@in_both_clouds
def test_a_model_that_one_machine_trains_decides_on_another_and_outlives_its_folder_in_a_snapshot(
    machine: Machine,
) -> None:
    first, payments = complete(agent(promotion=ASKED, profiles=SHORT)), events(4 * BATCH)
    one, two, three = machine("one"), machine("two"), machine("three")
    run_live(PlacedAgent(one, first.anew()), payments[: 3 * BATCH], rows=BATCH)
    judge(
        PlacedAgent(one, first),
        [each["tx_id"] for each in payments[: 3 * BATCH] if each["amount"] > LARGE_AMOUNT],
    )
    digest = trained_and_promoted(one, first)
    active = version_in("active", SpecRegistry(PlacedAgent(two, first)).staged_versions())
    assert active is not None and active.spec.model is not None
    assert (active.version, active.spec.model.sha256) == ("1.1.0", digest)
    run_live(PlacedAgent(two, active.spec), payments, first_batch=0, rows=BATCH)
    assert folders_of(three.artefacts(first.name), three.spool).names() == [digest]
    create_snapshot(
        three, AgentDefinition.of(active.spec), "kept", ReplaySpan().history(PlacedAgent(three, first)).whole
    )
    for place in (three.models(first.name), three.artefacts(first.name)):
        folders_of(place, three.spool).drop_all()
    again = run_replay(PlacedAgent(three, active.spec), ReplaySpan(snapshot="kept"))
    assert (again.differences, again.rows) == ((), 4 * BATCH)
    assert again.alerts > 0


@pytest.fixture
def buckets(tmp_path: Path) -> Iterator[tuple[RunningStore, RunningStore]]:
    """One for the lake and one for the anchor, each open to an account of its own alone."""
    (tmp_path / "server").mkdir()
    with accounts(Settings.load(tmp_path, {}).cache, tmp_path / "server", ("payments", "guard")) as (a, b):
        yield a, b


def logins(store: RunningStore) -> dict[str, str]:
    """What the environment says of the anchor's store."""
    named = store.environment.items()
    return {f"FLAGSTREAM_AUDIT_ANCHOR_{name}": value for name, value in named if "METADATA" not in name}


def refuses(place: Place, account: RunningStore) -> bool:
    with surroundings(account):
        return {each.fault for each in try_store(place)} == {"not permitted"}


def test_the_anchor_lies_in_a_bucket_that_the_lakes_account_cannot_touch_and_the_other_way_round(
    buckets: tuple[RunningStore, RunningStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    (lake, guard), spec = buckets, agent().anew()
    assert refuses(guard.place, lake)
    assert refuses(lake.place, guard)
    given = {
        "FLAGSTREAM_STORE": str(lake.place),
        "FLAGSTREAM_AUDIT_ANCHOR": str(guard.place),
        "FLAGSTREAM_AUDIT_KEY": KEY,
    }
    with surroundings(lake):
        for whose in ({}, logins(lake)):
            settings = Settings.load(tmp_path / "wrong", {**given, **whose})
            with pytest.raises(ConfigurationError, match="the store does not admit this") as refusal:
                run_live(PlacedAgent(settings, spec), events(BATCH), rows=BATCH)
            assert refusal.value.where.startswith(str(guard.place))
        settings = Settings.load(tmp_path / "right", {**given, **logins(guard)})
        run_live(PlacedAgent(settings, spec), events(BATCH), rows=BATCH)
        report = check_audit(AuditPlaces(PlacedAgent(settings, spec)))
        assert (report.sound, report.anchored) == (True, report.rows - 1)
    with surroundings(guard):
        assert ObjectFiles(guard.place / spec.name).names() == ["audit.anchor"]
        with pytest.raises(ConfigurationError, match="the store does not admit this"):
            read_status(PlacedAgent(settings, spec), None)
