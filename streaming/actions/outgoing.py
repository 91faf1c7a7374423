"""Actions that reach beyond the lake: a job on a Databricks workspace, and a line to whoever is notified."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from agent.actions import ActionResult, Scalar
from agent.catalogue import JobParameter
from schemas.errors import ConfigurationError, MachineError, RetryableError
from schemas.policy import LOG, JobLimits

_TASK = "notebook"
_SECONDS = 10
_RUN_NAME = "flagstream agent run"


def run_job(
    notebook: str,
    parameters: tuple[JobParameter, ...],
    limits: JobLimits,
    token: str,
    key: SecretStr | None,
) -> ActionResult:
    """Submit a one-time run of a notebook, or say what would be submitted.

    Args:
        notebook: its path on the workspace.
        parameters: given to it.
        limits: the policy's; without `submit` nothing is sent.
        token: idempotency token, at most 64 characters: the workspace starts one run for it.
        key: access token of the workspace.

    Raises:
        ConfigurationError: the key is missing.
        MachineError: the SDK is not installed.
        RetryableError: the workspace does not answer, or refuses.
    """
    facts: dict[str, Scalar] = {
        "notebook": notebook,
        "idempotency_token": token,
        "parameters": len(parameters),
    }
    if not limits.submit:
        return ActionResult({**facts, "submitted": False}, dry_run=True)
    if key is None:
        raise ConfigurationError("no access token for the workspace", where=limits.token_env)
    if importlib.util.find_spec("databricks") is None:
        raise MachineError("the Databricks SDK is not installed: pip install 'flagstream[databricks]'")
    run = _submitted(notebook, {each.name: each.value for each in parameters}, limits, token, key)
    return ActionResult({**facts, "submitted": True, "job_run_id": run})


def _submitted(
    notebook: str, parameters: dict[str, str], limits: JobLimits, token: str, key: SecretStr
) -> int:
    # The SDK is an optional extra, and takes a second to load.
    from databricks.sdk import WorkspaceClient  # noqa: PLC0415
    from databricks.sdk.core import Config  # noqa: PLC0415
    from databricks.sdk.service.jobs import NotebookTask, SubmitTask  # noqa: PLC0415

    task = SubmitTask(
        task_key=_TASK,
        notebook_task=NotebookTask(notebook_path=notebook, base_parameters=parameters),
        existing_cluster_id=limits.cluster,
    )
    try:
        config = Config(
            host=limits.workspace,
            token=key.get_secret_value(),
            auth_type="pat",
            http_timeout_seconds=_SECONDS,
            retry_timeout_seconds=_SECONDS,
        )
        workspace = WorkspaceClient(config=config)
        run = workspace.jobs.submit(run_name=_RUN_NAME, tasks=[task], idempotency_token=token)
    except (OSError, ValueError, TimeoutError) as fault:  # what the SDK and its HTTP client raise
        raise RetryableError(f"the workspace has not taken the job: {type(fault).__name__}") from None
    return int(run.run_id)


def notify(address: str, message: str, log: Path) -> ActionResult:
    """Post one line to a webhook, as JSON with the key `text`, or append it to the log.

    Args:
        address: of a webhook, or `log`.
        message: the line.
        log: file of JSON lines.

    Raises:
        RetryableError: the webhook does not answer with success; it is not asked twice.
    """
    if address == LOG:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": message}) + "\n")
        return ActionResult({"delivered": True})
    try:
        with _opener(address).open(_request(address, message), timeout=_SECONDS) as answer:
            return ActionResult({"delivered": True, "status": int(answer.status)})
    except urllib.error.HTTPError as refusal:
        refusal.close()
        raise RetryableError(f"the webhook answered {refusal.code}") from None
    except (OSError, HTTPException) as fault:  # the address is a secret and stays out of the message
        raise RetryableError(f"the webhook does not answer: {type(fault).__name__}") from None


def _request(address: str, message: str) -> urllib.request.Request:
    body = json.dumps({"text": message}).encode()
    return urllib.request.Request(address, body, {"content-type": "application/json"}, method="POST")


class _StayThere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the policy has named one address and no other."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def _opener(address: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_StayThere()]
    if _is_loopback(urlsplit(address).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
