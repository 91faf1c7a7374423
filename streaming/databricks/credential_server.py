"""A process that answers for credentials: it gets them by its standard input, and ends with it.

It is one of its own because libraries wait for its answer in calls that let no other thread of Python run. It
knows nothing but what it was given last, and gives that to whoever knows the word.
"""

from __future__ import annotations

import hmac
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

_OK, _FORBIDDEN = 200, 403


class _CredentialServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, word: str, content: str) -> None:
        super().__init__(("127.0.0.1", port), _CredentialHandler)
        self.word, self.content = word.encode(), content


class _CredentialHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = cast("_CredentialServer", self.server)
        known = hmac.compare_digest(self.headers.get("authorization", "").encode(), server.word)
        content = server.content if known else json.dumps({"message": "not for you"})
        self.send_response(_OK if known else _FORBIDDEN)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(port: int) -> None:
    """Read the word and the first credentials, write the port, answer by the newest until the input ends."""
    word, content = (sys.stdin.readline().strip() for _ in range(2))
    server = _CredentialServer(port, word, content)
    # No worker: this process has no agent, and ends with its input.
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        server.content = line.strip()
    server.shutdown()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
