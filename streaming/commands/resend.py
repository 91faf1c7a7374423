"""`flagstream resend`: alerts of a span, sent to another topic."""

from __future__ import annotations

from schemas.spec import AgentSpec
from streaming.audit.access import tell_read
from streaming.commands.broker import broker_of
from streaming.history.replay_runs import ReplaySpan, check_topic, send_again
from streaming.home.settings import Settings
from streaming.output.facts import show_facts


def send_alerts_again(
    settings: Settings, spec: AgentSpec, wanted: ReplaySpan, topic: str, *, as_json: bool
) -> None:
    """Send the alerts of a span once more and print how many.

    Raises:
        ConfigurationError: the topic is one of the agent's own, or the span cannot be had.
    """
    check_topic(spec, topic)
    wanted.span(wanted.history(settings, spec))  # refused before a broker is started
    with broker_of(settings) as bootstrap:
        sent = send_again(settings, spec, wanted, bootstrap, topic)
    tell_read(settings, spec, "replay-to-topic", [spec.tables.alerts])
    show_facts(sent, as_json=as_json)
