"""A token issuer on loopback: `POST /token` with client credentials, `GET /jwks` for who checks tokens."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent.model.child_environment import child_environment

AUDIENCE = "kafka"
_MINUTES_VALID = 5


@dataclass
class Issuer:
    """What an issuer signs with, whom it knows, and how often it was asked for a token."""

    folder: Path
    clients: dict[str, str]
    url: str = ""
    tls_url: str = ""
    scopes: list[str] = field(default_factory=list)

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @property
    def tls_token_url(self) -> str:
        """Where the same tokens are had over https, under an authority that no machine knows."""
        return f"{self.tls_url}/token"

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    def make_key(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._openssl("genpkey", "-algorithm", "RSA", "-out", "issuer.key")

    def jwks(self) -> dict[str, Any]:
        said = self._openssl("rsa", "-in", "issuer.key", "-noout", "-modulus").decode()
        modulus = bytes.fromhex(said.strip().partition("=")[2])
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one"}
        return {"keys": [{**key, "n": _base64(modulus), "e": _base64(b"\x01\x00\x01")}]}

    def token(self, subject: str, scope: str) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "sub": subject, "aud": AUDIENCE, "iat": now, "scope": scope}
        head = {"alg": "RS256", "kid": "one", "typ": "JWT"}
        parts = (head, {**claims, "exp": now + 60 * _MINUTES_VALID})
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        signature = self._openssl("dgst", "-sha256", "-sign", "issuer.key", said=signed.encode())
        return f"{signed}.{_base64(signature)}"

    def answer(self, form: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer whoever asks for a token, with a login in the header or in the form."""
        if authorization.startswith("Basic "):
            login = base64.b64decode(authorization[6:]).decode()
            user, _, secret = map(urllib.parse.unquote, login.partition(":"))
        else:
            user, secret = (form.get(name, [""])[0] for name in ("client_id", "client_secret"))
        if self.clients.get(user) != secret:
            return 401, {"error": "invalid_client"}
        scope = form.get("scope", [""])[0]
        self.scopes.append(scope)
        lifetime = {"token_type": "Bearer", "expires_in": 60 * _MINUTES_VALID}
        return 200, {"access_token": self.token(user, scope), **lifetime}

    def _openssl(self, *arguments: str, said: bytes = b"") -> bytes:
        command = ["openssl", *arguments]
        return subprocess.run(
            command, cwd=self.folder, input=said, check=True, capture_output=True, env=child_environment()
        ).stdout


@contextmanager
def oidc_issuer(folder: Path, clients: dict[str, str], certificate: Path) -> Iterator[Issuer]:
    """Yield an issuer that answers.

    Args:
        folder: for its key.
        clients: id → secret.
        certificate: key and certificate of `localhost`, PEM.
    """
    issuer = Issuer(folder, clients)
    issuer.make_key()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, issuer.jwks())

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            form = urllib.parse.parse_qs(self.rfile.read(length).decode())
            self._send(*issuer.answer(form, self.headers.get("Authorization", "")))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with _served(Handler) as plain, _served(Handler, context) as secured:
        issuer.url, issuer.tls_url = f"http://127.0.0.1:{plain}", f"https://localhost:{secured}"
        yield issuer


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Yield the port of a server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
