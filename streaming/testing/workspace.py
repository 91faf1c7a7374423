"""A workspace on loopback: speaks the paths of Databricks, keeps what it is given, misbehaves on command.

It lists by pages, starts one run for an idempotency token, and answers by the codes of the real one. Its runs
end as a test orders, or as what runs their tasks says.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from streaming.testing.workspace_runs import WorkspaceRuns

TOKEN, USER = "dapi-of-the-loopback-workspace", "anna.schmidt@example.org"
CLIENT, CLIENT_SECRET = "a-service-principal", "dose-of-the-service-principal"
_PAGE = 2
_BUSY = 429
_BEARER = f"Bearer {TOKEN}"
Json = dict[str, Any]


@dataclass(frozen=True)
class WorkspaceRequest:
    """What arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Json


class RefusalError(Exception):
    """Answered instead of what was asked for."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class LoopbackWorkspace:
    """The state of the workspace, and what arrived.

    Attributes:
        files: path → base64 of its content.
        scopes: scope → principal → permission.
        schemas: full name → what it was created with; so for volumes.
        grants: kind and full name → principal → privileges.
        jobs: id → settings.
        permissions: kind and id → what was asked for.
        runs: see streaming.testing.workspace_runs.
        throttled: so many requests are yet to be answered with 429.
        refused: path → (status, code): answered that way from now on.
        vended: what temporary credentials are answered with.
    """

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    scopes: dict[str, dict[str, str]] = field(default_factory=dict)
    schemas: dict[str, Json] = field(default_factory=dict)
    volumes: dict[str, Json] = field(default_factory=dict)
    grants: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    jobs: dict[int, Json] = field(default_factory=dict)
    permissions: dict[str, list[Json]] = field(default_factory=dict)
    runs: WorkspaceRuns = field(default_factory=WorkspaceRuns)
    asked: list[WorkspaceRequest] = field(default_factory=list)
    throttled: int = 0
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    vended: deque[Json] = field(default_factory=deque)
    url: str = ""

    def changes(self) -> list[WorkspaceRequest]:
        """Return the requests that change something, in the order in which they came."""
        return [each for each in self.asked if each.method != "GET"]

    def logged_in(self, path: str, authorization: str) -> tuple[int, Json]:
        """Answer whoever asks where tokens are given out, or for one."""
        if path.endswith("/databricks-config"):
            return 200, {"oidc_endpoint": f"{self.url}/oidc"}
        if path.endswith("/oauth-authorization-server"):
            token, login = f"{self.url}/oidc/v1/token", f"{self.url}/oidc/v1/authorize"
            return 200, {"token_endpoint": token, "authorization_endpoint": login}
        known = base64.b64encode(f"{CLIENT}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {known}":
            return 401, {"error": "invalid_client", "error_description": "Client authentication failed"}
        return 200, {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}

    def answer(self, request: WorkspaceRequest) -> Json:
        """Answer one request.

        Raises:
            RefusalError: it is refused.
        """
        if self.throttled:
            self.throttled -= 1
            raise RefusalError(_BUSY, "REQUEST_LIMIT_EXCEEDED", "too many requests")
        if request.path in self.refused:
            raise RefusalError(*self.refused[request.path], "refused on command")
        for start, handle in self._paths().items():
            if request.path.startswith(start):
                return handle(request)
        raise RefusalError(404, "ENDPOINT_NOT_FOUND", f"no API found for {request.path}")

    def _paths(self) -> Mapping[str, Callable[[WorkspaceRequest], Json]]:
        return {
            "/api/2.0/preview/scim/v2/Me": lambda _: {"userName": USER, "id": "1"},
            "/api/2.0/workspace/": self._workspace,
            "/api/2.0/secrets/": self._secrets,
            "/api/2.1/unity-catalog/permissions/": self._grants,
            "/api/2.1/unity-catalog/schemas": lambda each: self._catalog(each, self.schemas, "schemas"),
            "/api/2.1/unity-catalog/volumes": lambda each: self._catalog(each, self.volumes, "volumes"),
            "/api/2.0/unity-catalog/temporary-path-credentials": lambda _: self.vended.popleft(),
            "/api/2.2/jobs/runs/": lambda each: self.runs.answer(each.path, each.query, each.body),
            "/api/2.2/jobs/": self._jobs,
            "/api/2.0/permissions/": self._permissions,
        }

    def _workspace(self, request: WorkspaceRequest) -> Json:
        what, body = request.path.rpartition("/")[2], request.body
        if what == "mkdirs":
            self.folders.append(body["path"])
        elif what == "import":
            if body["path"].rpartition("/")[0] not in self.folders:
                raise _absent(body["path"])
            self.files[body["path"]] = body["content"]
        elif what == "get-status":
            return {
                "path": request.query["path"],
                "object_type": "DIRECTORY",
                "object_id": self._number(request),
            }
        else:
            path = request.query["path"]
            if path not in self.files:
                raise _absent(path)
            return {"content": self.files[path], "file_type": "txt"}
        return {}

    def _number(self, request: WorkspaceRequest) -> int:
        path = request.query["path"]
        for number, folder in enumerate(self.folders, 1):
            if folder == path or folder.startswith(f"{path}/"):
                return number
        raise _absent(path)

    def _secrets(self, request: WorkspaceRequest) -> Json:
        body = request.body
        if request.path.endswith("scopes/list"):
            return {"scopes": [{"name": name} for name in self.scopes]}
        if request.path.endswith("scopes/create"):
            if body["scope"] in self.scopes:
                raise RefusalError(400, "RESOURCE_ALREADY_EXISTS", "the scope is there")
            self.scopes[body["scope"]] = {}
        else:
            self.scopes[body["scope"]][body["principal"]] = body["permission"]
        return {}

    def _catalog(self, request: WorkspaceRequest, found: dict[str, Json], kind: str) -> Json:
        name = unquote(request.path.rpartition(f"/{kind}")[2].lstrip("/"))
        if request.method == "POST":
            parts = [request.body.get(each) for each in ("catalog_name", "schema_name", "name")]
            name = ".".join(part for part in parts if part)
            if kind == "volumes" and name.rpartition(".")[0] not in self.schemas:
                raise RefusalError(404, "SCHEMA_DOES_NOT_EXIST", f"{name}: no such schema")
            found[name] = request.body
        if name not in found:
            raise RefusalError(404, "SCHEMA_DOES_NOT_EXIST", f"{name} does not exist")
        return {**found[name], "full_name": name}

    def _grants(self, request: WorkspaceRequest) -> Json:
        key = unquote(request.path.partition("/permissions/")[2])
        held = self.grants.setdefault(key, {})
        for change in request.body.get("changes", ()):
            own = held.setdefault(change["principal"], [])
            own += [each for each in change.get("add", ()) if each not in own]
        return {
            "privilege_assignments": [{"principal": who, "privileges": what} for who, what in held.items()]
        }

    def _jobs(self, request: WorkspaceRequest) -> Json:
        what, body = request.path.rpartition("/")[2], request.body
        if what == "create":
            number = 1000 + len(self.jobs)
            self.jobs[number] = body
            return {"job_id": number}
        if what == "reset":
            self.jobs[body["job_id"]] = body["new_settings"]
            return {}
        if what == "get":
            number = int(request.query["job_id"])
            return {"job_id": number, "settings": self.jobs[number]}
        name = request.query.get("name")
        found = [
            {"job_id": number, "settings": each}
            for number, each in self.jobs.items()
            if name is None or str(each["name"]).lower() == name.lower()
        ]
        return paged(found, request.query, "jobs")

    def _permissions(self, request: WorkspaceRequest) -> Json:
        key = request.path.partition("/permissions/")[2]
        self.permissions[key] = request.body["access_control_list"]
        return {"object_id": key, "access_control_list": []}


def paged(found: list[Json], query: Mapping[str, str], name: str) -> Json:
    """Return one page of a list, and how to ask for the next."""
    start = int(query.get("page_token") or 0)
    more = {} if start + _PAGE >= len(found) else {"next_page_token": str(start + _PAGE)}
    return {name: found[start : start + _PAGE], "has_more": bool(more), **more}


def _absent(path: str) -> RefusalError:
    return RefusalError(404, "RESOURCE_DOES_NOT_EXIST", f"Path ({path}) doesn't exist.")


class _WorkspaceServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: LoopbackWorkspace) -> None:
        super().__init__(("127.0.0.1", 0), _WorkspaceHandler)
        self.owner, self.lock = owner, threading.Lock()


class _WorkspaceHandler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        server = cast("_WorkspaceServer", self.server)
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("content-length", "0")))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body_in = json.loads(content) if content.startswith(b"{") else {}
        request = WorkspaceRequest(self.command, parts.path, query, body_in)
        with server.lock:
            status, body = self._judged(server.owner, request)
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if status == _BUSY:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def _judged(self, owner: LoopbackWorkspace, request: WorkspaceRequest) -> tuple[int, Json]:
        if request.path.startswith(("/oidc/", "/.well-known/")):
            return owner.logged_in(request.path, self.headers.get("authorization") or "")
        if not request.path.startswith("/api/"):
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "no such page"}
        if self.headers.get("authorization") != _BEARER:
            return 401, {"error_code": "UNAUTHENTICATED", "message": "Credential was not sent or was wrong"}
        owner.asked.append(request)
        try:
            return 200, owner.answer(request)
        except RefusalError as refusal:
            return refusal.status, {"error_code": refusal.code, "message": str(refusal)}

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Keep the test output clean."""


@contextmanager
def loopback_workspace() -> Iterator[LoopbackWorkspace]:
    """Run a workspace for the length of a block."""
    owner = LoopbackWorkspace()
    server = _WorkspaceServer(owner)
    owner.url = f"http://127.0.0.1:{server.server_address[1]}"
    owner.runs.url = owner.url
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
