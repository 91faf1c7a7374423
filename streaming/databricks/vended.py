"""Credentials of the store that Unity Catalog vends for a while: handed on to the libraries, and renewed.

The libraries that read and write the store know how to ask an address of this machine for credentials, and do
so again before those they have expire. So they are given such an address, which asks the workspace.
"""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from databricks.sdk.service.catalog import (
    GenerateTemporaryPathCredentialResponse,
    PathOperation,
)

from agent.model.child_environment import child_environment
from schemas.errors import ConfigurationError, FlagstreamError
from streaming.databricks.workspace import Workspace, workspace_faults
from streaming.output.log import log
from streaming.output.redaction import forget_secret, keep_secret
from streaming.store.whole_files import replace_file

_RENEWED_BEFORE_MS = 10 * 60 * 1000
_TOKEN_BYTES = 32
_TOKEN_FILE = "store-token"
_SERVER = "streaming.databricks.credential_server"
_SECONDS = 30.0
Give = Callable[[Mapping[str, str]], None]


class VendedCredentials:
    """The credentials of one location, as its readers and writers take them.

    Args:
        workspace: vends them.
        url: of the location.
        now_ms: current time, milliseconds since 1970.
    """

    def __init__(
        self, workspace: Workspace, url: str, now_ms: Callable[[], float] = lambda: time.time() * 1000
    ) -> None:
        self._workspace, self._url, self._now_ms = workspace, url, now_ms
        self._lock = threading.Lock()
        self._held: Mapping[str, str] = {}
        self._hidden, self._older = frozenset[str](), frozenset[str]()
        self._until_ms = 0.0

    def current(self) -> Mapping[str, str]:
        """Return credentials that are good for ten minutes at least.

        Raises:
            ConfigurationError: the workspace vends none for this location.
            RetryableError: it does not answer.
        """
        with self._lock:
            if self._until_ms - self._now_ms() < _RENEWED_BEFORE_MS:
                self._renew()
            return self._held

    def _renew(self) -> None:
        with workspace_faults(f"credentials for {self._url}"):
            found = self._workspace.path_credentials.generate_temporary_path_credentials(
                self._url, PathOperation.PATH_READ_WRITE
            )
        self._held, self._until_ms = self._written(found), float(found.expiration_time or 0)

    def _written(self, found: GenerateTemporaryPathCredentialResponse) -> Mapping[str, str]:
        vended = found.aws_temp_credentials
        if vended is None or not (vended.access_key_id and vended.secret_access_key):
            raise ConfigurationError(
                "the workspace vends no keys of S3 for it; for Azure name a service principal in "
                "AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, whose tokens are renewed",
                where=self._url,
            )
        self._hide(frozenset({vended.secret_access_key, vended.session_token or ""}))
        until = datetime.fromtimestamp((found.expiration_time or 0) / 1000, UTC)
        return {
            "AccessKeyId": vended.access_key_id,
            "SecretAccessKey": vended.secret_access_key,
            "Token": vended.session_token or "",
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _hide(self, fresh: frozenset[str]) -> None:
        """Hide those before, too, which are good for minutes still, and no longer those before them."""
        for each in fresh:
            keep_secret(each)
        for each in self._older - self._hidden - fresh:
            forget_secret(each)
        self._hidden, self._older = fresh, self._hidden


@contextmanager
def vending(
    credentials: VendedCredentials, folder: Path, seconds: float = _SECONDS
) -> Iterator[Mapping[str, str]]:
    """Answer the libraries of this process, and yield the variables that lead them there.

    Args:
        credentials: what is answered.
        folder: private; holds what they prove themselves with.
        seconds: after which it is asked whether they are to be renewed.

    Raises:
        ConfigurationError: nothing is vended for the location.
        RetryableError: the workspace does not answer.
        OSError: the process that is to answer cannot be begun.
    """
    first, word = credentials.current(), secrets.token_urlsafe(_TOKEN_BYTES)
    keep_secret(word)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / _TOKEN_FILE
    replace_file(file, word.encode())
    with closing(_Helper(word)) as helper:
        helper.give(first)
        ending = threading.Event()
        # No worker: it belongs to the process, and what fails is tried again long before it matters.
        thread = threading.Thread(
            target=_renew, args=(credentials, helper.give, ending, seconds), daemon=True
        )
        thread.start()
        try:
            yield {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{helper.port}/credentials",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
            }
        finally:
            ending.set()
            thread.join()
            file.unlink(missing_ok=True)


def _renew(credentials: VendedCredentials, give: Give, ending: threading.Event, seconds: float) -> None:
    while not ending.wait(seconds):
        try:
            give(credentials.current())
        except (FlagstreamError, OSError) as fault:
            text = f"credentials of the store are not renewed: {fault}; it is tried again"
            log("credentials_not_renewed", text, level=logging.WARNING)


class _Helper:
    """The process that answers; what it may know goes by its standard input.

    Args:
        word: what those who ask prove themselves with.
    """

    def __init__(self, word: str) -> None:
        self._word, self.port = word, 0
        self._process: subprocess.Popen[str] | None = None

    def give(self, content: Mapping[str, str]) -> None:
        """Have it answer this from now on; one that has died is begun anew, at the same port.

        Raises:
            OSError: it cannot be begun.
        """
        text, process = json.dumps(content), self._process
        if process is not None and process.poll() is None:
            with suppress(BrokenPipeError):
                _send(process, text)
                return
        self.close()
        self._process = self._begun(text)

    def close(self) -> None:
        """End it."""
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()
        self._process = None

    def _begun(self, content: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", _SERVER, str(self.port)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(), process_group=0,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            _send(process, self._word, content)
        said = process.stdout.readline()
        if not said:
            process.communicate()
            raise OSError("the process that answers for credentials ended at once")
        self.port = int(said)
        return process


def _send(process: subprocess.Popen[str], *lines: str) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()
