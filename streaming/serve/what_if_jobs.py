"""What-ifs that clients have started: one at a time per agent, watched, stopped, and their reports kept."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from schemas.errors import ConflictError, FlagstreamError, NotFoundError
from schemas.instants import Clock, utc_now
from streaming.history.replay_runs import OnProgress
from streaming.history.what_if_found import WhatIf
from streaming.serve.problems import words_of

JobState = Literal["running", "done", "failed", "stopped", "outdated"]
_ID_BYTES = 8
_MOST_KEPT = 50

Work = Callable[[OnProgress], WhatIf]


class StoppedError(FlagstreamError):
    """Somebody has stopped the job."""


@dataclass
class WhatIfJob:
    """One what-if.

    Attributes:
        asked: `order`, what was asked for, `differences`, what the candidate has otherwise, `in_force`, the
            digest of the version that it differs from, and `rewritten_at`, the mark of the transactions then.
        replayed: rows so far.
        rows: of the whole span, 0 until that is known.
        problem: why it failed, or, of one that is done, why its report could not be kept.
    """

    job_id: str
    who: str
    started: datetime
    asked: Mapping[str, Any] = field(default_factory=dict)
    state: JobState = "running"
    replayed: int = 0
    rows: int = 0
    ended: datetime | None = None
    problem: str | None = None
    report: dict[str, Any] | None = None
    is_kept: bool = False
    asked_to_stop: threading.Event = field(default_factory=threading.Event)

    def moved_on(self, rows: int, whole: int) -> None:
        """Note progress.

        Raises:
            StoppedError: the job is to come to its end.
        """
        self.replayed, self.rows = self.replayed + rows, whole
        if self.asked_to_stop.is_set():
            raise StoppedError("stopped")


class WhatIfJobs:
    """The what-ifs of one agent, in memory. Safe to use from several threads.

    Args:
        clock: current time, timezone-aware.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._jobs: OrderedDict[str, WhatIfJob] = OrderedDict()
        self._threads: list[threading.Thread] = []

    def start(
        self, who: str, work: Work, keep: Callable[[WhatIf], bool], asked: Mapping[str, Any] | None = None
    ) -> WhatIfJob:
        """Begin a what-if.

        Args:
            who: asks for it.
            work: replays, and says how far it is.
            keep: keeps the report as evidence; returns whether it did.
            asked: see WhatIfJob.

        Raises:
            ConflictError: another one runs.
        """
        with self._lock:
            if any(each.state == "running" for each in self._jobs.values()):
                raise ConflictError("a what-if of this agent runs: wait for it, or stop it")
            job = WhatIfJob(secrets.token_hex(_ID_BYTES), who, self._clock(), asked or {})
            self._jobs[job.job_id] = job
            if len(self._jobs) > _MOST_KEPT:
                self._jobs.popitem(last=False)
            # No worker: it is done once, and whoever has started it reads what became of it.
            thread = threading.Thread(target=self._run, args=(job, work, keep), daemon=True)
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]
            thread.start()
        return job

    def all(self) -> list[WhatIfJob]:
        """Return the jobs, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def one(self, job_id: str) -> WhatIfJob:
        """Return a job.

        Raises:
            NotFoundError: there is none, or it was forgotten.
        """
        with self._lock:
            if job_id not in self._jobs:
                raise NotFoundError(
                    "no what-if of this id; a server that was started anew has none", where="job_id"
                )
            return self._jobs[job_id]

    def stop(self, job_id: str) -> WhatIfJob:
        """Have a job come to its end soon; one that is over stays as it is."""
        job = self.one(job_id)
        job.asked_to_stop.set()
        return job

    def drop_before(self, rewritten_at: int) -> None:
        """Drop the reports of jobs that began before rows were erased: they may name them.

        Args:
            rewritten_at: the mark of the transactions now.
        """
        with self._lock:
            for each in self._jobs.values():
                if each.state == "done" and each.asked.get("rewritten_at") != rewritten_at:
                    each.report, each.state = None, "outdated"

    def close(self) -> None:
        """End all jobs and wait for them."""
        for each in self.all():
            each.asked_to_stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, job: WhatIfJob, work: Work, keep: Callable[[WhatIf], bool]) -> None:
        """A fault of ours must not vanish with its thread: the job says that it failed."""
        state: JobState = "failed"
        try:
            found = work(job.moved_on)
            job.report, state = found.facts(), "done"
            job.is_kept = keep(found)
        except StoppedError:
            state = "stopped"
        except FlagstreamError as fault:
            job.problem = words_of(fault)
        except Exception as fault:  # whatever it is, its text may quote outsiders
            job.problem = f"a fault of ours: {type(fault).__name__}"
        finally:
            job.ended, job.state = self._clock(), state
