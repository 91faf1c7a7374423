"""Connections to an endpoint: to the machine that was meant, straight, and with bounded answers."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Collection, Sequence
from typing import Literal

import httpx2

from agent.model.proxies import proxy_address
from schemas.addresses import is_loopback, literal_address, may_reach
from schemas.errors import ConfigurationError

MOST_ANSWER_BYTES = 4 << 20
_TOO_LARGE = 413
_SENT = frozenset(
    {
        "host",
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
        "api-key",
    }
)
_NOT_OF_THE_BODY_READ = frozenset({"content-length", "content-encoding", "transfer-encoding"})
# `public`: no address of a private network. `named`: one is fine, since the policy names the endpoint.
Reach = Literal["public", "named"]


def guarded_client(
    base_url: str,
    reach: Reach,
    *,
    headers: Collection[str] = (),
    status_alone: bool = False,
    key: str = "llm.base_url",
) -> httpx2.AsyncClient:
    """Return a client for one endpoint.

    It follows no redirect, so what is sent goes to the endpoint alone.

    Args:
        base_url: the endpoint.
        reach: whether its name may lead to a private network.
        headers: sent beside those that a model's endpoint needs, in lower case.
        status_alone: leave the body of answers unread.
        key: of the configuration that names the endpoint, for errors.

    Raises:
        ConfigurationError: nothing can be sent to such an address.
    """
    try:
        proxy = _proxy_of(base_url)
    except httpx2.InvalidURL:
        raise ConfigurationError("no address that requests can be sent to", key=key) from None
    inner = httpx2.AsyncHTTPTransport(proxy=proxy, limits=httpx2.Limits())
    transport = _Guarded(reach, inner, proxy is None, _SENT.union(headers), status_alone)
    # What the environment says of proxies is read above: a transport made from it would not be guarded.
    return httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)


class _Guarded(httpx2.AsyncBaseTransport):
    """Looks a name up once, checks where it leads, and connects to that very address."""

    def __init__(
        self,
        reach: Reach,
        inner: httpx2.AsyncBaseTransport,
        direct: bool,
        headers: Collection[str],
        status_alone: bool,
    ) -> None:
        self._reach, self._inner, self._direct = reach, inner, direct
        self._headers, self._taken = headers, _status_of if status_alone else _bounded

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request = _plain(request, self._headers)
        if not self._direct:
            return await self._taken(await self._inner.handle_async_request(request))
        return await self._taken(await self._sent(request))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        fault = httpx2.ConnectError("no address", request=request)
        for address in await self._addresses(request):
            try:
                return await self._inner.handle_async_request(_to(address, request))
            except httpx2.ConnectError as one:
                fault = one
        raise fault

    async def _addresses(self, request: httpx2.Request) -> Sequence[str]:
        host = request.url.host
        if literal_address(host) is not None:
            return [host]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, request.url.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as fault:
            raise httpx2.ConnectError("the name cannot be resolved", request=request) from fault
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not all(may_reach(host, each, named=self._reach == "named") for each in addresses):
            raise httpx2.ConnectError("the name leads to a private network", request=request)
        return addresses


def _plain(request: httpx2.Request, wanted: Collection[str]) -> httpx2.Request:
    """Return the request without headers that the library took from the environment."""
    kept = [(name, value) for name, value in request.headers.items() if name in wanted]
    headers = [*kept, ("accept-encoding", "identity")]  # a few packed bytes may unpack to any number
    return httpx2.Request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
    )


def _to(address: str, request: httpx2.Request) -> httpx2.Request:
    """Return the request with the address instead of the name; header and certificate keep the name."""
    extensions = {**request.extensions, "sni_hostname": request.url.host}
    url = request.url.copy_with(host=address)
    return httpx2.Request(
        request.method, url, headers=request.headers, stream=request.stream, extensions=extensions
    )


async def _status_of(response: httpx2.Response) -> httpx2.Response:
    """Return an answer without its body, which nobody needs, however long or slow it is."""
    await response.aclose()
    headers = [(name, value) for name, value in response.headers.items() if name not in _NOT_OF_THE_BODY_READ]
    return httpx2.Response(response.status_code, headers=headers)


async def _bounded(response: httpx2.Response) -> httpx2.Response:
    """Read an answer; one that is too long, or packed although nobody asked for it, counts as a failure."""
    headers = [(name, value) for name, value in response.headers.items() if name not in _NOT_OF_THE_BODY_READ]
    packed = response.headers.get("content-encoding", "identity") != "identity"
    body = bytearray()
    try:
        async for part in response.aiter_raw():
            body += part
            if packed or len(body) > MOST_ANSWER_BYTES:
                return httpx2.Response(_TOO_LARGE)
    finally:
        await response.aclose()
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body))


def _proxy_of(base_url: str) -> httpx2.Proxy | None:
    """Return the proxy that the environment names for an address, None to connect directly.

    Raises:
        ConfigurationError: what it names is no proxy; without its login.
    """
    url = httpx2.URL(base_url)
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    written = proxies.get(url.scheme) or proxies.get("all")
    if not written:
        return None
    try:
        proxy = proxy_address(written)
    except ValueError as fault:
        said = f"the proxy of the environment cannot be used: {fault}"
        raise ConfigurationError(said, where=f"{url.scheme.upper()}_PROXY") from None
    return httpx2.Proxy(proxy.url, auth=proxy.login)
