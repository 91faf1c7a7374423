"""What the dashboard of decisions shows: alerts, drift, labels, actions and models."""

from __future__ import annotations

from streaming.observe.drift import PSI_MUCH
from streaming.observe.panels import Panel, quantiles_of, rate_of, value_of

ALERTS = (
    Panel(
        "Flagged and alerted",
        "cps",
        (
            (rate_of("events_flagged_total"), "flagged"),
            (rate_of("alerts_total"), "alerts"),
            (rate_of("alerts_refused_total"), "refused"),
            (rate_of("alerts_degraded_total"), "degraded"),
        ),
        "Events over the threshold or hit by a rule, and what was alerted.",
    ),
    Panel(
        "Alerts by severity",
        "cps",
        ((rate_of("alerts_total", "severity"), "{{severity}}"),),
        "Alerts a second, by severity.",
    ),
    Panel(
        "Alerts by classification",
        "cps",
        ((rate_of("alerts_total", "classification, source"), "{{classification}}, {{source}}"),),
        "Alerts a second, by classification and who classified.",
    ),
    Panel(
        "Alerts by rule",
        "cps",
        ((rate_of("rule_alerts_total", "rule"), "{{rule}}"),),
        "Alerts a second that a rule has hit.",
    ),
    Panel(
        "Rules against their reference",
        "percentunit",
        ((value_of("rule_alert_ratio", "rule, window"), "{{rule}}, {{window}}"),),
        "Share of events that a rule alerts, at first and recently.",
    ),
    Panel(
        "Threshold",
        "short",
        ((value_of("score_threshold"), "{{agent}}"),),
        "Score from which events are flagged.",
    ),
    Panel(
        "Drift of scores",
        "short",
        ((value_of("score_drift_psi"), "{{agent}}"),),
        f"Population stability index; above {PSI_MUCH} much has changed.",
    ),
    Panel(
        "Drift of features",
        "short",
        ((f"topk(10, {value_of('feature_drift_psi', 'feature')})", "{{feature}}"),),
        "The ten features that have drifted most.",
    ),
    Panel(
        "Windows of drift",
        "short",
        ((value_of("drift_window_events", "window"), "{{window}}"),),
        "Sampled events that are compared.",
    ),
    Panel(
        "Precision as labels mature",
        "percentunit",
        ((value_of("alert_precision_ratio", "maturity"), "{{maturity}}"),),
        "Share of frauds among labelled alerts that are at least so old.",
    ),
    Panel(
        "Labelled alerts",
        "percentunit",
        ((value_of("alerts_labelled_ratio", "maturity"), "{{maturity}}"),),
        "Share of the alerts that are at least so old that have a label.",
    ),
    Panel("Labels", "short", ((value_of("labels"), "labels"),), "Labels on record."),
    Panel(
        "Delay of labels",
        "s",
        ((value_of("label_delay_seconds", "percentile"), "p{{percentile}}"),),
        "From an event to its label.",
    ),
    Panel(
        "Actions",
        "cps",
        ((rate_of("actions_total", "action, outcome"), "{{action}}, {{outcome}}"),),
        "Actions in the audit log.",
    ),
    Panel(
        "Time to action",
        "s",
        quantiles_of("time_to_action_seconds"),
        "From the begin of a planned run to its actions.",
    ),
    Panel(
        "Tables that people read",
        "cps",
        ((rate_of("data_accesses_total", "table"), "{{table}}"),),
        "Tables that commands have read, by the audit log.",
    ),
)
MODEL = (
    Panel(
        "Calls",
        "cps",
        ((rate_of("model_calls_total", "model, outcome"), "{{model}}, {{outcome}}"),),
        "Requests to models, by how they ended.",
    ),
    Panel("Time of calls", "s", quantiles_of("model_call_duration_seconds", "model"), "What requests take."),
    Panel(
        "Answers",
        "cps",
        ((rate_of("model_answers_total", "outcome"), "{{outcome}}"),),
        "Answers about groups of alerts: answered is accepted.",
    ),
    Panel(
        "Tokens", "cps", ((rate_of("model_tokens_total", "direction"), "{{direction}}"),), "Tokens a second."
    ),
    Panel(
        "Cost an hour",
        "currencyUSD",
        ((f"3600 * {rate_of('model_cost_usd_total')}", "{{agent}}"),),
        "By the prices of the spec.",
    ),
    Panel(
        "Budget used",
        "percentunit",
        ((value_of("model_budget_used_ratio", "window, unit"), "{{window}}, {{unit}}"),),
        "Share of each limit that is used.",
    ),
    Panel(
        "Over budget",
        "cps",
        ((rate_of("model_budget_refusals_total", "window"), "{{window}}"),),
        "Requests a second that did not fit, by the window that is spent.",
    ),
    Panel(
        "Degraded",
        "percentunit",
        ((f"{rate_of('alerts_degraded_total')} / ({rate_of('alerts_total')} > 0)", "{{agent}}"),),
        "Share of alerts that went without the model that was to be asked.",
    ),
    Panel(
        "Circuit open",
        "short",
        ((value_of("model_circuit_open", "model"), "{{model}}"),),
        "1 while a model that has failed again and again is left alone.",
    ),
    Panel(
        "Alerts that wait",
        "short",
        ((value_of("late_answers_waiting"), "{{agent}}"),),
        "Alerts that have no late answer yet.",
    ),
    Panel(
        "Late answers",
        "cps",
        ((rate_of("late_answers_total", "outcome"), "{{outcome}}"),),
        "What became of alerts that waited.",
    ),
    Panel(
        "Agreement with labels",
        "percentunit",
        ((value_of("classification_agreement_ratio", "source"), "{{source}}"),),
        "Share of decided classifications that labels bear out.",
    ),
)
