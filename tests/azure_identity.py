"""Azure's identities on loopback: the endpoints that give tokens, and an emulator that takes them."""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

from streaming.output.terminal import print_json

TENANT, CLIENT = "6f1c0d1e-0000-4000-8000-00000000001a", "6f1c0d1e-0000-4000-8000-00000000002b"
RESOURCE = "https://storage.azure.com"
WAYS = ("service principal", "workload identity", "managed identity")
# The libraries fetch another token once the one that they hold is good for less.
RENEWED_BEFORE_SECONDS = 300
_ROOT = Path(__file__).resolve().parents[1]
_Answered = tuple[int, dict[str, Any]]
_TRADED = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass
class Giver:
    """Who gives tokens; see Identities."""

    secret: str
    assertion: str
    lasts: float = 3_600.0
    told: int = RENEWED_BEFORE_SECONDS
    refusal: tuple[int, dict[str, str]] | None = None
    given: list[str] = field(default_factory=list)

    def asked_for_a_machine(self, query: Mapping[str, list[str]], metadata: str) -> _Answered:
        """Answer as the metadata service of a machine does."""
        if (metadata, query.get("resource")) != ("true", [RESOURCE]):
            return _no(400, "invalid_request", "Required metadata header not specified")
        return self._answer(expires_on=str(int(time.time()) + self.told), resource=RESOURCE)

    def asked(self, path: str, form: Mapping[str, list[str]]) -> _Answered:
        """Answer as Microsoft Entra ID does."""
        if path.strip("/") != f"{TENANT}/oauth2/v2.0/token":
            return _no(400, "invalid_request", "AADSTS90002: Tenant not found.")
        if (form.get("client_id"), form.get("scope")) != ([CLIENT], [f"{RESOURCE}/.default"]):
            return _no(400, "unauthorized_client", "AADSTS700016: Application not found.")
        traded = form.get("client_assertion_type"), form.get("client_assertion")
        if traded != ([_TRADED], [self.assertion]) and form.get("client_secret") != [self.secret]:
            return _no(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        return self._answer(expires_in=self.told)

    def _answer(self, **more: Any) -> _Answered:
        if self.refusal is not None:
            return self.refusal
        self.given.append(_token(self.lasts))
        return 200, {"token_type": "Bearer", "access_token": self.given[-1], **more}


class Identities:
    """Endpoints that give tokens, in a process of their own: some calls of Delta's hold the lock of Python.

    Args:
        folder: for what a pod proves itself with.
        certificate: key and certificate of 127.0.0.1, PEM.

    `secret` is that of the service principal, `assertion` what the pod proves itself with.
    """

    def __init__(self, folder: Path, certificate: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self.secret, self.assertion = secrets.token_urlsafe(24), f"ey{secrets.token_urlsafe(48)}"
        command = [sys.executable, "-m", "tests.azure_identity", str(certificate)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
        )
        self._url, self._machine_url = self._order(secret=self.secret, assertion=self.assertion)

    @property
    def given(self) -> list[str]:
        """The tokens so far, the newest last."""
        return list(self._order())

    @property
    def hidden(self) -> list[str]:
        """What nobody may see."""
        return [self.secret, self.assertion, *self.given]

    def good_for(self, lasts: float, told: int) -> None:
        """Give tokens from now on that are good for so many seconds.

        Args:
            lasts: as they say themselves, which is what the store goes by.
            told: as is said beside them, which is what whoever fetches them goes by.
        """
        self._order(lasts=lasts, told=told)

    def refuse(self, status: int, error: str, description: str) -> None:
        """Give no tokens from now on."""
        self._order(refusal=_no(status, error, description))

    def mend(self) -> None:
        """Give tokens again."""
        self._order(refusal=None)

    def environment(self, way: str) -> dict[str, str]:
        """Return the variables by which the libraries get tokens in one of WAYS."""
        if way == "managed identity":
            return {"AZURE_MSI_ENDPOINT": self._machine_url}
        named = {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_AUTHORITY_HOST": f"{self._url}/",
        }
        if way == "service principal":
            return {**named, "AZURE_CLIENT_SECRET": self.secret}
        file = self._folder / "federated-token"
        file.write_text(self.assertion)
        return {**named, "AZURE_FEDERATED_TOKEN_FILE": str(file)}

    def close(self) -> None:
        """End the endpoints."""
        self._child.kill()
        self._child.communicate()

    def _order(self, **order: Any) -> Any:
        with self._lock:
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            self._child.stdin.write(f"{json.dumps(order)}\n")
            self._child.stdin.flush()
            return json.loads(self._child.stdout.readline())


def _no(status: int, error: str, description: str) -> _Answered:
    return status, {"error": error, "error_description": description}


def _token(lasts: float) -> str:
    """A token as Azure's are, but that nobody has signed it."""
    now = time.time()
    claims = {"aud": RESOURCE, "iss": f"https://sts.windows.net/{TENANT}/", "tid": TENANT, "appid": CLIENT}
    times = {"iat": int(now - 60), "nbf": int(now - 60), "exp": now + lasts, "uti": secrets.token_hex(8)}
    said = json.dumps({"typ": "JWT", "alg": "RS256"}).encode(), json.dumps({**claims, **times}).encode()
    parts = (*said, secrets.token_bytes(48))
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = parse_qs(self.path.partition("?")[2])
        self._reply(*self._giver.asked_for_a_machine(query, self.headers.get("Metadata", "")))

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        self._reply(*self._giver.asked(self.path, form))

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    @property
    def _giver(self) -> Giver:
        return cast("_Endpoint", self.server).giver

    def _reply(self, status: int, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Endpoint(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, giver: Giver, certificate: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.giver = giver
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients go away in the middle of things."""


@contextmanager
def identities(folder: Path, certificate: Path) -> Iterator[Identities]:
    """Answer whoever asks for tokens for the length of a block; see Identities."""
    found = Identities(folder, certificate)
    try:
        yield found
    finally:
        found.close()


def main(certificate: str) -> None:
    """Obey the orders that come as lines of JSON, until standard input ends."""
    giver = Giver(**json.loads(sys.stdin.readline()))
    secured, plain = _Endpoint(giver, certificate).server_port, _Endpoint(giver).server_port
    machine = f"http://127.0.0.1:{plain}/metadata/identity/oauth2/token"
    print_json([f"https://127.0.0.1:{secured}", machine])
    for line in sys.stdin:
        for name, value in json.loads(line).items():
            setattr(giver, name, value)
        print_json(giver.given)


if __name__ == "__main__":
    main(*sys.argv[1:])
