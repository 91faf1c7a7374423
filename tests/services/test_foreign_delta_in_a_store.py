"""Delta tables of others are read from object stores as from folders: their log says what counts."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import obstore
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from schemas.errors import ConfigurationError, StoreError
from streaming.batch.references import References
from streaming.commands.backfill import run_backfill
from streaming.delta.log_files import LOG, entry_name
from streaming.delta.whole_tables import read_stored
from streaming.files.delta_table import DeltaTableRows
from streaming.files.event_files import open_events
from streaming.history.backfill_source import open_history
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.health import Condition, Health
from streaming.store import options, spool
from streaming.store.client import client_of, key_of
from streaming.store.place import Place
from streaming.testing.live_lake import CONTRACT, agent, events, without_broker
from streaming.testing.spoiled_store import SpoiledStore, refused
from streaming.testing.stores import RunningStore
from tests.hand_made_delta import HandMadeTable, column, deletion_vector, features
from tests.unit.old_lake import FIXTURES
from tests.unit.streaming.batch.test_references import contract, decoded, table_of

however_spelt = pytest.mark.parametrize("store", ["gofakes3", "azurite", "abfss"], indirect=True)
in_gofakes3 = pytest.mark.parametrize("store", ["gofakes3"], indirect=True)
MAPPED, OTHERS = ("cm_name", "cm_id", "upgraded", "widening"), ("times", "v2cp", "multi", "writer")
OF_SPARK = ("dv", "part_string", "part_timestamp", *MAPPED, *OTHERS)
SOON = {"timeout": "5s", "connect_timeout": "5s", "max_retries": "1", "retry_timeout": "2s"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark")
    with tarfile.open(FIXTURES / "tables_of_spark" / "tables.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where files of tables are kept while they are read, and not longer."""
    monkeypatch.setattr(spool._SPOOL, "root", tmp_path / "spool")
    monkeypatch.setattr(options, "DEFAULTS", SOON)
    yield tmp_path / "spool"
    assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


def copied(folder: Path, place: Place) -> Path:
    """Copy a table into a store; return it as a command line has it, whose slashes are no longer two."""
    for path in (each for each in folder.rglob("*") if each.is_file()):
        file = place / path.relative_to(folder).as_posix()
        obstore.put(client_of(file), key_of(file), path.read_bytes(), use_multipart=False)
    return Path(str(place))


@however_spelt
def test_what_spark_wrote_is_read_as_from_a_folder(store: RunningStore, tables: Path) -> None:
    for name in OF_SPARK:
        here, there = tables / name, copied(tables / name, store.place / name)
        for version in (None, DeltaTableRows(here).version - 1):
            ours, theirs = (DeltaTableRows(path, version) for path in (there, here))
            assert ours.whole().equals(theirs.whole())
            known, wanted = ((each.count(), each.version, each.identity) for each in (ours, theirs))
            assert known == wanted


@in_gofakes3
def test_what_is_not_read_is_refused_with_the_place_in_the_store(store: RunningStore, tables: Path) -> None:
    variant = copied(tables / "variant", store.place / "variant")
    with pytest.raises(ConfigurationError, match=r"^s3://.*/variant: .* the feature 'variantType'"):
        DeltaTableRows(variant)
    torn = copied(tables / "dv", store.place / "torn")
    entry = store.place / "torn" / LOG / entry_name(4)
    obstore.put(client_of(entry), key_of(entry), b"", use_multipart=False)
    with pytest.raises(ConfigurationError, match="this entry of a table's log is not whole"):
        DeltaTableRows(torn)
    missing = copied(tables / "times", store.place / "missing")
    data = DeltaTableRows(missing)._files[0].place
    obstore.delete(client_of(data), key_of(data))
    with pytest.raises(ConfigurationError, match=r"s3://.*\.parquet is missing\. It was vacuumed"):
        DeltaTableRows(missing)
    gone = DeltaTableRows(copied(tables / "multi", store.place / "gone"))
    data = gone._files[0].place
    obstore.delete(client_of(data), key_of(data))
    with pytest.raises(ConfigurationError, match=r"\.parquet: cannot be read: s3://.*\.parquet is missing$"):
        gone.whole()
    with pytest.raises(ConfigurationError, match="of a store Delta tables alone are read"):
        open_events(Path(str(store.place / "nothing")), CONTRACT)
    with pytest.raises(ConfigurationError, match="gs:// is not supported"):
        open_events(Path("gs://bucket/table"), CONTRACT)


@in_gofakes3
def test_a_clone_reads_where_its_files_lie(store: RunningStore, tmp_path: Path) -> None:
    rows = pa.table({"id": pa.array([1, 2], pa.int64())})
    table = HandMadeTable(tmp_path / "source")
    added = table.add("a b.parquet", rows)
    table.commit(table.declare([column("id", "long")]), added)
    copied(table.path, store.place / "source")
    clone, added["add"]["path"] = HandMadeTable(tmp_path / "clone"), f"{store.place}/source/a%20b.parquet"
    clone.commit(clone.declare([column("id", "long")]), added)
    assert DeltaTableRows(copied(clone.path, store.place / "clone")).whole().equals(rows)
    added["add"]["path"] = "file:///etc/passwd"
    outside = HandMadeTable(tmp_path / "outside")
    outside.commit(outside.declare([column("id", "long")]), added)
    with pytest.raises(ConfigurationError, match="only files in stores are read"):
        DeltaTableRows(copied(outside.path, store.place / "outside"))


@in_gofakes3
@pytest.mark.parametrize("name", ["at=10%3A30/a.parquet", "a#b.parquet", "a?b.parquet", "[a] ü.parquet"])
def test_a_file_is_read_whatever_is_in_its_name(store: RunningStore, tmp_path: Path, name: str) -> None:
    table = HandMadeTable(tmp_path / "table", features("deletionVectors"))
    rows = pa.table({"id": pa.array([1, 2, 3], pa.int64())})
    added = table.add(name, rows, deletionVector=deletion_vector([0]))
    added["add"]["path"] = quote(name)
    table.commit(table.declare([column("id", "long")]), added)
    there = copied(table.path, store.place / "table")
    assert DeltaTableRows(there).whole().equals(rows.slice(1))
    clone, taken = HandMadeTable(tmp_path / "clone"), dict(added["add"])
    del taken["deletionVector"]
    taken["path"] = f"{store.place}/table/{quote(name)}"
    clone.commit(clone.declare([column("id", "long")]), {"add": taken})
    assert DeltaTableRows(copied(clone.path, store.place / "clone")).whole().equals(rows)


@however_spelt
def test_history_is_loaded_from_a_store(
    store: RunningStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    rows = pa.Table.from_pylist(events(300))
    for part in (0, 150):
        write_deltalake(tmp_path / "history", rows.slice(part, 150), mode="append")
    there = copied(tmp_path / "history", store.place / "history")
    assert open_history(there, CONTRACT).name == str(store.place / "history")
    stored = []
    for name, source in (("here", tmp_path / "history"), ("there", there)):
        settings = Settings.load(tmp_path / name, {})
        assert run_backfill(PlacedAgent(settings, agent()), source)["stored"] == 300
        stored.append(read_stored(settings.lake("tester") / "transactions", ["transaction_id", "amount"]))
    assert stored[0] == stored[1]


@however_spelt
def test_a_reference_in_a_store_is_read_anew_and_stays_in_force_while_the_store_is_away(
    store: RunningStore, spoiled: SpoiledStore, tmp_path: Path
) -> None:
    now, health = [0.0], Health()
    write_deltalake(tmp_path / "merchants", table_of([("m1", 0, 0.25)]))
    there = copied(tmp_path / "merchants", store.place / "merchants")
    references = References(contract(there), health, clock=lambda: now[0])
    asked = decoded([("m1", 3.0), ("m9", 3.0)])
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.25, None]
    write_deltalake(tmp_path / "merchants", table_of([("m9", 0, 0.5)]), mode="append")
    copied(tmp_path / "merchants", store.place / "merchants")
    now[0], begun = 29.0, len(spoiled.requests)
    references.renew()
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.25, None]
    assert len(spoiled.requests) == begun, "no batch waits for a store more often than that"
    now[0] = 31.0
    references.renew()
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.25, 0.5]
    assert references.pins() == {"references": {"merchants": "version 1"}}
    spoiled.spoil(refused(503))
    now[0] = 62.0
    references.renew()
    now[0] = 64.0
    references.renew()
    assert [each.condition for each in health.active] == [Condition.REFERENCE_UNREADABLE]
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.25, 0.5]
    spoiled.mend()
    now[0] = 93.0
    references.renew()
    assert not health.active


@however_spelt
def test_a_reference_that_is_made_anew_in_a_store_is_read_anew(store: RunningStore, tmp_path: Path) -> None:
    now, place = [0.0], store.place / "merchants"
    for name, risk in (("before", 0.25), ("after", 0.5)):
        write_deltalake(tmp_path / name, table_of([("m1", 0, risk)]))
    references = References(contract(copied(tmp_path / "before", place)), clock=lambda: now[0])
    asked = decoded([("m1", 3.0)])
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.25]
    for path in (each for each in (tmp_path / "before").rglob("*") if each.is_file()):
        file = place / path.relative_to(tmp_path / "before").as_posix()
        obstore.delete(client_of(file), key_of(file))
    copied(tmp_path / "after", place)
    now[0] = 31.0
    references.renew()
    assert references.join(asked)["merchant_risk"].to_pylist() == [0.5]


@in_gofakes3
def test_a_store_that_is_away_or_refuses_is_told_from_a_table_that_is_wrong(
    store: RunningStore, spoiled: SpoiledStore, tables: Path
) -> None:
    there = copied(tables / "dv", replace(store.place, options=SOON) / "dv")
    opened = DeltaTableRows(there)
    spoiled.spoil(refused(503))
    for act in (lambda: DeltaTableRows(there), opened.whole):
        with pytest.raises(StoreError, match="s3://"):
            act()
    spoiled.spoil(refused(403))
    for act in (lambda: DeltaTableRows(there), opened.whole):
        with pytest.raises(ConfigurationError, match="does not admit this"):
            act()
