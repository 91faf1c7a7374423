"""Arrow schemas of the lake's tables that do not depend on a contract.

The transactions table derives from the event contract, the alerts table from schemas.alert.
"""

from __future__ import annotations

import pyarrow as pa

UTC_MICROS = pa.timestamp("us", tz="UTC")

COORDINATES: tuple[pa.Field, ...] = (
    pa.field("topic", pa.string()),
    pa.field("partition", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("kafka_timestamp", UTC_MICROS),
)
BATCH: tuple[pa.Field, ...] = (pa.field("query_id", pa.string()), pa.field("batch_id", pa.int64()))

# What of an event could not be taken as it came, such as `memo: cut at 200`; null where nothing was wrong.
FAULTS = pa.field("faults", pa.list_(pa.string()))

# Which topic of a name brought a record that was set aside, as the broker has it: a topic that is deleted and
# created anew has another id. Null where the broker gave none, and in rows from before this was noted.
TOPIC_ID = pa.field("topic_id", pa.string())

HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))
QUARANTINE = pa.schema(
    [
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", HEADERS),
        *COORDINATES,
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        *BATCH,
        TOPIC_ID,
    ]
)

# When the agent has set a record of the labels topic aside: its time on the topic may be its sender's.
RECORDED_AT = pa.field("recorded_at", UTC_MICROS)
LABELS_QUARANTINE = pa.schema([*(each for each in QUARANTINE if each != TOPIC_ID), RECORDED_AT])

DUPLICATES = pa.schema([pa.field("transaction_id", pa.string()), *COORDINATES, *BATCH, TOPIC_ID])

MONITORING = pa.schema(
    [
        *BATCH,
        pa.field("at", UTC_MICROS),
        pa.field("alert", pa.bool_()),
        pa.field("count", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("rejected_share", pa.float64()),
        pa.field("rejected_by_reason", pa.string()),
        pa.field("problems", pa.string()),
    ]
)
LATER_MONITORING = ("rejected_share", "rejected_by_reason", "problems")

AUDIT = pa.schema(
    [
        pa.field("number", pa.int64()),
        pa.field("at", UTC_MICROS),
        pa.field("kind", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("source", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("previous", pa.string()),
        pa.field("hash", pa.string()),
    ]
)

BATCHES = pa.schema(
    [
        *BATCH,
        pa.field("opened_at", UTC_MICROS),
        pa.field("closed_at", UTC_MICROS),
        pa.field("first_sequence", pa.int64()),
        pa.field("next_sequence", pa.int64()),
        pa.field("next_outbox_seq", pa.int64()),
        pa.field("labels_through", pa.int64()),
        pa.field("labels_below", pa.int64()),
        pa.field("read", pa.int64()),
        pa.field("stored", pa.int64()),
        pa.field("quarantined", pa.int64()),
        pa.field("duplicates", pa.int64()),
        pa.field("late", pa.int64()),
        pa.field("alerts", pa.int64()),
        pa.field("llm_calls", pa.int64()),
        pa.field("llm_alerts", pa.int64()),
        pa.field("degraded", pa.int64()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("cost_usd", pa.float64()),
        pa.field("offsets", pa.string()),
        pa.field("pins", pa.string()),
        pa.field("versions", pa.string()),
        pa.field("durations", pa.string()),
        pa.field("rejected", pa.string()),
        pa.field("refused", pa.list_(pa.string())),
        pa.field("topic_ids", pa.string()),
        pa.field("lost", pa.string()),
        pa.field("lane", pa.string()),
        pa.field("filtered", pa.int64()),
        pa.field("filtered_by_reason", pa.string()),
        pa.field("fingerprints", pa.list_(pa.string())),
    ]
)
LATER_BATCHES = (
    "rejected", "refused", "topic_ids", "lost", "lane", "filtered", "filtered_by_reason", "fingerprints",
)  # fmt: skip

PLACES = pa.list_(
    pa.struct(
        [
            pa.field("topic", pa.string()),
            pa.field("partition", pa.int32()),
            pa.field("first_offset", pa.int64()),
            pa.field("next_offset", pa.int64()),
        ]
    )
)
REQUEUES = pa.schema(
    [
        pa.field("number", pa.int64()),
        pa.field("at", UTC_MICROS),
        pa.field("event", pa.string()),
        pa.field("request", pa.string()),
        pa.field("slice", pa.int64()),
        pa.field("records", pa.int64()),
        pa.field("places", PLACES),
        pa.field("contract", pa.string()),
        pa.field("who", pa.string()),
        pa.field("why", pa.string()),
    ]
)

# One row of `alerted` for each alert of a case and each revision of it; the other events are about a case.
CASE_EVENTS = pa.schema(
    [
        pa.field("number", pa.int64()),
        pa.field("at", UTC_MICROS),
        pa.field("action", pa.string()),
        pa.field("event", pa.string()),
        pa.field("case_id", pa.string()),
        pa.field("who", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("entities", pa.map_(pa.string(), pa.string())),
        pa.field("rule", pa.string()),
        pa.field("alert_id", pa.string()),
        pa.field("transaction_id", pa.string()),
        pa.field("outbox_seq", pa.int64()),
        pa.field("revision", pa.int32()),
        pa.field("severity", pa.string()),
        pa.field("classification", pa.string()),
        pa.field("rules", pa.list_(pa.string())),
        pa.field("amount", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("event_time", UTC_MICROS),
        pa.field("alerted_at", UTC_MICROS),
        pa.field("assignee", pa.string()),
        pa.field("leased_until", UTC_MICROS),
        pa.field("reason", pa.string()),
        pa.field("text", pa.string()),
        pa.field("other", pa.string()),
        pa.field("name", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("content", pa.binary()),
    ]
)

LEDGER = pa.schema(
    [
        pa.field("commit", pa.int64()),
        pa.field("at", UTC_MICROS),
        pa.field("kind", pa.string()),
        pa.field("key", pa.string()),
        pa.field("prompt_id", pa.string()),
        pa.field("prompt_version", pa.int64()),
        pa.field("model", pa.string()),
        pa.field("canonical_input", pa.string()),
        pa.field("classification", pa.string()),
        pa.field("severity", pa.string()),
        pa.field("rationale", pa.string()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("evidence", pa.list_(pa.string())),
    ]
)

FINDINGS = pa.schema(
    [
        pa.field("finding_id", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("agent", pa.string()),
        pa.field("at", UTC_MICROS),
        pa.field("goal", pa.string()),
        pa.field("title", pa.string()),
        pa.field("claims", pa.string()),
        pa.field("valid", pa.bool_()),
        pa.field("problems", pa.list_(pa.string())),
        pa.field("policy", pa.string()),
        pa.field("plan_digest", pa.string()),
        pa.field("written_by", pa.string()),
    ]
)


SPECS = pa.schema(
    [
        pa.field("action", pa.int64()),
        pa.field("at", UTC_MICROS),
        pa.field("event", pa.string()),
        pa.field("name", pa.string()),
        pa.field("version", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("spec", pa.string()),
        pa.field("who", pa.string()),
        pa.field("why", pa.string()),
        pa.field("evidence", pa.string()),
    ]
)

SHADOW = pa.schema(
    [
        pa.field("version", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("at", UTC_MICROS),
        *BATCH,
        pa.field("first_sequence", pa.int64()),
        pa.field("next_sequence", pa.int64()),
        pa.field("first_event", UTC_MICROS),
        pa.field("last_event", UTC_MICROS),
        pa.field("alerts", pa.int64()),
        pa.field(
            "alerted",
            pa.list_(
                pa.struct(
                    [
                        pa.field("sequence", pa.int64()),
                        pa.field("kind", pa.string()),
                        pa.field("transaction_id", pa.string()),
                        pa.field("score", pa.float64()),
                        pa.field("severity", pa.string()),
                        pa.field("classification", pa.string()),
                    ]
                )
            ),
        ),
    ]
)

TOKENS = pa.schema(
    [
        pa.field("number", pa.int64()),
        pa.field("at", UTC_MICROS),
        pa.field("event", pa.string()),
        pa.field("token_id", pa.string()),
        pa.field("name", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("scopes", pa.list_(pa.string())),
        pa.field("per_minute", pa.int64()),
        # When it ends; null for never.
        pa.field("ends_at", UTC_MICROS),
        pa.field("who", pa.string()),
    ]
)

LATE = pa.schema(
    [
        pa.field("commit", pa.int64()),
        pa.field("at", UTC_MICROS),
        pa.field("event", pa.string()),
        pa.field("first_outbox_seq", pa.int64()),
        pa.field("next_outbox_seq", pa.int64()),
        pa.field("alerts", pa.int64()),
        pa.field("given_up", pa.int64()),
        pa.field("llm_calls", pa.int64()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("cost_usd", pa.float64()),
        # Windows that begin before it are settled; null in rows of the time when one was open at most.
        pa.field("open_from", pa.int64()),
    ]
)
LATER_LATE = ("open_from",)


_SEQUENCE, _IS_LATE = pa.field("sequence", pa.int64()), pa.field("late", pa.bool_())
# What every contract has; its entities, further columns and texts stand between `currency` and `topic`.
TRANSACTIONS = pa.schema(
    [
        _SEQUENCE,
        pa.field("transaction_id", pa.string()),
        pa.field("event_time", UTC_MICROS),
        pa.field("amount", pa.float64()),
        pa.field("currency", pa.string()),
        *COORDINATES,
        *BATCH,
        _IS_LATE,
        FAULTS,
    ]
)


def transactions_schema(decoded: pa.Schema) -> pa.Schema:
    """Return the stored schema: `sequence`, the contract's decoded columns, the batch's marks, the faults."""
    return pa.schema([_SEQUENCE, *decoded, *BATCH, _IS_LATE, FAULTS])
