"""What the dashboard of operation shows of a Spark cluster's executors; it is empty without one."""

from __future__ import annotations

from streaming.observe.panels import Panel, rate_of, value_of

EXECUTORS = (
    Panel(
        "Executors",
        "short",
        ((value_of("executors"), "{{agent}}"),),
        "Executors of the Spark cluster that work for the agent."
    ),
    Panel(
        "Executor seconds",
        "s",
        ((rate_of("executor_task_seconds_total", "step"), "{{step}}"),),
        "Executors that tasks keep busy, on average, by the step of the batch."
    ),
    Panel(
        "Waits for an executor",
        "s",
        ((rate_of("executor_wait_seconds_total", "step"), "{{step}}"),),
        "Share of the time in which a batch waits until its first task is taken up."
    ),
    Panel(
        "Tasks",
        "cps",
        ((rate_of("executor_tasks_total", "step, outcome"), "{{step}} {{outcome}}"),),
        "Attempts at tasks a second; failed ones are done again elsewhere."
    ),
    Panel(
        "Bytes to the driver",
        "Bps",
        ((rate_of("executor_result_bytes_total", "step"), "{{step}}"),),
        "What executors send back a second."
    ),
    Panel(
        "Skew of tasks",
        "short",
        ((value_of("executor_task_skew_ratio", "step"), "{{step}}"),),
        "The longest task of the newest batch over the mean of all; 1 is even."
    ),
    Panel(
        "Buckets of profiles",
        "short",
        ((value_of("executor_buckets"), "{{agent}}"),),
        "Buckets of profiles that executors hold, over all kinds of entities."
    ),
    Panel(
        "Skew of buckets",
        "short",
        ((value_of("executor_bucket_skew_ratio"), "{{agent}}"),),
        "Rows of the busiest bucket of the newest batch over the mean of all; 1 is even."
    ),
    Panel(
        "Buckets built anew",
        "cps",
        ((rate_of("executor_buckets_rebuilt_total"), "{{agent}}"),),
        "Buckets a second that are sent whole to executors that do not hold them; 0 while all stays."
    ),
    Panel(
        "Largest bucket",
        "bytes",
        ((value_of("executor_bucket_largest_bytes"), "{{agent}}"),),
        "Memory that profiles take in the largest bucket."
    )
)  # fmt: skip
