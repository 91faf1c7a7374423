"""Files and whole folders of this machine, and what a store's words become."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import MemoryStore

from schemas.errors import ConfigurationError, FlagstreamError, RetryableError
from streaming.output.redaction import keep_secret
from streaming.store import object_folders
from streaming.store.access import Access
from streaming.store.client import store_faults
from streaming.store.files import Files
from streaming.store.local_files import LocalFiles
from streaming.store.local_folders import LocalFolders
from streaming.store.object_files import ObjectFiles
from streaming.store.object_folders import ObjectFolders
from streaming.store.opening import files_of, folders_of
from streaming.store.place import Place
from tests.store_contracts import CHECKS, check_folders, check_writers

STORE = Place("s3://bucket/prefix")


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_files_of_this_machine(check: Callable[[Files], None], tmp_path: Path) -> None:
    check(LocalFiles(Place.local(tmp_path / "made")))


def test_whole_folders_of_this_machine(tmp_path: Path) -> None:
    check_folders(LocalFolders.of(tmp_path / "one"))
    check_writers(LocalFolders.of(tmp_path / "two"))


def test_what_a_writer_that_died_has_left_does_not_count_and_goes(tmp_path: Path) -> None:
    folders = LocalFolders.of(tmp_path)
    left = tmp_path / ".unfinished-one"
    left.mkdir()
    (left / "half").write_text("half")
    assert folders.names() == []
    with folders.writing("one") as folder:
        assert list(folder.iterdir()) == []
    left.mkdir()
    folders.tidy()
    assert [each.name for each in tmp_path.iterdir()] == ["one"]


def test_a_file_is_not_replaced_past_somebody_who_holds_its_lock(tmp_path: Path) -> None:
    files = LocalFiles(Place.local(tmp_path))
    held = files.create("record.json", b"first")
    assert held is not None
    with (tmp_path / "record.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert files.replace("record.json", b"second", held) is None
    assert files.replace("record.json", b"second", held) is not None


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="expected a regular file"):
        LocalFiles(Place.local(tmp_path)).read("pipe")


def test_a_place_says_what_serves_it(tmp_path: Path) -> None:
    here = Place.local(tmp_path)
    assert isinstance(files_of(here), LocalFiles)
    assert isinstance(folders_of(here, tmp_path), LocalFolders)
    assert isinstance(files_of(STORE), ObjectFiles)
    assert isinstance(folders_of(STORE, tmp_path), ObjectFolders)


def test_a_dropped_folder_goes_to_its_last_object_where_others_drop_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, delete = MemoryStore(), obstore.delete
    monkeypatch.setattr(object_folders, "client_of", lambda _: kept)
    names = [f"prefix/copy.0/{number}" for number in range(5)]
    for name in names:
        obstore.put(kept, name, b"x")

    def deleted(store: MemoryStore, keys: str | list[str]) -> None:
        """Another process has been quicker by one object."""
        for key in [keys] if isinstance(keys, str) else keys:
            if key.endswith("/1"):
                delete(store, key)
                raise FileNotFoundError(key)
            delete(store, key)

    monkeypatch.setattr(obstore, "delete", deleted)
    ObjectFolders(STORE, tmp_path)._remove("copy.0")
    assert [each["path"] for found in obstore.list(kept) for each in found] == []


def s3_error(status: str, code: str) -> str:
    return (
        f"Generic S3 error: Client error with status {status}: <?xml?><Error><Code>{code}</Code>"
        "<Message>said</Message></Error> for http://host/b/k?X-Amz-Signature=abcdef123456"
        "\n\nDebug source:\nGeneric { secret: super-secret-text }"
    )


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (PermissionDeniedError(s3_error("403", "AccessDenied")), ConfigurationError, "does not admit this"),
        (UnauthenticatedError(s3_error("401", "InvalidToken")), ConfigurationError, "reads, writes, lists"),
        (PermissionDeniedError(s3_error("403", "ExpiredToken")), RetryableError, "ExpiredToken"),
        (FileNotFoundError(s3_error("404", "NoSuchBucket")), ConfigurationError, "no such bucket"),
        (GenericError(s3_error("503", "SlowDown")), RetryableError, "SlowDown"),
        (GenericError("Generic S3 error: error sending request"), RetryableError, "error sending"),
        (GenericError("Generic S3 error: Missing SecretAccessKey"), ConfigurationError, "Missing"),
        (GenericError("Generic MicrosoftAzure error: Invalid Access Key"), ConfigurationError, "Access Key"),
    ],
)
def test_a_stores_words_become_an_error_of_ours_without_secrets(
    fault: Exception, kind: type[FlagstreamError], says: str
) -> None:
    keep_secret("super-secret-text")
    with pytest.raises(kind, match=says) as raised, store_faults(STORE):
        raise fault
    assert "s3://bucket/prefix" in str(raised.value)
    for hidden in ("super-secret-text", "abcdef123456", "Debug"):
        assert hidden not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_an_object_that_is_absent_is_no_fault() -> None:
    with pytest.raises(FileNotFoundError), store_faults(STORE):
        raise FileNotFoundError(s3_error("404", "NoSuchKey"))


def test_variables_of_one_place_are_told_by_their_prefix_and_not_shown() -> None:
    environ = {"X_AWS_ACCESS_KEY_ID": "apart", "X_AWS_REGION": "", "AWS_ACCESS_KEY_ID": "everywhere"}
    access = Access.with_prefix("X_", environ)
    assert access.variables == {"AWS_ACCESS_KEY_ID": "apart"}
    assert "apart" not in repr(access)
