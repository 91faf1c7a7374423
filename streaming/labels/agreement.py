"""How classifications compare with labels that came later, by who classified: the model, or the rules."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from agent.triage.worth import JudgedAlert, Worth, worth_of
from schemas.alert import ALERT_KIND
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.labels.book import LabelBook

_COLUMNS = ["alert_id", "revision", "transaction_id", "kind"]
_JUDGED = ["classification", "severity", "score"]
_NEWEST = 100_000  # revisions that count, so that a long history costs no more than a short one


def agreement_with_labels(reader: LakeReader, spec: AgentSpec, newest: int = _NEWEST) -> dict[str, Worth]:
    """Return what the classifications of labelled alerts are worth, by `classification_source`.

    An alert counts as its newest revision has it; alerts about what did not come are left out.

    Args:
        reader: of the lake.
        spec: the agent's.
        newest: how many revisions of alerts count, the last ones.
    """
    if reader.count("labels") == 0:
        return {}
    book = LabelBook(reader.place("labels"), retention=spec.replay_horizon)
    recent = pc.field("outbox_seq") >= reader.count("alerts") - newest
    alerts = _newest(reader.rows("alerts", [*_COLUMNS, *_JUDGED, "classification_source"], recent))
    labels = book.latest_on(alerts["transaction_id"], book.refreshed())
    known = alerts.join(labels, on="transaction_id", how="inner", maintain_order="left")
    return dict(_by_source(known))


def _newest(rows: pa.Table) -> pl.DataFrame:
    about_payments = pl.DataFrame(rows.filter(pc.equal(rows["kind"], ALERT_KIND)))
    return about_payments.sort("revision").unique("alert_id", keep="last", maintain_order=True)


def _by_source(known: pl.DataFrame) -> Iterator[tuple[str, Worth]]:
    for source in sorted(known["classification_source"].unique()):
        rows = known.filter(pl.col("classification_source") == source)
        judged = rows.select(*_JUDGED, "is_fraud").iter_rows()
        yield source, worth_of([JudgedAlert(*each) for each in judged])
