"""A Databricks workspace, reached by its own client; its faults are the project's, its secrets hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from databricks.sdk.core import ApiClient, Config
from databricks.sdk.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    NotFound,
    PermissionDenied,
    TemporarilyUnavailable,
    TooManyRequests,
    Unauthenticated,
)
from databricks.sdk.errors.base import DatabricksError
from databricks.sdk.mixins.jobs import JobsExt
from databricks.sdk.service.catalog import GrantsAPI, SchemasAPI, TemporaryPathCredentialsAPI, VolumesAPI
from databricks.sdk.service.iam import CurrentUserAPI, PermissionsAPI
from databricks.sdk.service.workspace import SecretsAPI, WorkspaceAPI

from schemas.errors import ConfigurationError, FlagstreamError, RetryableError
from streaming.output.redaction import keep_secret, redacted

_SECONDS, _RETRY_SECONDS = 30, 120
_MOST_SAID = 500
# Where a login is refused, or what answers is no workspace, the library has no error of its own.
_NO_ANSWER = (ValueError, NotImplementedError)
_PASSING = (Aborted, Cancelled, DeadlineExceeded, InternalError, TemporarilyUnavailable)
_GATEWAYS = ("INTERNAL", "TEMPORARILY", "BAD_GATEWAY", "GATEWAY", "SERVICE")
_PRODUCT = "flagstream"
_READS = "GET"
_HOST = "DATABRICKS_HOST"


@dataclass(frozen=True)
class PlannedRequest:
    """One request that changes something.

    Attributes:
        method: of HTTP.
        path: below the workspace's address.
        body: its JSON; the content of a file stands as its size.
    """

    method: str
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)


class Workspace:
    """What is used of a workspace's API.

    Args:
        api: sends the requests.
    """

    def __init__(self, api: ApiClient) -> None:
        self.host = str(api._cfg.host)
        self.jobs, self.files = JobsExt(api), WorkspaceAPI(api)
        self.secrets, self.permissions = SecretsAPI(api), PermissionsAPI(api)
        self.schemas, self.volumes, self.grants = SchemasAPI(api), VolumesAPI(api), GrantsAPI(api)
        self.path_credentials, self._users = TemporaryPathCredentialsAPI(api), CurrentUserAPI(api)

    def user(self) -> str:
        """Return who is logged in."""
        return str(self._users.me().user_name)


class PlannedRequests(ApiClient):
    """Sends what reads, and keeps what would change something instead of sending it.

    A workspace that already has what is asked for is asked for other things than an empty one, so reads go
    out as they would.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.planned: list[PlannedRequest] = []

    def do(self, method: str, path: str | None = None, *args: Any, **more: Any) -> Any:
        """See ApiClient."""
        if method == _READS:
            return super().do(method, path, *args, **more)
        self.planned.append(PlannedRequest(method, str(path), more.get("body") or {}))
        return {"run_id": 0, "job_id": 0, "object_id": 0}


def connect(host: str | None, profile: str | None = None, **more: Any) -> Config:
    """Return how a workspace is reached: by environment, profile or the platform's own login.

    Args:
        host: its address; the environment's or the profile's unless given.
        profile: of `.databrickscfg`.
        more: for the library's configuration, see there.

    Raises:
        ConfigurationError: no address, no way to log in, or the login is refused.
        RetryableError: whoever gives out tokens does not answer.
    """
    given: dict[str, Any] = {
        name: each for name, each in {"host": host, "profile": profile}.items() if each is not None
    }
    try:
        config = Config(
            product=_PRODUCT,
            product_version=version(_PRODUCT),
            http_timeout_seconds=_SECONDS,
            retry_timeout_seconds=_RETRY_SECONDS,
            **given,
            **more,
        )
    except (ValueError, OSError) as fault:
        raise ConfigurationError(
            f"no way to reach a workspace ({type(fault).__name__}): set DATABRICKS_HOST and a login, such as "
            "DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or name a profile",
            where=_HOST,
        ) from None
    if not config.host:
        raise ConfigurationError("names the workspace, and is not set", where=_HOST)
    _hide_secrets(config)
    return config


def _hide_secrets(config: Config) -> None:
    for attribute in config.attributes():
        if attribute.sensitive:
            keep_secret(getattr(config, attribute.name, None))
    with workspace_faults("logging in"):
        for value in config.authenticate().values():
            keep_secret(value.rpartition(" ")[2])


@contextmanager
def workspace_faults(what: str) -> Iterator[None]:
    """Have what the library raises leave as the project's errors.

    Args:
        what: is being done, for the message.

    Raises:
        ConfigurationError: the login does not suffice, or the workspace refuses what it was asked for.
        RetryableError: it does not answer, or is too busy.
    """
    try:
        yield
    except Unauthenticated:
        raise ConfigurationError(f"{what}: the workspace does not know this login", where=_HOST) from None
    except PermissionDenied as fault:
        raise ConfigurationError(f"{what}: not permitted: {_said(fault)}") from None
    except TooManyRequests:
        raise RetryableError(f"{what}: the workspace stays busy; try again later") from None
    except DatabricksError as fault:
        if _passes(fault):
            raise RetryableError(f"{what}: the workspace has a fault: {_said(fault)}") from None
        raise ConfigurationError(f"{what}: the workspace refuses: {_said(fault)}") from None
    except FlagstreamError:
        raise
    except OSError as fault:
        raise RetryableError(f"{what}: the workspace does not answer: {type(fault).__name__}") from None
    except _NO_ANSWER as fault:
        said = f"{what}: the login is refused, or what answers is no workspace: {_said(fault)}"
        raise ConfigurationError(said, where=_HOST) from None


def absent(fault: DatabricksError) -> bool:
    """Whether what was asked for is not there."""
    return isinstance(fault, NotFound)


def _passes(fault: DatabricksError) -> bool:
    """Whether it may be gone the next time; a gateway between says what it likes."""
    code = fault.error_code
    return isinstance(fault, _PASSING) or code is None or str(code).startswith(_GATEWAYS)


def _said(fault: Exception) -> str:
    first = str(fault).partition(". Config:")[0].partition("\n")[0]
    return redacted(first[:_MOST_SAID])
