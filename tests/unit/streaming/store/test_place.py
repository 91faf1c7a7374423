from __future__ import annotations

from pathlib import Path

import pytest

from schemas.addresses import is_uri
from schemas.errors import ConfigurationError
from streaming.home.settings import Settings
from streaming.store.place import Place


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("s3://lake", "s3://lake"),
        ("s3://lake/a/b/", "s3://lake/a/b"),
        ("s3a://lake/a", "s3://lake/a"),
        ("S3://lake/A", "s3://lake/A"),
        ("az://container/a", "az://container/a"),
        ("abfss://c@account.dfs.core.windows.net/a", "abfss://c@account.dfs.core.windows.net/a"),
        ("file:///tmp/a%20b", "/tmp/a b"),
        ("/tmp/x", "/tmp/x"),
    ],
)
def test_a_place_is_named_by_a_uri_or_a_path(given: str, uri: str) -> None:
    assert Place.parse(given, "store").uri == uri


def test_a_relative_path_is_one_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Place.parse("lake", "store").path == tmp_path.resolve() / "lake"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("gs://lake/a", "gs:// is not supported"),
        ("gcs://lake", "gs:// is not supported"),
        ("hdfs://name/a", "hdfs:// is not supported"),
        ("https://bucket.example/a", "https:// is not supported"),
        ("s3://key:secret@lake/a", "without query, fragment or login"),
        ("s3://key@lake/a", "takes no login"),
        ("s3://lake/a?x=1", "without query"),
        ("s3:///a", "expected s3://bucket/prefix"),
        ("s3://lake/a/../b", "neither . nor .."),
        ("s3://lake//b", "empty parts"),
        ("abfss://lake/a", "expected abfss://container@"),
        ("file://host/a", "file:///absolute/path"),
        (" s3://lake/a", "blanks around it"),
        ("s3://lake/a\n", "blanks around it"),
        ("s3://lake/\0a", "cannot be seen"),
        ("s3://[lake/a", "expected a URI such as"),
        ("s3://lake:443/a", "expected s3://bucket/prefix"),
        ("az://a lake/a", "expected az://bucket/prefix"),
        ("s3://lake/a%20b", "a prefix cannot hold %20"),
        ("s3://lake/%2e%2e/b", "a prefix cannot hold %2e"),
        *((f"s3://lake/a{each}b", rf"a prefix cannot hold \{each}") for each in "[]^|\\"),
    ],
)
def test_what_cannot_be_a_store_is_refused_with_a_sentence(given: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        Place.parse(given, "FLAGSTREAM_STORE")
    assert refused.value.where == "FLAGSTREAM_STORE"
    assert "secret" not in str(refused.value)


def test_a_place_goes_down_and_up() -> None:
    place = Place("s3://lake/agents", {"timeout": "5s"}) / "cards"
    assert (place.name, place.parent.uri, place.uri) == (
        "cards",
        "s3://lake/agents",
        "s3://lake/agents/cards",
    )
    assert place.storage_options == {"timeout": "5s"}
    assert not place.is_local
    with pytest.raises(ConfigurationError, match="folder of this machine"):
        _ = place.path


def test_a_folder_of_this_machine_needs_no_options(tmp_path: Path) -> None:
    place = Place.local(tmp_path) / "a"
    assert (place.is_local, place.path, place.storage_options) == (True, tmp_path / "a", None)


@pytest.mark.parametrize("given", ["lake", "/a/b", "./x:y", "a/b:c/d"])
def test_paths_are_no_uris(given: str) -> None:
    assert not is_uri(given)


@pytest.mark.parametrize(
    "given",
    [
        "/Volumes/main/agent/lake",
        "file:///Volumes/a/b",
        "dbfs:/Volumes/main/agent",
        "/dbfs/mnt/lake",
        "dbfs:/lake",
    ],
)
def test_a_volume_of_a_workspace_takes_no_table(given: str) -> None:
    with pytest.raises(ConfigurationError, match="a Delta table on a volume is not safe"):
        Place.parse(given, "FLAGSTREAM_STORE")


@pytest.mark.parametrize("given", ["/data/Volumes/x", "/Volumesque/x", "/srv/dbfs/lake", "volumes/x"])
def test_what_only_looks_like_a_volume_is_a_place(given: str) -> None:
    assert Place.parse(given, "FLAGSTREAM_STORE").is_local


def test_a_home_on_a_volume_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"FLAGSTREAM_HOME: .*name the external location itself"):
        Settings.load(Path("/Volumes/main/agent/home"), {})
