"""`flagstream spec metrics` and `spec dashboard`: what is measured, and what shows it."""

from __future__ import annotations

from streaming.observe.dashboards import dashboard_named
from streaming.observe.desk_metrics import NotifyMetrics, ServeMetrics
from streaming.observe.metric import MetricMeaning
from streaming.observe.metrics import Metrics
from streaming.output.terminal import say_line


def show_metrics() -> None:
    """Print the table of all metrics."""
    say_line(metrics_table(), end="")


def show_dashboard(name: str) -> None:
    """Print a dashboard as Grafana imports it."""
    say_line(dashboard_named(f"flagstream-{name}"), end="")


def metrics_table() -> str:
    """Return the table of all metrics as Markdown."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for each in all_metrics():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {each.meaning} |")
    return "".join(f"{line}\n" for line in lines)


def all_metrics() -> list[MetricMeaning]:
    """Return the metrics of `run`, `serve` and `notify run`, each once, in the order of their names."""
    books = (Metrics("agent").book, ServeMetrics(["agent"]).book, NotifyMetrics("agent").book)
    found = {each.name: each for book in books for each in book.meanings}
    return [found[name] for name in sorted(found)]
