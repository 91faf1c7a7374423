"""Tables in object stores: who is refused, what is lost when answers are, and what each commit costs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import parse_qs, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from schemas.errors import ConfigurationError, FencedError, FlagstreamError, RetryableError, StoreError
from schemas.label import GIVEN, LABELS
from schemas.spec import TableNames
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.maintenance import Maintenance, MaintenanceLimits, clear, maintain, tables_below
from streaming.delta.shared_table import SharedTable
from streaming.delta.stored import open_version
from streaming.delta.table_versions import change_mark, open_for_reading, why_unreadable
from streaming.delta.whole_tables import dataset_of, read_stored
from streaming.labels.book import LabelBook
from streaming.store.object_files import ObjectFiles
from streaming.store.options import store_options
from streaming.store.place import Place
from streaming.store.store_check import try_store
from streaming.testing.spoiled_store import (
    SpoiledStore,
    Spoiling,
    dropped,
    lost_answer,
    refused,
    refused_after_all,
)
from streaming.testing.stores import RunningStore, surroundings
from tests.azure_signature import signed

SCHEMA = pa.schema([("n", pa.int64()), ("who", pa.string())])
KEEP = timedelta(days=30)
SOON = store_options("timeout=5s,max_retries=2,retry_timeout=2s,backoff_config.max_backoff=100ms", "test")
in_both_clouds = pytest.mark.parametrize("store", ["gofakes3", "azurite"], indirect=True)
however_spelt = pytest.mark.parametrize("store", ["abfss", "azurite", "gofakes3", "versitygw"], indirect=True)


def at(store: RunningStore) -> Place:
    return replace(store.place, options=SOON)


def table(place: Place) -> LakeTable:
    return LakeTable(place / "rows", SCHEMA, "agent/epoch", KEEP)


def claimed(place: Place) -> LakeTable:
    found = table(place)
    found.claim(found.epoch + 1)
    return found


def row(number: int, who: str = "a") -> pa.Table:
    return pa.table({"n": [number], "who": [who]}, schema=SCHEMA)


def numbers(place: Place) -> list[int]:
    found = read_stored(place / "rows", ["n"])
    assert found is not None
    return sorted(found["n"].to_pylist())


def together(several: list[Callable[[], object]]) -> list[object]:
    """Begin all at the same moment; return what each returned or raised."""
    gate = threading.Barrier(len(several))

    def run(each: Callable[[], object]) -> object:
        gate.wait()
        try:
            return each()
        except FlagstreamError as fault:
            return fault

    with ThreadPoolExecutor(len(several)) as pool:
        return list(pool.map(run, several))


def test_of_two_drivers_that_claim_at_once_one_has_the_table(store: RunningStore) -> None:
    place = at(store)
    for epoch in range(1, 11):
        several = [table(place) for _ in range(4)]
        answers = together([partial(each.claim, epoch) for each in several])
        assert sum(each is None for each in answers) == 1
        assert all(each is None or isinstance(each, FencedError | RetryableError) for each in answers)


@however_spelt
def test_of_two_that_commit_the_same_batch_one_prevails(store: RunningStore) -> None:
    place = at(store)
    first = claimed(place)
    for batch in range(10):
        second = table(place)
        second.hold(first.epoch)
        answers = together([partial(each.append, row(batch), Stamp("q", batch)) for each in (first, second)])
        assert sum(each is True for each in answers) == 1
        assert all(each is True or each is False or isinstance(each, RetryableError) for each in answers)
        first = table(place)
        first.hold(first.epoch)
    assert numbers(place) == list(range(10))


@however_spelt
def test_a_zombie_writes_nothing_once_another_has_claimed(store: RunningStore) -> None:
    zombie = claimed(at(store))
    zombie.append(row(0), Stamp("q", 0))
    heir = claimed(at(store))
    for batch in (1, 2):
        with pytest.raises(FencedError):
            zombie.append(row(batch), Stamp("q", batch))
    heir.append(row(1), Stamp("q", 1))
    assert numbers(at(store)) == [0, 1]


def test_twenty_that_write_side_by_side_lose_nothing(store: RunningStore) -> None:
    place = at(store)
    SharedTable(place / "rows", SCHEMA, KEEP)

    def write(who: int) -> None:
        shared = SharedTable(place / "rows", SCHEMA, KEEP)
        for number in range(5):
            stamp = Stamp(f"w{who}", number)
            shared.by_turns(lambda: shared.append(row(who * 5 + number), stamp))  # noqa: B023 -- called at once

    assert together([partial(write, who) for who in range(20)]) == [None] * 20
    assert numbers(place) == list(range(100))


def test_two_that_compact_at_once_double_nothing(store: RunningStore) -> None:
    place, limits = at(store), MaintenanceLimits(files=4, entries=10_000)
    driver = claimed(place)
    for round_ in range(5):
        for batch in range(round_ * 6, round_ * 6 + 6):
            driver.append(row(batch), Stamp("q", batch))

        def compact() -> object:
            try:
                return maintain(place / "rows", limits)
            except Exception as fault:
                return type(fault).__name__

        assert True in together([compact, compact, compact])
        assert numbers(place) == list(range(round_ * 6 + 6))


def test_a_driver_goes_on_while_its_table_is_compacted(store: RunningStore) -> None:
    place = at(store)
    driver = claimed(place)
    for batch in range(30):
        driver.append(row(batch), Stamp("q", batch))
        if batch % 5 == 4:
            assert maintain(place / "rows", MaintenanceLimits(files=4, entries=6))
    assert numbers(place) == list(range(30))
    assert driver.read("n", 28)["n"].to_pylist() == [28, 29]


def test_maintenance_goes_round_a_store_and_clears_what_nothing_names(store: RunningStore) -> None:
    place, limits = at(store), MaintenanceLimits(files=8, entries=10, least_age=timedelta(0))
    driver = LakeTable(place / "rows", SCHEMA, "agent/epoch", timedelta(seconds=1))
    driver.claim(1)
    keeper = Maintenance(lambda: tables_below(place), limits)
    for batch in range(30):
        driver.append(row(batch), Stamp("q", batch))
        keeper.round()
    keeper.round()
    newest = open_version(place / "rows")
    assert newest is not None
    assert len(newest.files("n", 0, None)) < 20
    assert numbers(place) == list(range(30))
    assert clear(place / "rows", limits) is not None


def test_a_version_whose_files_are_gone_is_named_with_the_reason(store: RunningStore) -> None:
    place = at(store)
    driver = claimed(place)
    for batch in range(3):
        driver.append(row(batch), Stamp("q", batch))
    early = driver.version
    assert why_unreadable(place / "rows", early) is None
    maintain(place / "rows", MaintenanceLimits(files=2))
    handle = DeltaTable((place / "rows").uri, storage_options=place.storage_options)
    assert handle.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert open_version(place / "rows", early) is None
    said = why_unreadable(place / "rows", early)
    assert said is not None
    assert "3 of its 3 files were vacuumed" in said


def test_a_mark_changes_with_each_commit(store: RunningStore) -> None:
    place = at(store)
    assert change_mark(place / "rows") == (0, 0)
    driver = claimed(place)
    before = change_mark(place / "rows")
    driver.append(row(0), Stamp("q", 0))
    after = change_mark(place / "rows", before)
    assert after != before
    assert change_mark(place / "rows", after) == after == change_mark(place / "rows")


@however_spelt
def test_labels_and_queries_read_a_lake_in_a_store(store: RunningStore) -> None:
    place = at(store)
    book = LabelBook(place / "labels", retention=KEEP, clock=lambda: datetime(2026, 5, 1, tzinfo=UTC))
    given = [
        {
            "transaction_id": f"t{each}",
            "is_fraud": each % 2 == 0,
            "decided_by": "bank",
            "source_position": each,
        }
        for each in range(10)
    ]
    labels = pa.Table.from_pylist(given, schema=GIVEN)
    assert book.record(labels, source="file").stored == 10
    assert book.record(labels, source="file").stored == 0
    assert book.status().frauds == 5
    frauds = dataset_of(place / "labels", LABELS).to_table(columns=["is_fraud"])["is_fraud"]
    assert pc.sum(frauds).as_py() == 5
    reader = LakeReader(place, TableNames())
    assert reader.count("labels") == 10
    assert pc.sum(reader.rows("labels", ["is_fraud"])["is_fraud"]).as_py() == 5


@in_both_clouds
def test_a_commit_is_two_requests_and_its_rows_are_read_back_without_one(
    store: RunningStore, spoiled: SpoiledStore
) -> None:
    driver = claimed(at(store))
    driver.append(row(0), Stamp("q", 0))
    assert driver.read("n", 0).num_rows == 1
    begun = len(spoiled.requests)
    driver.append(row(1), Stamp("q", 1))
    assert driver.read("n", 1)["n"].to_pylist() == [1]
    assert spoiled.counted(begun)["PUT"] == 2


@pytest.mark.parametrize("spoiling", [lost_answer, refused_after_all, dropped])
def test_whatever_becomes_of_an_answer_the_rows_are_there_once(
    store: RunningStore, spoiled: SpoiledStore, spoiling: Spoiling
) -> None:
    driver = claimed(at(store))
    shared = SharedTable(at(store) / "shared", SCHEMA, KEEP)
    for batch in range(6):
        spoiled.spoil(spoiling, verb="PUT", match=("_delta_log", ".parquet")[batch % 2], times=1)
        assert driver.append(row(batch), Stamp("q", batch))
        spoiled.spoil(spoiling, verb="PUT", match="_delta_log", times=1)
        shared.by_turns(lambda: shared.append(row(batch), Stamp("s", batch)))  # noqa: B023 -- called at once
    assert numbers(at(store)) == list(range(6))
    found = read_stored(at(store) / "shared")
    assert found is not None
    assert sorted(found["n"].to_pylist()) == list(range(6))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_store_is_asked_again(store: RunningStore, spoiled: SpoiledStore, status: int) -> None:
    driver = claimed(at(store))
    spoiled.spoil(refused(status), times=2)
    assert driver.append(row(0), Stamp("q", 0))
    assert numbers(at(store)) == [0]


@in_both_clouds
def test_a_store_that_stays_away_is_a_fault_that_may_pass(store: RunningStore, spoiled: SpoiledStore) -> None:
    driver = claimed(at(store))
    for spoiling in (dropped, refused(503)):
        spoiled.spoil(spoiling)
        with pytest.raises(StoreError):
            driver.append(row(0), Stamp("q", 0))
        with pytest.raises(StoreError):
            open_for_reading(at(store) / "rows")
    spoiled.mend()
    assert claimed(at(store)).append(row(0), Stamp("q", 0))
    assert numbers(at(store)) == [0]


REFUSALS = [
    ("gofakes3", refused(401), "does not admit"),
    ("gofakes3", refused(403), "does not admit"),
    ("gofakes3", refused(404), "no such bucket"),
    ("azurite", refused(401, "NoAuthenticationInformation"), "does not admit"),
    ("azurite", refused(403, "AuthorizationPermissionMismatch"), "does not admit"),
    ("azurite", refused(403, "AuthenticationFailed"), "does not admit"),
    ("azurite", refused(404, "ContainerNotFound"), "no such bucket or container"),
    (
        "azurite",
        refused(
            403,
            "AuthenticationFailed",
            "Signature not valid in the specified time frame: Start [Fri, 01 May 2026 00:00:00 GMT] - "
            "Expiry [Sat, 02 May 2026 00:00:00 GMT] - Current [Sat, 02 May 2026 00:00:01 GMT]",
        ),
        "the shared access signature has expired",
    ),
]


@pytest.mark.parametrize(("store", "spoiling", "says"), REFUSALS, indirect=["store"])
def test_what_somebody_must_set_right_is_said_in_a_sentence(
    store: RunningStore, spoiled: SpoiledStore, spoiling: Spoiling, says: str
) -> None:
    driver = claimed(at(store))
    spoiled.spoil(spoiling)
    for act in (
        lambda: driver.append(row(0), Stamp("q", 0)),
        lambda: open_for_reading(at(store) / "rows"),
        lambda: table(at(store)),
    ):
        with pytest.raises(ConfigurationError, match=says) as refusal:
            act()
        assert not [each for each in store.secrets if each in str(refusal.value)]


TOKEN_OVER = "Lifetime validation failed. The token is expired."
EXPIRED = [
    ("gofakes3", refused(400, "ExpiredToken")),
    ("azurite", refused(401, "InvalidAuthenticationInfo", TOKEN_OVER)),
    ("azurite", refused(403, "AuthenticationFailed", TOKEN_OVER)),
]


@pytest.mark.parametrize(("store", "spoiling"), EXPIRED, indirect=["store"])
def test_expired_credentials_that_are_renewed_are_waited_for(
    store: RunningStore, spoiled: SpoiledStore, spoiling: Spoiling
) -> None:
    driver = claimed(at(store))
    spoiled.spoil(spoiling)
    with pytest.raises(StoreError, match=spoiling.code):
        driver.append(row(0), Stamp("q", 0))
    with pytest.raises(StoreError, match=spoiling.code):
        open_for_reading(at(store) / "rows")
    with pytest.raises(StoreError, match=spoiling.code):
        ObjectFiles(at(store)).names()
    spoiled.mend()
    assert driver.append(row(0), Stamp("q", 0))
    assert numbers(at(store)) == [0]


@pytest.mark.parametrize("store", ["azurite"], indirect=True)
def test_a_signature_with_six_permissions_is_enough_until_it_expires_and_is_never_quoted(
    store: RunningStore,
) -> None:
    now = datetime.now(UTC)
    with surroundings(signed(store, now + timedelta(hours=1))):
        assert not [each for each in try_store(at(store)) if each.fault]
        claimed(at(store)).append(row(0), Stamp("q", 0))
        assert numbers(at(store)) == [0]
    over = signed(store, now - timedelta(hours=1))
    token = over.environment["AZURE_STORAGE_SAS_TOKEN"]
    with surroundings(over):
        for act in (lambda: table(at(store)), ObjectFiles(at(store)).names):
            with pytest.raises(ConfigurationError, match="does not admit") as refusal:
                act()
            assert parse_qs(token)["sig"][0] not in unquote(str(refusal.value))
