"""Files, whole folders, the anchor and the record of who runs an agent, on real object stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from agent.audit.chain import Head
from agent.audit.events import AuditEvent
from schemas.errors import ConfigurationError, FencedError, RetryableError
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_guard import Anchor, AnchorFile
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.commands.doctor_checks import check_anchor
from streaming.delta.maintenance import tables_below
from streaming.delta.remote_log import newest_entry
from streaming.delta.table_files import files_below
from streaming.detection import checkpoints
from streaming.detection.scoring import Scorer
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.client import client_of, key_of, name_in
from streaming.store.files import Files
from streaming.store.object_files import ObjectFiles
from streaming.store.object_folders import ObjectFolders
from streaming.store.owner import BEAT_SECONDS, TAKEOVER_SECONDS, Owner
from streaming.store.place import Place
from streaming.testing.live_lake import agent
from streaming.testing.spoiled_store import SpoiledStore, lost_answer
from streaming.testing.stores import AZURE_ACCOUNT, RunningStore, surroundings
from tests.azure_signature import ANCHOR_MAY, signed
from tests.store_contracts import CHECKS, check_folders, check_racing_writers, check_writers, fill
from tests.unit.scoring_samples import agent_spec, stream

RETENTION = timedelta(days=30)
KEY = "k" * 32
MEGABYTES = 40  # more than one part of an upload, and more than one range of a download
S3 = pytest.mark.parametrize("store", ["versitygw"], indirect=True)


def left_in(spool: Path) -> list[Path]:
    """Return what lies in a spool beside the folders that processes have of their own."""
    return [each for folder in spool.iterdir() for each in folder.iterdir()]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_files_of_a_store(check: Callable[[Files], None], store: RunningStore) -> None:
    check(ObjectFiles(store.place / "made"))


@pytest.mark.parametrize(
    "part", ["a b", "a%b", "100%", "ä 日", "{a}~*", 'a<b>`"', "a+b=c&d;e,f:g@h", ".a", "..."]
)
def test_tables_and_files_of_a_place_lie_together(part: str, store: RunningStore) -> None:
    """Delta's library takes a place for an address, the store's client for a name."""
    place = Place.parse(f"{store.place}/{part}", "store") / "lake"
    write_deltalake((place / "rows").uri, pa.table({"n": [1]}))
    assert newest_entry(place / "rows") == 0
    assert tables_below(place) == [place / "rows"]
    assert ObjectFiles(place).create("one.json", b"1") is not None
    assert ObjectFiles(place).names() == ["one.json"]
    files = files_below(place / "rows")
    files.remove(list(files.written()))
    assert newest_entry(place / "rows") == -1


def test_whole_folders_of_a_store(store: RunningStore, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    check_folders(ObjectFolders(store.place / "one", spool), MEGABYTES << 20 // len("first"))
    check_writers(ObjectFolders(store.place / "two", spool))
    check_racing_writers(ObjectFolders(store.place / "three", spool))
    assert left_in(spool) == [], "nothing stays on this machine"


@pytest.mark.parametrize("step", ["_replace", "_remove"])
def test_of_a_folder_and_what_replaces_it_one_is_there_whenever_the_process_ends(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It ends before the manifest is replaced, or before what the one before has named is removed."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    folders = ObjectFolders(store.place)
    with folders.writing("a") as folder:
        fill(folder, "old")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ObjectFolders, step, end)
        with folders.writing("a", replace=True) as folder:
            fill(folder, "new")
    expected = "old" if step == "_replace" else "new"
    assert folders.read("a", "manifest.json").decode() == expected
    folders.tidy()
    assert folders.read("a", "inner/deep/leaf").decode() == f"{expected} leaf"
    assert len(folders._prefixes()) == 1, "nothing of the other one is left"


def objects(store: RunningStore) -> list[str]:
    place = store.place
    listed = obstore.list(client_of(place), key_of(place)).collect()
    return sorted(name_in(place, each["path"]) for each in listed)


@S3
def test_without_its_manifest_nothing_counts_and_leftovers_go(store: RunningStore, tmp_path: Path) -> None:
    folders = ObjectFolders(store.place, tmp_path)
    with folders.writing("one") as folder:
        fill(folder, "whole")
    whole = objects(store)
    obstore.put(client_of(store.place), key_of(store.place / "two.cut-off" / "manifest.json"), b"half")
    assert folders.names() == ["one"]
    assert not folders.holds("two")
    folders.tidy()
    assert objects(store) == whole
    obstore.delete(client_of(store.place), key_of(store.place / "one.json"))
    assert folders.names() == []
    folders.tidy()
    assert objects(store) == []


@S3
def test_what_is_torn_is_not_taken_for_whole(store: RunningStore, tmp_path: Path) -> None:
    folders = ObjectFolders(store.place, tmp_path)
    with folders.writing("one") as folder:
        fill(folder, "whole", large=9)
    key = next(each for each in objects(store) if each.endswith("/large"))
    obstore.put(client_of(store.place), key_of(store.place / key), b"short")
    with pytest.raises(FileNotFoundError, match="is not what was written"), folders.reading("one"):
        raise AssertionError


@S3
def test_an_answer_that_is_lost_after_the_write_is_settled(
    store: RunningStore, spoiled: SpoiledStore
) -> None:
    files = ObjectFiles(store.place)
    spoiled.spoil(lost_answer, verb="PUT", times=1)
    made = files.create("one", b"first")
    assert made is not None, "it is there, and it is ours"
    spoiled.spoil(lost_answer, verb="PUT", times=1)
    replaced = files.replace("one", b"second", made)
    assert replaced is not None
    assert files.replace("one", b"third", replaced) is not None
    assert files.create("one", b"other") is None


def test_an_anchor_in_a_store_only_ever_moves_on(store: RunningStore) -> None:
    anchor = AnchorFile(ObjectFiles(store.place), "audit.anchor")

    def advance(number: int) -> None:
        anchor.advance(Anchor(Head(number, f"h{number}"), "key"))

    anchor.advance(Anchor(Head(-1, "origin"), "key"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(advance, range(24)))
    found = anchor.read()
    assert found is not None
    advance(3)
    advance(24)
    found = anchor.read()
    assert found is not None
    assert found.head == Head(24, "h24")


def event(number: int) -> AuditEvent:
    return AuditEvent("batch_decided", "tester", {"batch_id": number}, "tester/q", number)


def test_the_audit_log_and_its_anchor_may_lie_in_two_stores_with_keys_of_their_own(
    store_server: Callable[[str], RunningStore], tmp_path: Path
) -> None:
    """The anchor's server checks signatures: with the lake's keys nobody could write there."""
    lake, guarded = store_server("gofakes3").elsewhere(), store_server("versitygw").elsewhere()
    login = {
        name: value for name, value in guarded.environment.items() if name != "AWS_EC2_METADATA_DISABLED"
    }
    apart = {f"FLAGSTREAM_AUDIT_ANCHOR_{name}": value for name, value in login.items()}
    given = {"FLAGSTREAM_STORE": str(lake.place), "FLAGSTREAM_AUDIT_ANCHOR": str(guarded.place), **apart}
    with surroundings(lake):
        settings = Settings.load(tmp_path / "home", {**given, "FLAGSTREAM_AUDIT_KEY": KEY})
        for number in range(3):
            LakeAudit(AuditPlaces(PlacedAgent(settings, agent())), RETENTION).record([event(number)])
        report = check_audit(AuditPlaces(PlacedAgent(settings, agent())))
        assert (report.sound, report.rows, report.anchored) == (True, 3, 2)
        without = Settings.load(tmp_path / "home", given)
        with pytest.raises(ConfigurationError, match=r"FLAGSTREAM_AUDIT_KEY: .*openssl rand -hex 32"):
            LakeAudit(AuditPlaces(PlacedAgent(without, agent())), RETENTION)
        keyless = {name: value for name, value in given.items() if "SECRET" not in name}
        refused = Settings.load(tmp_path / "home", {**keyless, "FLAGSTREAM_AUDIT_KEY": KEY})
        with pytest.raises((ConfigurationError, RetryableError)):
            LakeAudit(AuditPlaces(PlacedAgent(refused, agent())), RETENTION)
    with surroundings(guarded):
        found = ObjectFiles(guarded.place / "tester").read("audit.anchor")
        assert found is not None
        assert json.loads(found.content)["number"] == 2
    assert not (tmp_path / "home" / "audit").exists()


@pytest.mark.parametrize("store", ["azurite"], indirect=True)
def test_an_anchor_on_azure_needs_a_signature_that_may_delete_nothing(
    store: RunningStore, store_server: Callable[[str], RunningStore], tmp_path: Path
) -> None:
    token = signed(store, datetime.now(UTC) + timedelta(hours=1), ANCHOR_MAY).environment
    login = {
        "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
        "AZURE_STORAGE_SAS_TOKEN": token["AZURE_STORAGE_SAS_TOKEN"],
        "AZURE_STORAGE_ENDPOINT": f"{store.endpoint}/{AZURE_ACCOUNT}",
        "AZURE_ALLOW_HTTP": "true",
    }
    lake = store_server("gofakes3").elsewhere()
    given = {f"FLAGSTREAM_AUDIT_ANCHOR_{name}": value for name, value in login.items()}
    given |= {"FLAGSTREAM_STORE": str(lake.place), "FLAGSTREAM_AUDIT_ANCHOR": str(store.place)}
    with surroundings(lake):
        settings = Settings.load(tmp_path / "home", {**given, "FLAGSTREAM_AUDIT_KEY": KEY})
        assert check_anchor(store.place, settings).ok
        for number in range(3):
            LakeAudit(AuditPlaces(PlacedAgent(settings, agent())), RETENTION).record([event(number)])
        report = check_audit(AuditPlaces(PlacedAgent(settings, agent())))
    assert (report.sound, report.rows, report.anchored) == (True, 3, 2)
    assert "tester/audit.anchor" in objects(store)


class Clock:
    at = 0.0

    def __call__(self) -> float:
        return self.at


def test_one_at_a_time_runs_an_agent_whose_lake_is_in_a_store(store: RunningStore, tmp_path: Path) -> None:
    clock = Clock()
    owners = [
        Owner(ObjectFiles(store.place), "tester", tmp_path / f"h{each}", clock=clock, host=f"m{each}")
        for each in range(8)
    ]
    with ThreadPoolExecutor(8) as pool:
        waiting = list(pool.map(lambda each: each.waits_for(), owners))
    assert waiting.count(None) == 1
    holder = owners[waiting.index(None)]
    others = [each for each in owners if each is not holder]
    assert all(each.waits_for() for each in others)
    clock.at += BEAT_SECONDS
    holder.beat()
    for _ in range(int(TAKEOVER_SECONDS / BEAT_SECONDS)):
        assert all(each.waits_for() for each in others)
        clock.at += BEAT_SECONDS
    with ThreadPoolExecutor(8) as pool:
        waiting = list(pool.map(lambda each: each.waits_for(), others))
    assert waiting.count(None) == 1
    with pytest.raises(FencedError, match="has taken over"):
        holder.beat()
    successor = others[waiting.index(None)]
    successor.release()
    assert holder.waits_for() is None, "given up, it is had at once"
    for each in owners:
        each.release()


@S3
def test_a_beat_whose_answer_is_lost_keeps_the_record(
    store: RunningStore, spoiled: SpoiledStore, tmp_path: Path
) -> None:
    owner = Owner(ObjectFiles(store.place), "tester", tmp_path)
    spoiled.spoil(lost_answer, verb="PUT", times=1)
    assert owner.waits_for() is None
    for _ in range(3):
        spoiled.spoil(lost_answer, verb="PUT", times=1)
        owner.beat()
    assert owner.holds
    owner.release()


def test_a_checkpoint_in_a_store_is_what_was_written(store: RunningStore, tmp_path: Path) -> None:
    folders, spool = ObjectFolders(store.place / "profiles", tmp_path), tmp_path
    scorer = Scorer(agent_spec(), ("customer", "terminal"))
    scorer.fold(stream(2_000))
    snapshot = scorer.snapshot()
    for _ in range(2):
        checkpoints.write(snapshot, folders)
    found = checkpoints.newest(folders, snapshot.definition_hash)
    assert found.skipped == ()
    assert found.snapshot is not None
    assert found.snapshot.next_sequence == snapshot.next_sequence
    for kind, profiles in snapshot.profiles.items():
        read = found.snapshot.profiles[kind].state
        assert (read.moments == profiles.state.moments).all()
    assert left_in(spool) == []
    checkpoints.drop_after(folders, snapshot.next_sequence - 1)
    assert folders.names() == []
    assert objects(store) == []
