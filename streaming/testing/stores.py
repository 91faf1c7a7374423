"""Real object stores for the length of a block: a quick S3 server, one that checks keys, Azure's emulator.

Each yields a `RunningStore`. Its place is an empty prefix; its environment is all that deltalake and obstore
need to reach it, and `surroundings` puts that in force.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import ssl
import subprocess
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path

from agent.model.child_environment import child_environment
from agent.model.processes import free_port
from streaming.store.place import Place
from streaming.testing.running_server import running_server
from streaming.testing.store_servers import AZURITE, GOFAKES3, VERSITYGW, installed

BUCKET = "lake"
# The account that every installation of Azure's emulator has, as its manual prints it.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_OF_STORES = ("AWS_", "AZURE_", "AZURITE_")


@dataclass(frozen=True)
class RunningStore:
    """A store that answers.

    Attributes:
        place: a prefix of its own that holds nothing.
        endpoint: address of the server.
        environment: variables by which deltalake and obstore reach it, its keys among them.
        process: id of the server's process.
    """

    place: Place
    endpoint: str
    environment: Mapping[str, str]
    process: int

    @property
    def secrets(self) -> list[str]:
        """Values of its environment that nobody may see."""
        return [value for name, value in self.environment.items() if "SECRET" in name or "_KEY" in name]

    def by_way_of(self, address: str) -> RunningStore:
        """Return the same store as clients see it that reach it by another address, such as a proxy's."""
        moved = {name: value.replace(self.endpoint, address) for name, value in self.environment.items()}
        return replace(self, endpoint=address, environment=moved)

    def elsewhere(self) -> RunningStore:
        """Return the same store with another empty prefix."""
        return replace(self, place=Place(f"{self.place.uri.rpartition('/')[0]}/{uuid.uuid4().hex}"))


@contextmanager
def surroundings(store: RunningStore, **more: str) -> Iterator[None]:
    """Put the environment of a store in force, and what names any other store out of it."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(_OF_STORES)]:
        del os.environ[name]
    os.environ.update({**store.environment, **more})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def gofakes3(cache: Path, folder: Path) -> Iterator[RunningStore]:
    """Run a quick S3 server in memory, which takes any key and forgets all when it ends.

    Args:
        cache: folder of downloads.
        folder: for what it prints.
    """
    port = free_port()
    options = ["-backend", "memory", "-host", f"127.0.0.1:{port}", "-initialbucket", BUCKET, "-quiet"]
    endpoint, command = f"http://127.0.0.1:{port}", [*installed(GOFAKES3, cache), *options]
    with running_server(command, folder / "gofakes3.log", endpoint) as process:
        yield _s3(endpoint, f"flagstream{secrets.token_hex(5)}".upper(), secrets.token_hex(20), process)


@contextmanager
def versitygw(cache: Path, folder: Path, port: int | None = None) -> Iterator[RunningStore]:
    """Run an S3 server that checks signatures and keeps what it is given below `folder`, also when it ends.

    Args:
        cache: folder of downloads.
        folder: for what it keeps and prints.
        port: where it listens; a free one unless given.
    """
    with _gateway(cache, folder, port or free_port()) as (endpoint, login, process):
        yield _s3(endpoint, *login, process)


@contextmanager
def accounts(cache: Path, folder: Path, names: Sequence[str]) -> Iterator[list[RunningStore]]:
    """Run one server with several accounts, each with keys of its own and let into its own bucket alone.

    Args:
        cache: folder of downloads.
        folder: for what it keeps and prints.
        names: of the buckets.
    """
    with _gateway(cache, folder, free_port()) as (endpoint, (key, secret), process):
        admin = [*installed(VERSITYGW, cache), "admin", "--endpoint-url", endpoint]
        login = {**child_environment(), "ADMIN_ACCESS_KEY_ID": key, "ADMIN_SECRET_ACCESS_KEY": secret}

        def account(name: str) -> RunningStore:
            own = f"FS{secrets.token_hex(9).upper()}", secrets.token_hex(20)
            made = "create-user", "--access", own[0], "--secret", own[1], "--role", "user"
            owns = "create-bucket", "--bucket", name, "--owner", own[0]
            for words in (made, owns):
                subprocess.run([*admin, *words], env=login, check=True, capture_output=True)
            return _s3(endpoint, *own, process, bucket=name)

        yield [account(name) for name in names]


@contextmanager
def _gateway(cache: Path, folder: Path, port: int) -> Iterator[tuple[str, tuple[str, str], int]]:
    """Yield the address of a running versitygw, the keys of who may do everything, and its process."""
    kept, users = folder / "buckets", folder / "users"
    for each in (kept / BUCKET, users):
        each.mkdir(parents=True, exist_ok=True)
    key, secret = _keys_of(folder)
    endpoint = f"http://127.0.0.1:{port}"
    command = [*installed(VERSITYGW, cache), "--port", f"127.0.0.1:{port}", "--quiet"]
    # Marks lie in attributes of the files: in files beside them they would not change at the same moment.
    command += ["--iam-dir", str(users), "posix", str(kept)]
    login = {"ROOT_ACCESS_KEY_ID": key, "ROOT_SECRET_ACCESS_KEY": secret}
    with running_server(command, folder / "versitygw.log", endpoint, login) as process:
        yield endpoint, (key, secret), process


@contextmanager
def azurite(cache: Path, folder: Path) -> Iterator[RunningStore]:
    """Run Azure's emulator of Blob Storage, which checks signatures.

    Args:
        cache: folder of downloads.
        folder: for what it keeps and prints.
    """
    with _emulator(cache, folder) as (endpoint, process):
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": endpoint,
        }
        yield RunningStore(Place(f"az://{BUCKET}/{uuid.uuid4().hex}"), endpoint, environment, process)


@contextmanager
def azurite_of_identities(
    cache: Path, folder: Path, certificate: Path, authority: Path
) -> Iterator[RunningStore]:
    """Run Azure's emulator over https, where it takes tokens: it checks all of them but their signatures.

    Args:
        cache: folder of downloads.
        folder: for what it keeps and prints.
        certificate: of 127.0.0.1, with its key, PEM.
        authority: who has issued it, PEM.

    The environment names no identity yet.
    """
    with _emulator(cache, folder, (certificate, authority)) as (endpoint, process):
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
            "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{AZURE_ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",  # a proxy before it speaks no TLS
            "SSL_CERT_FILE": str(authority),
        }
        yield RunningStore(Place(f"az://{BUCKET}/{uuid.uuid4().hex}"), endpoint, environment, process)


@contextmanager
def _emulator(
    cache: Path, folder: Path, secured: tuple[Path, Path] | None = None
) -> Iterator[tuple[str, int]]:
    """Yield the address of a running emulator with a container, and its process."""
    port = free_port()
    command = [*installed(AZURITE, cache), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--location", str(folder), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    endpoint, trusted = f"http://127.0.0.1:{port}", None
    if secured is not None:
        endpoint, (certificate, authority) = f"https://127.0.0.1:{port}", secured
        trusted = ssl.create_default_context(cafile=authority)
        command += ["--oauth", "basic", "--cert", str(certificate), "--key", str(certificate)]
    with running_server(command, folder / "azurite.log", endpoint, trusted=trusted) as process:
        _make_container(endpoint, trusted)
        yield endpoint, process


@contextmanager
def abfss(cache: Path, folder: Path) -> Iterator[RunningStore]:
    """Run Azure's emulator for a place that is spelt as those of Data Lake Storage are; see `azurite`.

    Clients ask its Blob Storage all the same, as they ask Azure's.
    """
    with azurite(cache, folder) as store:
        host = f"{AZURE_ACCOUNT}.dfs.core.windows.net"
        yield replace(store, place=Place(f"abfss://{BUCKET}@{host}/{store.place.name}"))


STORES: Mapping[str, Callable[[Path, Path], AbstractContextManager[RunningStore]]] = {
    "gofakes3": gofakes3,
    "versitygw": versitygw,
    "azurite": azurite,
    "abfss": abfss,
}


def _s3(endpoint: str, key: str, secret: str, process: int, bucket: str = BUCKET) -> RunningStore:
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        # Else clients without keys ask an address that only a cloud's machines have; Delta's does anyway.
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return RunningStore(Place(f"s3://{bucket}/{uuid.uuid4().hex}"), endpoint, environment, process)


def _keys_of(folder: Path) -> tuple[str, str]:
    """The same keys for a server that is started again over what it has kept."""
    kept = folder / "login"
    if not kept.exists():
        kept.write_text(f"FS{secrets.token_hex(9).upper()} {secrets.token_hex(20)}")
    key, secret = kept.read_text().split()
    return key, secret


def _make_container(endpoint: str, trusted: ssl.SSLContext | None) -> None:
    """Make the container, which neither deltalake nor obstore can: signed as Azure's shared keys are."""
    date, version = formatdate(usegmt=True), "2023-11-03"
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{BUCKET}\nrestype:container"
    signed = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
    mac = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Content-Length": "0",
        "Authorization": f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(mac).decode()}",
    }
    address = f"{endpoint}/{AZURE_ACCOUNT}/{BUCKET}?restype=container"
    request = urllib.request.Request(address, headers=headers, method="PUT")
    with urllib.request.urlopen(request, timeout=30, context=trusted):
        pass
