"""`flagstream spec metrics` and `spec dashboard`: what is measured, and what shows it."""

from __future__ import annotations

from streaming.observe.dashboards import dashboard_named
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
    for each in sorted(Metrics("agent").book.meanings, key=lambda meaning: meaning.name):
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {each.meaning} |")
    return "".join(f"{line}\n" for line in lines)
