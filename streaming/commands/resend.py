"""`flagstream resend`: alerts of a span, sent to another topic."""

from __future__ import annotations

from streaming.audit.access import record_read
from streaming.commands.broker import broker_of
from streaming.history.replay_runs import ReplaySpan, check_topic, send_again
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts


def send_alerts_again(agent: PlacedAgent, wanted: ReplaySpan, topic: str, *, as_json: bool) -> None:
    """Send the alerts of a span once more and print how many.

    Raises:
        ConfigurationError: the topic is one of the agent's own, or the span cannot be had.
    """
    check_topic(agent.spec, topic)
    wanted.span(wanted.history(agent))  # refused before a broker is started
    with broker_of(agent.settings) as bootstrap:
        sent = send_again(agent, wanted, bootstrap, topic)
    record_read(agent, "replay-to-topic", [agent.spec.tables.alerts])
    show_facts(sent, as_json=as_json)
