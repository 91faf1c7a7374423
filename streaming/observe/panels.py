"""Panels of dashboards, and the queries that they are made of."""

from __future__ import annotations

from dataclasses import dataclass

THIS_AGENT = 'agent=~"$agent"'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        unit: as Grafana names it.
        queries: each with the text that its series are called.
        meaning: one sentence for whoever reads it.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    meaning: str
    kind: str = "timeseries"


def rate_of(metric: str, by: str = "") -> str:
    """Return the query of how fast a counter grows, a second."""
    labels = f"agent{', ' if by else ''}{by}"
    return f"sum by ({labels}) (rate(flagstream_{metric}{{{THIS_AGENT}}}[$__rate_interval]))"


def value_of(metric: str, by: str = "", how: str = "max") -> str:
    """Return the query of how a gauge stands."""
    labels = f"agent{', ' if by else ''}{by}"
    return f"{how} by ({labels}) (flagstream_{metric}{{{THIS_AGENT}}})"


def quantiles_of(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """Return the queries of the median and the 99th percentile of a histogram, with their legends."""
    labels = f"agent, le{', ' if by else ''}{by}"
    rate = f"sum by ({labels}) (rate(flagstream_{metric}_bucket{{{THIS_AGENT}}}[$__rate_interval]))"
    named = f" {{{{{by}}}}}" if by else ""
    return tuple((f"histogram_quantile({q}, {rate})", f"p{round(q * 100)}{named}") for q in (0.5, 0.99))


def seconds_since(metric: str) -> str:
    """Return the query of how long ago a moment was."""
    return f"time() - max by (agent) (flagstream_{metric}{{{THIS_AGENT}}})"
