"""Other machines reach the server by TLS, or because somebody said that plain HTTP is meant."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, MachineError
from streaming.home.listen import ListenAddress
from streaming.serve.http_server import Listening, serve_until


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "desk.bank.example"])
def test_a_public_bind_needs_tls_or_the_word(host: str) -> None:
    address = ListenAddress(8714, host)
    with pytest.raises(ConfigurationError, match="plain HTTP"):
        Listening(address)
    assert not Listening(address, is_public=True).tls
    assert Listening(address, Path("a.pem"), Path("k.pem")).tls
    with pytest.raises(ConfigurationError, match="go together"):
        Listening(address, Path("a.pem"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_alone_needs_neither(host: str) -> None:
    assert host in Listening(ListenAddress(0, host)).hosts


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = ListenAddress(taken.getsockname()[1])
        with pytest.raises(MachineError, match=str(address.port)):
            serve_until(None, Listening(address), threading.Event(), lambda _: None)  # type: ignore[arg-type]  # never asked


def test_files_that_are_none_of_tls_are_named(tmp_path: Path) -> None:
    certificate, key = tmp_path / "a.pem", tmp_path / "k.pem"
    for each in (certificate, key):
        each.write_text("no PEM")
    listening = Listening(ListenAddress(0), certificate, key)
    with pytest.raises(ConfigurationError, match=r"a\.pem"):
        serve_until(None, listening, threading.Event(), lambda _: None)  # type: ignore[arg-type]  # as above
