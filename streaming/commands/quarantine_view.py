"""The quarantine on a terminal: what outsiders wrote is shown, and steers nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from agent.triage.untrusted_text import escaped
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal
from streaming.quarantine.requests import PLACE
from streaming.quarantine.waiting import counts_by

_SHOWN_BYTES = 4_000
_NEXT = (
    "`flagstream quarantine show RECORD` shows one with its bytes; `flagstream quarantine requeue` takes "
    "them in after all, under a corrected contract if need be"
)


def show_waiting(rows: pl.DataFrame, limit: int, console: Terminal) -> None:
    """Print counts by reason, then the records that came last, and what can be done about them."""
    counts = ((reason, f"{count:,}") for reason, count in counts_by(rows, "reason").items())
    show_table(console, ("reason", "records"), counts)
    console.print()
    cells = []
    for row in rows.sort("arrived", *PLACE, descending=True).head(limit).to_dicts():
        place = "/".join(str(row[name]) for name in PLACE)
        arrived = "-" if row["arrived"] is None else f"{row['arrived']:%Y-%m-%d %H:%M:%S}"
        cells.append((place, arrived, row["reason"], row["detail"] or "", row["times"], f"{row['bytes']:,}"))
    show_table(console, ("record", "arrived (UTC)", "reason", "detail", "times", "bytes"), cells)
    if rows.height > limit:
        show_text(console, f"and {rows.height - limit:,} more; --limit or --json shows them")
    if rows.height:
        show_text(console, _NEXT)


def show_record(attempts: Sequence[Mapping[str, Any]], console: Terminal) -> None:
    """Print one record and why it was rejected, each time."""
    first = attempts[0]
    for name in ("key", "value"):
        show_text(console, f"{name}: {_content(first[name])}")
    for each in first["headers"] or []:
        show_text(console, f"header {escaped(str(each['key']))}: {_content(each['value'])}")
    cells = []
    for row in attempts:
        at = "-" if row["kafka_timestamp"] is None else f"{row['kafka_timestamp']:%Y-%m-%d %H:%M:%S}"
        cells.append((at, row["reason"], row["detail"] or "", row["query_id"], row["batch_id"]))
    show_table(console, ("rejected (UTC)", "reason", "detail", "query", "batch"), cells)


def show_requests(requests: Sequence[Mapping[str, Any]], console: Terminal) -> None:
    """Print requests and what became of them."""
    counted = ("records", "stored", "rejected again", "duplicates", "filtered")
    heads = ("request", "asked (UTC)", "state", *counted, "why")
    cells = []
    for row in requests:
        again = ", ".join(f"{reason} {count:,}" for reason, count in row["rejected_again"].items()) or "0"
        done = f" {row['batches_done']}/{row['batches']}" if row["state"] == "waiting" else ""
        state = f"{row['state']}{done}"
        beside = (f"{row['duplicates']:,}", f"{row['filtered']:,}")
        counts = (f"{row['records']:,}", f"{row['stored']:,}", again, *beside)
        cells.append((row["request"], f"{row['at']:%Y-%m-%d %H:%M:%S}", state, *counts, row["why"] or ""))
    show_table(console, heads, cells)


def _content(content: bytes | None) -> str:
    if content is None:
        return "null"
    shown = escaped(content[:_SHOWN_BYTES].decode("utf-8", "backslashreplace"))
    cut = len(content) - _SHOWN_BYTES
    return f"{shown} … and {cut:,} more bytes; --raw FILE writes them" if cut > 0 else shown
