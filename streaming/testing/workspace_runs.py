"""The runs of a loopback workspace: they go on whenever somebody asks, and end as a test orders."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
_ENDED = "TERMINATED"
_WAY = ("PENDING", "RUNNING", _ENDED)
_KINDS = {
    "SUCCESS": "SUCCESS",
    "INTERNAL_ERROR": "INTERNAL_ERROR",
    "CLUSTER_ERROR": "CLOUD_FAILURE",
    "DRIVER_ERROR": "INTERNAL_ERROR",
}
_BEGAN = 1_780_000_000_000


@dataclass
class WorkspaceRun:
    """One run: what was asked for, how far it is, how it ends, and whether it waits in a queue."""

    number: int
    asked: Json
    code: str
    said: str = ""
    step: int = 0
    waits: bool = False
    repairs: list[int] = field(default_factory=list)


@dataclass
class WorkspaceRuns:
    """All runs.

    Attributes:
        outcomes: how the next ones end: a code, and what the task says; SUCCESS when there is none left.
        execute: does what a task asks for, and returns the same; instead of `outcomes` where it is given.
    """

    outcomes: deque[tuple[str, str]] = field(default_factory=deque)
    execute: Callable[[Json], tuple[str, str]] | None = None
    started: dict[int, WorkspaceRun] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, query: Mapping[str, str], body: Json) -> Json:
        """Answer a request about runs."""
        what = path.rpartition("/")[2]
        if what == "submit":
            return {"run_id": self._submitted(body)}
        if what == "repair":
            return self._repaired(self.started[body["run_id"]], body)
        if what == "cancel-all":
            self.cancelled.append(body["job_id"])
            return {}
        if what == "list":
            newest = sorted(self.started.values(), key=lambda each: -each.number)
            found = [self._shown(each) for each in newest if _is_of(each, query)]
            return {"runs": found, "has_more": False}
        if what == "get-output":
            run = self.started[int(query["run_id"]) // 10]
            return {"error": run.said, "metadata": self._shown(run)}
        run = self.started[int(query["run_id"])]
        shown = self._shown(run)
        run.step = min(run.step + 1, len(_WAY) - 1)
        return shown

    def _submitted(self, body: Json) -> int:
        token = str(body.get("idempotency_token"))
        if token in self.tokens:
            return self.tokens[token]
        number = 500 + len(self.started)
        self.tokens[token] = number
        self.started[number] = WorkspaceRun(number, body, *self._outcome(body))
        return number

    def _repaired(self, run: WorkspaceRun, body: Json) -> Json:
        if run.repairs and body.get("latest_repair_id") != run.repairs[-1]:
            raise ValueError("the newest repair has to be named")
        run.repairs.append(9000 + len(run.repairs))
        run.code, run.said = self._outcome(run.asked)
        run.step = 0
        return {"repair_id": run.repairs[-1]}

    def _outcome(self, body: Json) -> tuple[str, str]:
        if self.execute is not None:
            return self.execute(body)
        return self.outcomes.popleft() if self.outcomes else ("SUCCESS", "")

    def _shown(self, run: WorkspaceRun) -> Json:
        status: Json = {"state": _WAY[run.step]}
        if _WAY[run.step] == _ENDED:
            kind = _KINDS.get(run.code, "CLIENT_ERROR")
            status["termination_details"] = {
                "code": run.code,
                "type": kind,
                "message": f"ended with {run.code}",
            }
        tasks = [
            {"task_key": each["task_key"], "run_id": run.number * 10 + at, "status": status}
            for at, each in enumerate(run.asked["tasks"])
        ]
        return {
            "run_id": run.number,
            "run_name": run.asked.get("run_name"),
            "job_id": run.asked.get("job_id"),
            "run_page_url": f"{self.url}/#job/run/{run.number}",
            "start_time": 0 if run.waits else _BEGAN + 60_000 * run.number,
            "end_time": _BEGAN + 60_000 * run.number + 30_000 if _WAY[run.step] == _ENDED else 0,
            "status": status,
            "tasks": tasks,
            "repair_history": [{"type": "REPAIR", "id": each} for each in run.repairs],
        }


def _is_of(run: WorkspaceRun, query: Mapping[str, str]) -> bool:
    return "job_id" not in query or str(run.asked.get("job_id")) == query["job_id"]
