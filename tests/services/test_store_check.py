"""What is tried of object stores, real ones, sound and spoiled ones: what it finds, names and leaves."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import from_url
from typer.testing import CliRunner

from schemas.errors import ConfigurationError
from streaming.cli.root import app
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.ownership import Ownership
from streaming.service.health import Health
from streaming.store.place import Place
from streaming.store.store_check import try_store
from streaming.testing.live_lake import agent
from streaming.testing.spoiled_store import (
    SpoiledStore,
    checked_beforehand,
    dropped,
    refused,
    unconditional,
)
from streaming.testing.stores import RunningStore, surroundings
from tests.azure_signature import AGENT_MAY, signed

ONE = pytest.mark.parametrize("store", ["gofakes3"], indirect=True)
OPERATIONS = [
    "write",
    "write if absent",
    "race of 16 creations",
    "replace if unchanged",
    "race of 16 replacements",
    "read",
    "list",
    "delete",
]


def faults(place: Place) -> dict[str, str]:
    return {each.operation: each.fault for each in try_store(place) if each.fault}


def left(store: RunningStore) -> list[str]:
    bucket = from_url(store.place.uri)
    return [each["path"] for batch in obstore.list(bucket) for each in batch]


@pytest.mark.parametrize("store", ["abfss", "azurite", "gofakes3", "versitygw"], indirect=True)
def test_a_sound_store_can_do_everything_and_is_left_as_it_was(store: RunningStore) -> None:
    found = try_store(store.place)
    assert [each.operation for each in found] == OPERATIONS
    assert [each for each in found if each.fault] == []
    assert left(store) == []


@ONE
@pytest.mark.parametrize("spoiling", [unconditional, checked_beforehand(0.1)])
def test_a_store_that_is_not_atomic_is_refused(
    spoiling: Any, store: RunningStore, spoiled: SpoiledStore
) -> None:
    spoiled.spoil(spoiling, verb="PUT")
    found = faults(store.place)
    assert found["race of 16 creations"].startswith("of 16 that created one object at once ")
    assert "let in, not one" in found["race of 16 creations"]
    if spoiling is unconditional:
        assert found["write if absent"] == "it has replaced an object that was to be written only if absent"
        assert found["replace if unchanged"] == "it has replaced an object that was no longer what was read"
    else:
        assert set(found) == {"race of 16 creations"}
    assert left(store) == []


@ONE
@pytest.mark.parametrize(
    ("verb", "permission"),
    [
        ("PUT", "s3:PutObject on arn:aws:s3:::lake/{prefix}/*"),
        ("GET", "s3:GetObject on arn:aws:s3:::lake/{prefix}/*"),
        ("LIST", "s3:ListBucket on arn:aws:s3:::lake"),
        ("POST", "s3:DeleteObject on arn:aws:s3:::lake/{prefix}/*"),
    ],
)
def test_a_permission_that_is_missing_is_named(
    verb: str, permission: str, store: RunningStore, spoiled: SpoiledStore
) -> None:
    spoiled.spoil(refused(403), verb=verb)
    missing = {each.needs for each in try_store(store.place) if each.fault}
    prefix = store.place.uri.removeprefix("s3://lake/")
    assert missing == {permission.format(prefix=prefix)}


@pytest.mark.parametrize("store", ["azurite"], indirect=True)
@pytest.mark.parametrize(("without", "operations"), [("r", ["read"]), ("l", ["list"]), ("d", ["delete"])])
def test_on_azure_what_a_signature_does_not_allow_is_named_with_the_role_that_is_enough(
    without: str, operations: list[str], store: RunningStore
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    with surroundings(signed(store, soon, AGENT_MAY.replace(without, ""))):
        missing = [each for each in try_store(store.place) if each.fault]
    assert [each.operation for each in missing] == operations
    assert {each.fault for each in missing} == {"not permitted"}
    assert "Storage Blob Data Contributor" in missing[0].needs


@ONE
def test_a_store_that_does_not_answer_is_asked_once(store: RunningStore, spoiled: SpoiledStore) -> None:
    spoiled.spoil(dropped)
    found = try_store(store.place)
    assert len(found) == 1 and found[0].fault
    assert spoiled.counted()["LIST"] == 0


@ONE
@pytest.mark.usefixtures("store")
def test_a_bucket_that_is_not_there_is_named() -> None:
    found = try_store(Place("s3://absent/prefix"))
    assert len(found) == 1 and "no such bucket" in found[0].fault


@pytest.mark.parametrize("store", ["versitygw", "azurite"], indirect=True)
def test_a_wrong_key_is_told_and_not_quoted(store: RunningStore, tmp_path: Path) -> None:
    wrong = "d3Jvbmcta2V5LW9mLXRoZS10ZXN0"
    name = "AWS_SECRET_ACCESS_KEY" if "AWS_REGION" in store.environment else "AZURE_STORAGE_ACCOUNT_KEY"
    with surroundings(store, **{name: wrong}):
        told = doctor(tmp_path, store, "--json").stdout
    (found,) = (each for each in json.loads(told) if each["name"] == "store")
    if name.startswith("AWS"):
        unknown = "write: the store does not know this login (SignatureDoesNotMatch): correct key and secret"
        assert found["found"] == f"{store.place.uri}: {unknown}"
    else:  # the emulator calls it a missing right
        assert "write: not permitted" in found["found"]
        assert found["advice"].startswith("see whether this is the right login")
    assert wrong not in told


def doctor(tmp_path: Path, store: RunningStore, *more: str) -> Any:
    environment = {"FLAGSTREAM_STORE": store.place.uri, "FLAGSTREAM_HOME": str(tmp_path)}
    return CliRunner().invoke(app, ["doctor", *more], env=environment)


def test_doctor_says_what_the_store_can_do(store: RunningStore, tmp_path: Path) -> None:
    found = {each["name"]: each for each in json.loads(doctor(tmp_path, store, "--json").stdout)}
    assert found["store"]["ok"], found["store"]
    assert found["store"]["found"].startswith(f"{store.place.uri}: write, write if absent, race of 16")
    assert left(store) == []


@ONE
@pytest.mark.parametrize("spoiling", [unconditional, checked_beforehand(0.1), None])
def test_no_run_begins_a_lake_in_a_store_that_is_not_atomic(
    spoiling: Any, store: RunningStore, spoiled: SpoiledStore, tmp_path: Path
) -> None:
    if spoiling is not None:
        spoiled.spoil(spoiling, verb="PUT")
    settings = replace(Settings.load(tmp_path), store=store.place)
    with (
        closing(Health(settings.health("tester"))) as health,
        closing(Ownership.of(PlacedAgent(settings, agent()), health)) as ownership,
    ):
        if spoiling is None:
            assert ownership.waits_for() is None
            assert len(left(store)) == 1, "the record alone"
        else:
            with pytest.raises(ConfigurationError, match=r"were let in: no lake can be kept there"):
                ownership.waits_for()
            assert left(store) == []


@ONE
def test_doctor_refuses_a_store_that_is_not_atomic(
    store: RunningStore, spoiled: SpoiledStore, tmp_path: Path
) -> None:
    spoiled.spoil(checked_beforehand(0.1), verb="PUT")
    result = doctor(tmp_path, store, "--json")
    assert result.exit_code != 0
    (found,) = [each for each in json.loads(result.stdout) if each["name"] == "store"]
    assert not found["ok"] and "race of 16 creations: of 16 that created one" in found["found"]
    assert "docs/stores.md" in found["advice"]
