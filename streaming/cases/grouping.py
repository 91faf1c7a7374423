"""Which case an alert belongs to: a pure function of the alerts in their order and the cases there are.

An alert joins the newest case of its key while that is live and its event time lies at most the window after
the newest event of the case; else it begins one. A late event joins what there is. How the alerts are cut
into passes changes nothing. A later revision of an alert goes where its first went.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from schemas.cases import CaseSettings
from streaming.cases.case_frames import ALERTED, MEMBERS
from streaming.cases.folding import LIVE
from streaming.cases.incidents import beyond_norm

KEY = ["kind", "entity", "key"]
_SESSION = [*KEY, "session"]
_ID_DIGITS = 16


@dataclass(frozen=True)
class KnownCases:
    """What there is before some alerts are grouped.

    Attributes:
        cases: CASES.
        members: MEMBERS.
    """

    cases: pl.DataFrame
    members: pl.DataFrame


@dataclass(frozen=True)
class Grouping:
    """How alerts are grouped.

    Attributes:
        settings: the spec's.
        entity: by which alerts belong together.
        agent: whose alerts they are; ids of cases hold it, so that no two agents' cases share one.
    """

    settings: CaseSettings
    entity: str
    agent: str

    def events(self, alerts: pl.DataFrame, known: KnownCases) -> pl.DataFrame:
        """Return the events that bring cases up to some alerts: `opened` and `alerted`, in order.

        Args:
            alerts: rows of the alerts table in the order of outbox_seq, `alerted_at` for created_at, and
                `entity_id` for the id of the entity that they are grouped by, null where they have none.
            known: what there is.
        """
        alerts = alerts.unique("outbox_seq", keep="first", maintain_order=True)
        before = _of(alerts, known.members)
        first = alerts.unique("alert_id", keep="first", maintain_order=True).join(
            before, on="alert_id", how="anti"
        )
        placed = self._placed(self._keyed(first, known.members), known.cases)
        homes = pl.concat([before, placed.select("alert_id", "case_id")])
        alerted = alerts.join(homes, on="alert_id", how="left", maintain_order="left").with_columns(
            pl.lit(ALERTED).alias("event")
        )
        return (
            pl.concat([_opened(placed), alerted], how="diagonal")
            .sort("outbox_seq", maintain_order=True)
            .select(
                "event",
                "kind",
                "entity",
                "entity_id",
                "rule",
                *(name for name in MEMBERS if name not in ("number", "at")),
            )
        )

    def _keyed(self, alerts: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
        """Say of each alert what it belongs together by."""
        earlier = members.filter(pl.col("revision") == 1)
        incidents = beyond_norm(alerts, earlier, self.settings.incidents)
        named = pl.col("rules").list.eval(pl.element().filter(pl.element().is_in(list(self.settings.rules))))
        found = alerts.join(incidents, on="alert_id", how="left", maintain_order="left").with_columns(
            named.list.first().alias("of_rule")
        )
        by = [("incident", "incident"), ("rule", "of_rule"), ("entity", "entity_id")]
        kinds = [pl.when(pl.col(column).is_not_null()).then(pl.lit(kind)) for kind, column in by]
        return found.with_columns(
            pl.coalesce(*kinds, pl.lit("alert")).alias("kind"),
            pl.coalesce("incident", "of_rule", "entity_id", "alert_id").alias("key"),
        ).with_columns(
            pl.when(pl.col("kind") == "entity")
            .then(pl.lit(self.entity))
            .otherwise(pl.lit(""))
            .alias("entity")
        )

    def _placed(self, keyed: pl.DataFrame, cases: pl.DataFrame) -> pl.DataFrame:
        """Return the alerts with the id of their case, and whether they begin it."""
        there = keyed.join(newest_of_keys(cases), on=KEY, how="left", maintain_order="left")
        reached = pl.max_horizontal("reached", pl.col("event_time").cum_max().shift(1).over(KEY))
        begins = (reached.is_null() | (pl.col("event_time") > reached + self.settings.window)).alias("begins")
        cut = there.with_columns(begins).with_columns(pl.col("begins").cum_sum().over(KEY).alias("session"))
        first = pl.when(pl.col("session") > 0).then(pl.col("alert_id").first().over(_SESSION))
        cut = cut.with_columns(first.alias("of_alert"))
        fresh = cut.filter("begins")["of_alert"]
        ids = {alert: case_id_of(self.agent, alert) for alert in fresh}
        made = pl.col("of_alert").replace_strict(ids, default=None, return_dtype=pl.String)
        return cut.with_columns(pl.coalesce(made, "into").alias("case_id"))


def case_id_of(agent: str, alert_id: str) -> str:
    """Return the id of the case that an alert begins: 16 hex digits of a SHA-256."""
    return hashlib.sha256(f"{agent}\ncase\n{alert_id}".encode()).hexdigest()[:_ID_DIGITS]


def newest_of_keys(cases: pl.DataFrame) -> pl.DataFrame:
    """Return where alerts of a key go: KEY, `into` and `reached`, of keys whose newest case is live.

    A merged case takes its alerts itself while the one that it was merged into is live: the fold counts them
    there, and a merge that is undone leaves none of them behind.
    """
    key = pl.when(pl.col("kind") == "entity").then("entity_id").otherwise(pl.col("rule")).alias("key")
    newest = (
        cases.sort("opened_number")
        .with_columns(key, pl.col("entity").fill_null(""))
        .unique(KEY, keep="last", maintain_order=True)
        .select(*KEY, pl.col("case_id").alias("into"), pl.coalesce("merged_into", "case_id").alias("home"))
    )
    live = cases.filter(pl.col("status").is_in(list(LIVE))).select(
        "case_id", pl.col("last_event").alias("reached")
    )
    return newest.join(live, left_on="home", right_on="case_id").drop("home")


def _of(alerts: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """Return which case each alert belongs to that belongs to one, by its first row."""
    known = members.filter(pl.col("alert_id").is_in(alerts["alert_id"].implode()))
    return (
        known.sort("number")
        .unique("alert_id", keep="first", maintain_order=True)
        .select("alert_id", "case_id")
    )


def _opened(placed: pl.DataFrame) -> pl.DataFrame:
    key, kind = pl.col("key"), pl.col("kind")
    return placed.filter("begins").select(
        pl.lit("opened").alias("event"),
        "case_id",
        "kind",
        pl.when(kind == "entity").then("entity").alias("entity"),
        pl.when(kind == "entity").then(key).alias("entity_id"),
        pl.when(kind != "entity").then(key).alias("rule"),
        "outbox_seq",
    )
