"""`flagstream console`: asks a running server for the address at which a browser signs in."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

import httpx2
from pydantic import SecretStr

from schemas.errors import ConfigurationError, MachineError
from streaming.home.listen import LOOPBACK
from streaming.output.redaction import keep_secret
from streaming.output.terminal import print_json, say_error, say_line
from streaming.tokens.bearer import id_of

_SECONDS, _PAUSE_SECONDS = 10.0, 0.5
_TOKEN = "FLAGSTREAM_TOKEN"
_OF_THIS_MACHINE = (LOOPBACK, "localhost", "::1")


@dataclass(frozen=True)
class ConsoleServer:
    """The server that is asked.

    Attributes:
        address: such as https://desk.bank:8714.
        token: of whoever signs in.
        patience: seconds for which a server may not know the token yet.

    Raises:
        ConfigurationError: the address is none, would carry the token to another machine by plain HTTP, or
            the token is none.
    """

    address: str
    token: SecretStr = field(repr=False)
    patience: float = 5.0

    def __post_init__(self) -> None:
        """Check the words."""
        keep_secret(self.token.get_secret_value())
        if id_of(self.token.get_secret_value()) is None:
            raise ConfigurationError("expected a token of `flagstream token create`", where=_TOKEN)
        parts = _parts(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ConfigurationError("expected an address such as http://127.0.0.1:8714", where="--address")
        if parts.scheme == "http" and parts.hostname not in _OF_THIS_MACHINE:
            said = "the token would go to another machine by plain HTTP: name an address with https"
            raise ConfigurationError(said, where="--address")

    def sign_in_address(self) -> str:
        """Return the address with a new code.

        Raises:
            MachineError: nobody answers there, or something else does.
            ConfigurationError: the server does not know the token.
        """
        base = self.address.rstrip("/")
        try:
            answer = self._answer(f"{base}/v1/console/codes")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as fault:
            said = f"no server answers at {base} ({type(fault).__name__}): start flagstream serve"
            raise MachineError(said) from None
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            said = (
                "the server does not know this token: see `flagstream token list`, with the --home and the "
                "--spec that it serves"
            )
            raise ConfigurationError(said, where=_TOKEN)
        if answer.status_code != HTTPStatus.OK:
            said = f"the server at {base} answers {answer.status_code} instead of a code: is it flagstream's?"
            raise MachineError(said)
        code = str(answer.json()["code"])
        keep_secret(code)
        return f"{base}/console/sign-in?code={code}"

    def _answer(self, path: str) -> httpx2.Response:
        """A token made just now is known within seconds: for so long it is asked again."""
        headers = {"Authorization": f"Bearer {self.token.get_secret_value()}"}
        until = time.monotonic() + self.patience
        with httpx2.Client(timeout=_SECONDS, follow_redirects=False) as client:
            while True:
                answer = client.post(path, headers=headers)
                if answer.status_code != HTTPStatus.UNAUTHORIZED or time.monotonic() >= until:
                    return answer
                time.sleep(_PAUSE_SECONDS)


def show_sign_in_address(address: str, token: str, *, as_json: bool) -> None:
    """Print where a browser signs in.

    Raises:
        FlagstreamError: see ConsoleServer.
    """
    found = ConsoleServer(address, SecretStr(token)).sign_in_address()
    if as_json:
        print_json({"address": found})
        return
    say_line(found)
    say_error("Open it within a minute: it works once.")


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
