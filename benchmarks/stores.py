"""An object store for a benchmark, reached through a proxy that delays requests and counts them."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError
from streaming.home.settings import Settings
from streaming.testing.spoiled_store import SpoiledStore
from streaming.testing.stores import STORES, RunningStore, surroundings

_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ENDPOINT"}


@dataclass(frozen=True)
class BenchStore:
    """Where a benchmark keeps its lake.

    Attributes:
        uri: for FLAGSTREAM_STORE; None for below the home.
        proxy: what counts its requests; None where nothing does.
    """

    uri: str | None = None
    proxy: SpoiledStore | None = None

    def counted(self) -> Counter[str]:
        """Return how many requests of each kind there were so far; none where nothing counts them."""
        return Counter() if self.proxy is None else self.proxy.counted()


@contextmanager
def bench_store(named: str | None, delay: float) -> Iterator[BenchStore]:
    """Put the environment of a store in force for the length of a block.

    Args:
        named: a server that is started here, such as `gofakes3`; else a URI, which the environment says how
            to reach; None for a lake below the home.
        delay: seconds that each request takes besides.

    Raises:
        ConfigurationError: a delay without a store, or for one that no proxy can stand before.
    """
    if named is None:
        if delay:
            raise ConfigurationError("requests go to a store: name one with --store", where="--request-delay")
        yield BenchStore()
        return
    with ExitStack() as ended:
        store = _started(named, ended) if named in STORES else None
        endpoint = _endpoint(named) if store is None else store.endpoint
        if endpoint is None:
            if delay:
                raise ConfigurationError(
                    "requests can be delayed for servers of the tests, or an http:// endpoint that "
                    f"{' or '.join(_ENDPOINTS.values())} names",
                    where="--request-delay",
                )
            yield BenchStore(_own_prefix(named))
            return
        proxy = SpoiledStore(endpoint, delay)
        ended.callback(proxy.close)
        if store is not None:
            ended.enter_context(surroundings(store.by_way_of(proxy.address)))
        else:
            ended.enter_context(_endpoint_at(urlsplit(named).scheme, proxy.address))
        yield BenchStore(_own_prefix(named if store is None else store.place.uri), proxy)


def _own_prefix(uri: str) -> str:
    """Below what was named, so that no lake that lies there is opened."""
    return f"{uri.rstrip('/')}/bench-{uuid.uuid4().hex}"


def _started(name: str, ended: ExitStack) -> RunningStore:
    folder = Path(ended.enter_context(tempfile.TemporaryDirectory(prefix="flagstream-store-")))
    return ended.enter_context(STORES[name](Settings.load(folder).cache, folder))


@contextmanager
def _endpoint_at(scheme: str, address: str) -> Iterator[None]:
    name = _ENDPOINTS[scheme]
    before = os.environ[name]
    os.environ[name] = address
    try:
        yield
    finally:
        os.environ[name] = before


def _endpoint(uri: str) -> str | None:
    found = os.environ.get(_ENDPOINTS.get(urlsplit(uri).scheme, ""), "")
    return found if found.startswith("http://") else None
