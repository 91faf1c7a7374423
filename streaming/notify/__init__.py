"""Alerts on their way to receivers: signed webhooks, Slack, e-mail, PagerDuty, by a file of routes."""
