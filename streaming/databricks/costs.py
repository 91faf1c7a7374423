"""What a bundle's jobs would cost: hours of their nodes by a price, and the tokens of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import ConfigurationError
from streaming.databricks.bundle_tree import Tree
from streaming.history.forecast import Forecast

_HOURS_PER_MONTH = 24 * 30
_HOURS_PER_RUN = 0.25
_ALL, _SUNDAYS = "*", "SUN"
_HOUR_FIELD, _DAY_FIELD = 2, 5


@dataclass(frozen=True)
class JobCost:
    """What one job would take in a month of thirty days.

    Attributes:
        hours: of its node.
        basis: what the hours rest on.
    """

    job: str
    hours: float
    usd: float
    basis: str


def job_costs(jobs: Mapping[str, Tree], usd_per_hour: float) -> list[JobCost]:
    """Estimate what each job costs a month; one that nothing starts costs nothing by itself."""
    found = []
    for key, job in jobs.items():
        hours, basis = _hours(job)
        found.append(JobCost(key, hours, hours * usd_per_hour, basis))
    return found


def month_usd(costs: list[JobCost], tokens: Forecast) -> float | None:
    """Return what nodes and tokens cost together in thirty days, None where a price is missing."""
    if tokens.llm_usd_per_day is None or tokens.compute_usd_per_day is None:
        return None
    return sum(each.usd for each in costs) + tokens.llm_usd_per_day * 30


def _hours(job: Tree) -> tuple[float, str]:
    if (job.get("continuous") or {}).get("pause_status") == "UNPAUSED":
        return _HOURS_PER_MONTH, "runs all the time"
    schedule = job.get("schedule")
    if schedule is None or schedule.get("pause_status") == "PAUSED":
        return 0.0, "started by people"
    runs = _runs_per_month(schedule["quartz_cron_expression"])
    return runs * _HOURS_PER_RUN, f"{runs} runs of a quarter of an hour, assumed"


def _runs_per_month(cron: str) -> int:
    fields = cron.split()
    if len(fields) <= _DAY_FIELD:
        raise ConfigurationError(f"{cron!r} has not the six fields of Quartz", key="quartz_cron_expression")
    if fields[_HOUR_FIELD] == _ALL:
        return _HOURS_PER_MONTH
    return 4 if fields[_DAY_FIELD] == _SUNDAYS else 30
