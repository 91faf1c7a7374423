"""Credentials that a workspace vends: the libraries get them, prove who they are, and get others in time."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from databricks.sdk.core import ApiClient
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from obstore.store import S3Store
from pyspark.sql import SparkSession

from schemas.errors import ConfigurationError
from streaming.databricks.smoke import checks
from streaming.databricks.store_login import store_credentials
from streaming.databricks.vended import VendedCredentials, vending
from streaming.databricks.workspace import Workspace, connect
from streaming.output.redaction import redacted
from streaming.testing.workspace import TOKEN, LoopbackWorkspace, loopback_workspace
from tests.unit.streaming.databricks.samples import written

HOUR_MS = 3_600_000
NOW_MS = 1_900_000_000_000  # far ahead, so that the libraries keep what they were given


def keys(number: int, until_ms: int) -> dict[str, Any]:
    own = {
        "access_key_id": f"AKIA{number}",
        "secret_access_key": f"secret-{number}",
        "session_token": f"session-{number}",
    }
    return {"aws_temp_credentials": own, "expiration_time": until_ms, "url": "s3://lake"}


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackWorkspace]:
    with loopback_workspace() as found:
        monkeypatch.setenv("DATABRICKS_HOST", found.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield found


def credentials(clock: list[int]) -> VendedCredentials:
    return VendedCredentials(Workspace(ApiClient(connect(None))), "s3://lake/agent", lambda: clock[0])


def test_they_are_renewed_ten_minutes_before_they_expire_and_not_sooner(workspace: LoopbackWorkspace) -> None:
    clock = [NOW_MS]
    workspace.vended += [keys(1, NOW_MS + HOUR_MS), keys(2, NOW_MS + 2 * HOUR_MS)]
    vended = credentials(clock)
    for minutes, number in ((0, 1), (49, 1), (51, 2), (60, 2), (109, 2)):
        clock[0] = NOW_MS + minutes * 60_000
        assert vended.current()["AccessKeyId"] == f"AKIA{number}"
    (first, _) = (each.body for each in workspace.asked)
    assert first == {"url": "s3://lake/agent", "operation": "PATH_READ_WRITE"}
    assert redacted("secret-1 session-2") == "[redacted] [redacted]"


def test_those_that_opened_something_long_ago_are_no_longer_looked_for_in_each_line(
    workspace: LoopbackWorkspace,
) -> None:
    clock, numbers = [NOW_MS], range(71, 75)
    workspace.vended += [keys(each, NOW_MS + at * HOUR_MS) for at, each in enumerate(numbers, 1)]
    vended = credentials(clock)
    for _ in numbers:
        vended.current()
        clock[0] += HOUR_MS
    assert [redacted(f"secret-{each}") for each in numbers] == [
        "secret-71",
        "secret-72",
        "[redacted]",
        "[redacted]",
    ]


def test_nobody_else_on_the_machine_gets_them(workspace: LoopbackWorkspace, tmp_path: Path) -> None:
    workspace.vended.append(keys(1, NOW_MS + HOUR_MS))
    with vending(credentials([NOW_MS]), tmp_path / "scratch") as variables:
        address = variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        file = Path(variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
        assert file.stat().st_mode & 0o077 == 0
        for word in ("", "Bearer x", file.read_text(encoding="utf-8")[:-1]):
            request = urllib.request.Request(address, headers={"authorization": word})
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request, timeout=10)
        request = urllib.request.Request(address, headers={"authorization": file.read_text(encoding="utf-8")})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["AccessKeyId"] == "AKIA1"
    assert not file.exists()


def wait_for(variables: Mapping[str, str], key: str) -> None:
    word = Path(variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read_text(encoding="utf-8")
    address = variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        request = urllib.request.Request(address, headers={"authorization": word})
        with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            if json.load(answer)["AccessKeyId"] == key:
                return
        time.sleep(0.01)
    raise AssertionError(key)


def those_that_answer() -> list[int]:
    children = psutil.Process().children()
    return [each.pid for each in children if "streaming.databricks.credential_server" in each.cmdline()]


def test_who_answers_is_begun_anew_where_it_has_died(workspace: LoopbackWorkspace, tmp_path: Path) -> None:
    workspace.vended += [keys(1, NOW_MS + HOUR_MS), keys(2, NOW_MS + 3 * HOUR_MS)]
    clock = [NOW_MS]
    with vending(credentials(clock), tmp_path / "scratch", 0.01) as variables:
        wait_for(variables, "AKIA1")
        answering = those_that_answer()
        assert len(answering) == 1
        psutil.Process(answering[0]).kill()
        clock[0] += HOUR_MS
        wait_for(variables, "AKIA2")
        assert those_that_answer() != answering
    assert those_that_answer() == []


@contextmanager
def store() -> Iterator[tuple[str, list[str]]]:
    """A store that answers every list with nothing, and keeps whose keys it was asked with."""
    seen = list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = re.search(r"Credential=(\w+)/", self.headers.get("authorization", ""))
            seen.append(f"{found[1] if found else ''} {self.headers.get('x-amz-security-token')}")
            body = b'<?xml version="1.0"?><ListBucketResult><Name>lake</Name></ListBucketResult>'
            self.send_response(200 if "list-type" in self.path else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_libraries_that_read_and_write_the_lake_ask_with_them_and_again_with_the_next(
    workspace: LoopbackWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # Long expired by the clock of the libraries: they ask again each time; by ours only the first are.
    clock, expired = [0], 1_000_000_000_000
    workspace.vended += [keys(1, expired), keys(2, NOW_MS + HOUR_MS)]
    with store() as (endpoint, seen), vending(credentials(clock), tmp_path / "scratch", 0.01) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        options = {"aws_endpoint": endpoint, "aws_region": "eu-central-1"}
        opened = S3Store.from_url("s3://lake/a", config=options, client_options={"allow_http": True})
        for now in (0, expired):
            clock[0] = now
            wait_for(variables, "AKIA1" if now == 0 else "AKIA2")
            assert opened.list_with_delimiter()["objects"] == []
            delta = {**options, "aws_allow_http": "true", "timeout": "10s", "max_retries": "0"}
            with pytest.raises(TableNotFoundError):
                DeltaTable("s3://lake/a", storage_options=delta)
    assert set(seen) == {"AKIA1 session-1", "AKIA2 session-2"}
    assert seen == sorted(seen)


@pytest.mark.long
def test_the_first_job_of_a_workspace_reads_the_store_as_the_agent_will(
    workspace: LoopbackWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    workspace.vended.append(keys(1, NOW_MS + HOUR_MS))
    given = {"FLAGSTREAM_STORE": "s3://lake/a", "FLAGSTREAM_HOME": str(tmp_path / "home"), "AWS_REGION": "x"}
    spec = written(tmp_path / "bundle") / "agent" / "spec.yaml"
    with store() as (endpoint, seen):
        for name, value in {**given, "AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(name, value)
        found = checks(spec, tmp_path, cast("SparkSession", SimpleNamespace(version="3.5")), "vended")
    said = {each.name: each.said for each in found}
    assert said["store"] == "s3://lake/a can be read with the credentials that are vended"
    assert seen == ["AKIA1 session-1"]
    assert not [name for name in os.environ if name.startswith("AWS_CONTAINER_")]


def test_what_is_not_vended_is_refused_by_what_to_configure(
    workspace: LoopbackWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sas = {"azure_user_delegation_sas": {"sas_token": "sig=x"}, "expiration_time": NOW_MS}
    workspace.vended.append(sas)
    monkeypatch.setenv("FLAGSTREAM_STORE", "abfss://c@account.dfs.core.windows.net/x")
    with pytest.raises(ConfigurationError, match="AZURE_CLIENT_ID"), store_credentials("vended", tmp_path):
        pass
    with (
        pytest.raises(ConfigurationError, match="did you mean 'vended'"),
        store_credentials("vend", tmp_path),
    ):
        pass
