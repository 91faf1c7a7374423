"""What the dashboard of operation shows: how events go through, and what is held."""

from __future__ import annotations

from streaming.observe.panels import THIS_AGENT, Panel, quantiles_of, rate_of, seconds_since, value_of

STREAM = (
    Panel(
        "Ready",
        "short",
        ((value_of("ready"), "{{agent}}"),),
        "1 while the agent decides what comes.",
        "stat"
    ),
    Panel(
        "Waits for or suffers from",
        "short",
        ((f"flagstream_condition_active{{{THIS_AGENT}}} == 1", "{{condition}}"),),
        "Conditions that hold, see docs/operations.md."
    ),
    Panel(
        "Since when",
        "s",
        ((f"time() - (flagstream_condition_since_timestamp_seconds{{{THIS_AGENT}}} > 0)", "{{condition}}"),),
        "How long each condition holds."
    ),
    Panel(
        "Records",
        "cps",
        (
            (rate_of("records_read_total"), "read"),
            (rate_of("events_stored_total"), "stored"),
            (rate_of("records_duplicate_total"), "duplicates"),
            (rate_of("events_late_total"), "late")
        ),
        "What is read a second, and what comes of it."
    ),
    Panel(
        "Quarantined",
        "cps",
        ((rate_of("records_quarantined_total", "reason"), "{{reason}}"),),
        "Rejected records a second, by reason."
    ),
    Panel(
        "Filtered",
        "cps",
        ((rate_of("records_filtered_total", "reason"), "{{reason}}"),),
        "Records a second that the contract does not want, by reason."
    ),
    Panel(
        "Lag",
        "short",
        ((value_of("lag_records", "topic, partition"), "{{topic}}/{{partition}}"),),
        "Records that are not read yet, by partition."
    ),
    Panel(
        "Since the last batch",
        "s",
        ((seconds_since("batch_closed_timestamp_seconds"), "closed"),
         (seconds_since("batch_started_timestamp_seconds"), "begun")),
        "How long ago the newest batch was begun, and closed."
    ),
    Panel(
        "Batches",
        "cps",
        ((rate_of("batches_total", "outcome"), "{{outcome}}"),),
        "Batches a second, by what became of the attempt."
    ),
    Panel(
        "Seconds by step",
        "s",
        quantiles_of("batch_step_duration_seconds", "step"),
        "What the steps of a batch take."
    ),
    Panel(
        "Event to alert",
        "s",
        quantiles_of("alert_latency_seconds"),
        "From an event's time on Kafka to its alert committed."
    ),
    Panel(
        "Alerts not sent",
        "short",
        ((value_of("alerts_unpublished"), "{{agent}}"),),
        "Alerts in Delta beyond the marker on Kafka."
    )
)  # fmt: skip
STATE = (
    Panel(
        "Profiles",
        "short",
        ((value_of("profile_entities", "entity"), "{{entity}}"),),
        "Entities that have a profile."
    ),
    Panel(
        "Memory of profiles",
        "bytes",
        ((value_of("profile_bytes", "entity"), "{{entity}}"),),
        "Memory that they take."
    ),
    Panel(
        "Memory and processor",
        "bytes",
        (("process_resident_memory_bytes", "{{job}}"),),
        "Memory of the agent's process, and of those beside it."
    ),
    Panel(
        "Processor time",
        "s",
        (("rate(process_cpu_seconds_total[$__rate_interval])", "{{job}}"),),
        "Cores that each process uses."
    ),
    Panel(
        "Age of profiles and checkpoint",
        "s",
        ((seconds_since("profile_updated_timestamp_seconds"), "profiles"),
         (seconds_since("checkpoint_timestamp_seconds"), "checkpoint")),
        "Since when neither has moved on."
    ),
    Panel(
        "Events after the checkpoint",
        "short",
        ((value_of("checkpoint_behind_events"), "{{agent}}"),),
        "What a start has to read again."
    ),
    Panel(
        "Files of tables",
        "short",
        ((value_of("table_files", "table"), "{{table}}"),),
        "Data files of each table."
    ),
    Panel(
        "Size of tables",
        "bytes",
        ((value_of("table_bytes", "table"), "{{table}}"),),
        "Bytes of each table's data files."
    ),
    Panel(
        "Free room",
        "bytes",
        ((value_of("disk_free_bytes", "volume", "min"), "{{volume}}"),),
        "Free room on the disks of home and lake."
    ),
    Panel(
        "Disk used",
        "percentunit",
        ((f"1 - flagstream_disk_free_bytes{{{THIS_AGENT}}} / flagstream_disk_size_bytes", "{{volume}}"),),
        "Share of the disks that is used."
    ),
    Panel(
        "Loop",
        "s",
        ((seconds_since("loop_timestamp_seconds"), "{{agent}}"),),
        "Since when the run's loop has not moved; /livez fails after two minutes, in a batch's step after 15."
    ),
    Panel(
        "Version",
        "short",
        ((value_of("agent_info", "version, spec_version, model"), "{{version}}, {{spec_version}}"),),
        "What runs."
    )
)  # fmt: skip
