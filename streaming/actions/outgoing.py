"""Actions that reach beyond the lake: a job on a Databricks workspace, and a line to whoever is notified."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from agent.planning.actions import ActionResult, Scalar
from agent.planning.catalogue import JobParameter
from schemas.addresses import is_loopback
from schemas.errors import ConfigurationError, RetryableError
from schemas.policy import LOG, JobLimits

_SUBMIT = "/api/2.2/jobs/runs/submit"
_TASK = "notebook"
_SECONDS = 10
_MOST_ANSWER_BYTES = 1 << 20
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
    run = _submitted(_job(notebook, parameters, limits, token), limits, key)
    return ActionResult({**facts, "submitted": True, "job_run_id": run})


def _job(
    notebook: str, parameters: tuple[JobParameter, ...], limits: JobLimits, token: str
) -> dict[str, object]:
    base = {each.name: each.value for each in parameters}
    task: dict[str, object] = {
        "task_key": _TASK,
        "notebook_task": {"notebook_path": notebook, "base_parameters": base},
    }
    if limits.cluster is not None:
        task["existing_cluster_id"] = limits.cluster
    return {"run_name": _RUN_NAME, "tasks": [task], "idempotency_token": token}


def _submitted(job: Mapping[str, object], limits: JobLimits, key: SecretStr) -> int:
    address = f"{(limits.workspace or '').rstrip('/')}{_SUBMIT}"
    answer = _posted("the workspace", address, job, {"authorization": f"Bearer {key.get_secret_value()}"})
    try:
        return int(json.loads(answer.body)["run_id"])
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError):
        raise RetryableError("the workspace has not said which run it has started") from None


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
    answer = _posted("the webhook", address, {"text": message}, {})
    return ActionResult({"delivered": True, "status": answer.status})


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes


def _posted(who: str, address: str, content: Mapping[str, object], headers: Mapping[str, str]) -> _Answer:
    """Post JSON once.

    Raises:
        ConfigurationError: address or token cannot stand in a request, such as one that ends in a line break.
        RetryableError: no success, or a longer answer than anybody needs.

    Both name `who`, and neither the address nor what was sent or answered, since all may hold secrets.
    """
    body, plain = json.dumps(content).encode(), {"content-type": "application/json"}
    request = urllib.request.Request(address, body, {**plain, **headers}, method="POST")
    try:
        with _opener(address).open(request, timeout=_SECONDS) as answer:
            read, status = answer.read(_MOST_ANSWER_BYTES + 1), int(answer.status)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        raise RetryableError(f"{who} answered {refusal.code}") from None
    except (OSError, HTTPException) as fault:
        raise RetryableError(f"{who} does not answer: {type(fault).__name__}") from None
    except (ValueError, OverflowError):  # which quotes the header, token and all
        raise ConfigurationError(
            f"nothing can be sent to {who}: its address or its token holds signs that do not belong there"
        ) from None
    if len(read) > _MOST_ANSWER_BYTES:
        raise RetryableError(f"{who} answered with more than {_MOST_ANSWER_BYTES >> 20} MiB")
    return _Answer(status, read)


class _StayThere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the policy has named one address and no other."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def _opener(address: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_StayThere()]
    if is_loopback(urlsplit(address).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)
