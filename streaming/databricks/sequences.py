"""What is done on a target beside its jobs: the registry's commands, one after the other, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.databricks.bundle_tree import Tree
from streaming.databricks.jobs import AGENT, SMOKE
from streaming.databricks.resolved import ResolvedBundle
from streaming.databricks.runs import OneTimeRun, task_on_its_own

THEN = "--then"
_RUN, _SPEC = "run", "--spec"


def job_run(bundle: ResolvedBundle, job: str, request: str) -> OneTimeRun:
    """Return a run of one of the bundle's jobs.

    Args:
        job: its key.
        request: tells this request from all others: a version is tried by one run however often it is
            asked for, and any other job runs each time.
    """
    return OneTimeRun(job, [task_on_its_own(bundle.jobs[job])], () if job == SMOKE else (request,))


def canary_run(
    bundle: ResolvedBundle, spec: AgentSpec, percent: float, why: str, before: int, in_force: str
) -> OneTimeRun:
    """Return what registers a spec's version, asks what it would have decided, and lets it decide a share.

    Args:
        before: how many deployments there were; so below: after a rollback the same is another run.
        in_force: place of the spec that decides now: in a registry that is empty the first version is active
            at once, and decides everything.
    """
    place = _spec_of(bundle)
    words = [
        ["registry", "add", place, "--after", in_force, "--why", why],
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
    own = _parameters(bundle.jobs, bundle.name)
    words = [*own[: own.index(_RUN)], *commands[0]]
    for each in commands[1:]:
        words += [THEN, *each]
    return OneTimeRun(purpose, [task_on_its_own(bundle.jobs[AGENT], words)], about)


def _spec_of(bundle: ResolvedBundle) -> str:
    return spec_of(bundle.jobs, bundle.name)


def spec_of(jobs: Mapping[str, Tree], name: str) -> str:
    """Return where the spec is that jobs run.

    Args:
        jobs: by their keys.
        name: of the bundle, for errors.

    Raises:
        ConfigurationError: the job that runs the agent says it no more.
    """
    words = _parameters(jobs, name)
    return words[words.index(_SPEC) + 1]


def _parameters(jobs: Mapping[str, Tree], name: str) -> list[str]:
    """Return the words of the job that runs the agent: the others run on the same state and spec."""
    (task, *_) = jobs[AGENT]["tasks"] if AGENT in jobs else ({},)
    words = [str(each) for each in (task.get("python_wheel_task") or {}).get("parameters") or ()]
    if _RUN not in words or _SPEC not in words[:-1]:
        raise ConfigurationError(
            f"does not run the agent by `{_RUN}` and `{_SPEC}`, which say where state and spec are",
            where=name,
            key=f"resources.jobs.{AGENT}",
        )
    return words
