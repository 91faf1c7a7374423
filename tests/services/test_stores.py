"""The object stores of the tests are atomic where it counts, and the proxy before them does as ordered."""

from __future__ import annotations

import os
import re
import runpy
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import ObjectStore, from_url

from schemas.errors import MachineError
from streaming.testing import store_servers, stores
from streaming.testing.spoiled_store import (
    SpoiledStore,
    checked_beforehand,
    dropped,
    late,
    lost_answer,
    refused,
    refused_after_all,
    unconditional,
)
from streaming.testing.stores import RunningStore, surroundings

RACERS = 16
PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def opened(store: RunningStore, patience: float = 30.0) -> ObjectStore:
    retries = {"max_retries": 10, "retry_timeout": timedelta(seconds=patience)}
    options = {"timeout": f"{patience}s", "allow_http": True}
    return from_url(store.place.uri, client_options=options, retry_config=retries)


def winners(store: ObjectStore, key: str) -> int:
    gate = threading.Barrier(RACERS)

    def create(number: int) -> int:
        gate.wait()
        try:
            obstore.put(store, key, str(number).encode(), mode="create")
        except AlreadyExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(RACERS) as pool:
        return sum(pool.map(create, range(RACERS)))


def unchanged(meta: Any) -> Any:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}


def test_the_example_of_the_page_on_tests_passes(settings: Any, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (each for each in blocks if "def test_an_answer_that_is_lost" in each)
    path = tmp_path / "example.py"
    path.write_text(code, encoding="utf-8")
    runpy.run_path(str(path))["test_an_answer_that_is_lost"](tmp_path, settings.cache)


def test_of_racing_creates_one_wins(store: RunningStore) -> None:
    opened_store = opened(store)
    assert [winners(opened_store, f"race/{number}") for number in range(10)] == [1] * 10


def test_what_was_replaced_meanwhile_is_not_replaced(store: RunningStore) -> None:
    opened_store = opened(store)
    obstore.put(opened_store, "counter", b"0")

    def add(_: int) -> None:
        while True:
            got = obstore.get(opened_store, "counter")
            try:
                value = str(int(bytes(got.bytes())) + 1).encode()
                obstore.put(opened_store, "counter", value, mode=unchanged(got.meta))
            except PreconditionError:
                continue
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    assert bytes(obstore.get(opened_store, "counter").bytes()) == b"20"


def test_a_table_is_written_and_read_by_the_environment_alone(store: RunningStore) -> None:
    uri = f"{store.place.uri}/table"
    write_deltalake(uri, pa.table({"a": [1, 2]}))
    write_deltalake(uri, pa.table({"a": [3]}), mode="append")
    assert DeltaTable(uri).version() == 1
    assert sorted(DeltaTable(uri).to_pyarrow_table()["a"].to_pylist()) == [1, 2, 3]


@pytest.mark.parametrize("name", ["versitygw", "azurite"])
def test_a_wrong_key_is_refused(name: str, store_server: Callable[[str], RunningStore]) -> None:
    own = store_server(name).elsewhere()
    wrong = (
        {"AWS_SECRET_ACCESS_KEY": "other"}
        if name == "versitygw"
        else {"AZURE_STORAGE_ACCOUNT_KEY": "b3RoZXI="}
    )
    with surroundings(own, **wrong), pytest.raises((BaseError, PermissionError)):
        obstore.put(opened(own), "key", b"")


def test_what_a_server_was_given_is_there_when_it_is_started_again(settings: Any, tmp_path: Path) -> None:
    with stores.versitygw(settings.cache, tmp_path) as first, surroundings(first):
        obstore.put(opened(first), "key", b"kept")
    with stores.versitygw(settings.cache, tmp_path) as again, surroundings(again):
        bucket = from_url(f"s3://{stores.BUCKET}")
        kept = f"{first.place.uri.rpartition('/')[2]}/key"
        assert bytes(obstore.get(bucket, kept).bytes()) == b"kept"


def test_surroundings_name_one_store_and_leave_no_trace(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "other")
    before = dict(os.environ)
    with surroundings(store):
        assert "AWS_PROFILE" not in os.environ
    assert dict(os.environ) == before


def test_without_what_builds_it_a_server_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FLAGSTREAM_CACHE", str(tmp_path))
    with (
        pytest.raises(MachineError, match=r"need Go 1\.25 for gofakes3, and there is no `go`: install it"),
        stores.gofakes3(tmp_path, tmp_path),
    ):
        pass
    store_servers.main()
    lines = capsys.readouterr().out.splitlines()
    assert [each.partition(", and there is no ")[2].partition(":")[0] for each in lines] == [
        "`go`",
        "`go`",
        "`npm`",
    ]


class TestSpoiledStore:
    @pytest.fixture
    def behind(self, store: RunningStore, spoiled: SpoiledStore) -> ObjectStore:
        return opened(store.by_way_of(spoiled.address))

    def test_what_is_not_spoiled_goes_through_and_is_counted(
        self, behind: ObjectStore, spoiled: SpoiledStore
    ) -> None:
        obstore.put(behind, "a/b", b"one", mode="create")
        assert bytes(obstore.get(behind, "a/b").bytes()) == b"one"
        assert obstore.head(behind, "a/b")["size"] == 3
        assert [each["path"] for each in obstore.list(behind, "a").collect()] == ["a/b"]
        with pytest.raises(FileNotFoundError):
            obstore.get(behind, "a/c")
        obstore.delete(behind, "a/b")
        counted = spoiled.counted()
        assert (counted["PUT"], counted["GET"], counted["HEAD"], counted["LIST"]) == (1, 2, 1, 1)
        assert sum(counted.values()) == 6  # a deletion is a DELETE or a POST of many

    def test_a_large_object_goes_through(self, behind: ObjectStore) -> None:
        content = os.urandom(12 << 20)
        obstore.put(behind, "large", content)
        assert bytes(obstore.get(behind, "large").bytes()) == content

    @pytest.mark.parametrize("spoiling", [refused(503), refused(500), refused(429), dropped])
    def test_what_passes_is_waited_out_by_the_client(
        self, spoiling: Any, behind: ObjectStore, spoiled: SpoiledStore
    ) -> None:
        obstore.put(behind, "key", b"one")
        spoiled.spoil(spoiling, times=2)
        assert bytes(obstore.get(behind, "key").bytes()) == b"one"
        assert spoiled.spoilt == 2

    @pytest.mark.parametrize("status", [401, 403])
    def test_what_does_not_pass_reaches_the_client_at_once(
        self, status: int, behind: ObjectStore, spoiled: SpoiledStore
    ) -> None:
        spoiled.spoil(refused(status))
        with pytest.raises((BaseError, PermissionError)):
            obstore.get(behind, "key")
        assert spoiled.spoilt == 1

    @pytest.mark.parametrize("spoiling", [lost_answer, refused_after_all])
    def test_a_lost_answer_leaves_what_was_written(
        self, spoiling: Any, behind: ObjectStore, spoiled: SpoiledStore
    ) -> None:
        spoiled.spoil(spoiling, verb="PUT", times=1)
        with pytest.raises(AlreadyExistsError):  # its own, which the client meets as it tries again
            obstore.put(behind, "key", b"one", mode="create")
        assert bytes(obstore.get(behind, "key").bytes()) == b"one"

    def test_a_store_that_is_away_costs_the_client_its_patience(
        self, store: RunningStore, spoiled: SpoiledStore
    ) -> None:
        hasty = opened(store.by_way_of(spoiled.address), patience=0.5)
        spoiled.spoil(dropped)
        with pytest.raises(GenericError):
            obstore.put(hasty, "key", b"one")
        spoiled.spoil(late(60.0))
        with pytest.raises(GenericError):
            obstore.put(hasty, "key", b"one")
        spoiled.mend()
        obstore.put(hasty, "key", b"one")

    def test_a_delay_is_added_to_every_request(self, behind: ObjectStore, spoiled: SpoiledStore) -> None:
        spoiled.delay = 0.05
        begun = time.monotonic()
        obstore.put(behind, "key", b"one")
        obstore.get(behind, "key")
        assert time.monotonic() - begun >= 0.1

    @pytest.mark.parametrize("store", ["gofakes3", "versitygw"], indirect=True)  # Azure's keys have no ids
    def test_a_key_that_has_expired_is_refused_and_another_is_not(
        self, store: RunningStore, spoiled: SpoiledStore
    ) -> None:
        moved = store.by_way_of(spoiled.address)
        old = opened(moved)
        spoiled.spoil(refused(400), key=store.environment["AWS_ACCESS_KEY_ID"])
        with pytest.raises(GenericError, match="ExpiredToken"):
            obstore.put(old, "key", b"one")


@pytest.mark.parametrize("store", ["gofakes3"], indirect=True)
@pytest.mark.parametrize(("spoiling", "says"), [(unconditional, False), (checked_beforehand(0.1), True)])
def test_a_server_that_is_not_atomic_has_many_winners(
    spoiling: Any, says: bool, store: RunningStore, spoiled: SpoiledStore
) -> None:
    behind = opened(store.by_way_of(spoiled.address))
    spoiled.spoil(spoiling, verb="PUT")
    assert winners(behind, "race") > 1
    obstore.put(behind, "once", b"1", mode="create")
    if says:  # which the check of one client after the other does not find
        with pytest.raises(AlreadyExistsError):
            obstore.put(behind, "once", b"2", mode="create")
