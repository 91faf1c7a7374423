"""Panels about the processes beside an agent: the API of `serve`, and the deliveries of `notify run`."""

from __future__ import annotations

from streaming.observe.panels import THIS_AGENT, Panel, quantiles_of, rate_of, value_of

_FAILED = (
    f'sum by (agent) (rate(flagstream_api_requests_total{{{THIS_AGENT}, status=~"5.."}}[$__rate_interval]))'
)
_FAILING = value_of("route_failing_since_timestamp_seconds", "route")

API: tuple[Panel, ...] = (
    Panel(
        "Requests",
        "reqps",
        ((rate_of("api_requests_total", "endpoint"), "{{endpoint}}"),),
        "Requests to the API by endpoint; `other` are those that have reached none."
    ),
    Panel(
        "Answers by status",
        "reqps",
        ((rate_of("api_requests_total", "status"), "{{status}}"),),
        "How requests were answered; 4xx are the client's fault, 5xx the server's or the lake's."
    ),
    Panel(
        "Requests that fail",
        "percentunit",
        ((f"{_FAILED} / {rate_of('api_requests_total')}", "{{agent}}"),),
        "Share of the requests that are answered with 5xx."
    ),
    Panel(
        "Answers: latency",
        "s",
        quantiles_of("api_request_duration_seconds"),
        "From a request until its answer begins."
    ),
    Panel(
        "Answers: latency by endpoint",
        "s",
        quantiles_of("api_request_duration_seconds", "endpoint")[1:],
        "The same for each endpoint, the slowest in a hundred."
    ),
    Panel(
        "API ready",
        "short",
        ((value_of("api_ready", how="min"), "{{agent}}"),),
        "1 once the server has read what it serves."
    ),
)  # fmt: skip

DELIVERIES: tuple[Panel, ...] = (
    Panel(
        "Deliveries",
        "ops",
        ((rate_of("delivery_attempts_total", "route, outcome"), "{{route}} {{outcome}}"),),
        "Attempts to deliver along each route, by what became of them."
    ),
    Panel(
        "Deliveries: duration",
        "s",
        quantiles_of("delivery_duration_seconds", "route"),
        "Time that an attempt takes, with the receiver's answer."
    ),
    Panel(
        "Receivers that fail",
        "s",
        ((f"(time() - {_FAILING}) and {_FAILING} > 0", "{{route}}"),),
        "Since when the receiver of a route takes nothing; none is shown while all do."
    ),
    Panel(
        "Alerts set aside",
        "short",
        ((value_of("route_set_aside_alerts", "route"), "{{route}}"),),
        "Alerts that were refused, or not taken for too long."
    ),
)  # fmt: skip
