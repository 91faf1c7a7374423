"""What is done on a target beside its jobs: the registry's commands, one after the other, in one run."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.spec import AgentSpec
from streaming.databricks.jobs import AGENT, SMOKE
from streaming.databricks.resolved import ResolvedBundle
from streaming.databricks.runs import OneTimeRun, task_on_its_own

THEN = "--then"


def job_run(bundle: ResolvedBundle, job: str, request: str) -> OneTimeRun:
    """Return a run of one of the bundle's jobs.

    Args:
        job: its key.
        request: tells this request from all others: a version is tried by one run however often it is
            asked for, and any other job runs each time.
    """
    return OneTimeRun(job, [task_on_its_own(bundle.jobs[job])], () if job == SMOKE else (request,))


def canary_run(bundle: ResolvedBundle, spec: AgentSpec, percent: float, why: str, before: int) -> OneTimeRun:
    """Return what registers a spec's version, asks what it would have decided, and lets it decide a share.

    Args:
        before: how many deployments there were; so below: after a rollback the same is another run.
    """
    place = _spec_of(bundle)
    words = [
        ["registry", "add", place, "--why", why],
        ["what-if", place, "--spec", place],
        _promoted(spec, place, why, "canary", "--percent", f"{percent:g}"),
    ]
    return _sequence(bundle, "canary", words, (spec.version, f"{percent:g}", str(before)))


def promotion_run(bundle: ResolvedBundle, spec: AgentSpec, why: str, before: int) -> OneTimeRun:
    """Return what lets a version in canary decide everything."""
    words = [_promoted(spec, _spec_of(bundle), why, "active")]
    return _sequence(bundle, "promote", words, (spec.version, str(before)))


def rollback_run(bundle: ResolvedBundle, why: str, before: int) -> OneTimeRun:
    """Return what withdraws the version promoted last."""
    words = [["rollback", "--why", why, "--if-any", "--spec", _spec_of(bundle)]]
    return _sequence(bundle, "rollback", words, (str(before),))


def _promoted(spec: AgentSpec, place: str, why: str, stage: str, *more: str) -> list[str]:
    return ["promote", spec.version, "--to", stage, *more, "--why", why, "--spec", place]


def _sequence(
    bundle: ResolvedBundle, purpose: str, commands: Sequence[Sequence[str]], about: Sequence[str]
) -> OneTimeRun:
    own = bundle.jobs[AGENT]["tasks"][0]["python_wheel_task"]["parameters"]
    words = [*own[: own.index("run")], *commands[0]]
    for each in commands[1:]:
        words += [THEN, *each]
    return OneTimeRun(purpose, [task_on_its_own(bundle.jobs[AGENT], words)], about)


def _spec_of(bundle: ResolvedBundle) -> str:
    parameters = bundle.jobs[AGENT]["tasks"][0]["python_wheel_task"]["parameters"]
    return str(parameters[parameters.index("--spec") + 1])
