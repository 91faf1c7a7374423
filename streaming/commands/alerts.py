"""`flagstream alerts`: alerts as a consumer of the topic gets them."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from agent.triage.untrusted_text import escaped
from streaming.commands.broker import broker_of
from streaming.commands.known_agents import check_known
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.topic import committed_messages, topic_exists
from streaming.output.terminal import Terminal, print_json_text, say_error

_WAIT_SECONDS = 1.0
_LONGEST_WRITTEN_OUT = 1e15


def show_alerts(agent: PlacedAgent, *, follow: bool, as_json: bool) -> None:
    """Print the alerts a read_committed consumer sees; with `follow`, wait for more until Ctrl-C.

    Raises:
        ConfigurationError: see check_known.
    """
    with broker_of(agent.settings) as bootstrap:
        if not follow and not topic_exists(bootstrap, agent.spec.alerts.topic):
            check_known(agent)
        print_alerts(bootstrap, agent.spec.alerts.topic, follow=follow, as_json=as_json)


def print_alerts(bootstrap: str, topic: str, *, follow: bool, as_json: bool) -> None:
    """Print the alerts a read_committed consumer sees, one line each, until the end or Ctrl-C."""
    console = Terminal()
    with suppress(KeyboardInterrupt):
        if not _appears(bootstrap, topic, follow=follow):
            return
        for message in committed_messages(bootstrap, topic, follow=follow):
            document = (message.value() or b"").decode()
            if as_json:
                print_json_text(document)
            else:
                line = alert_line(json.loads(document))
                console.print(line, soft_wrap=True)


def _appears(bootstrap: str, topic: str, *, follow: bool) -> bool:
    """Say on standard error when there are no alerts yet; wait for the first agent's topic if `follow`."""
    if topic_exists(bootstrap, topic):
        return True
    say_error(f"no alerts yet: topic {topic} appears when an agent first runs")
    while follow:
        time.sleep(_WAIT_SECONDS)
        if topic_exists(bootstrap, topic):
            return True
    return False


def alert_line(alert: dict[str, Any]) -> str:
    """Return one alert as a line of text."""
    reasons = "; ".join(reason["text"] for reason in alert["reasons"][:2])
    late = f", revision {alert['revision']}" if alert["revision"] > 1 else ""
    return escaped(
        f"{alert['event_time']}  {alert['severity']:<8} {alert['score']:.4f}  {alert['classification']} "
        f"({alert['classification_source']}{late})  {alert['transaction_id']}  "
        f"{_amount(alert['amount'])} {alert['currency']}  {reasons}"
    )


def _amount(amount: float) -> str:
    return f"{amount:.2f}" if amount < _LONGEST_WRITTEN_OUT else f"{amount:.6g}"
