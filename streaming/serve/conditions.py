"""How a condition of the server goes into its log: when it begins, changes its cause, and ends."""

from __future__ import annotations

import logging
from typing import Any

from streaming.output.log import log
from streaming.service.health import ActiveCondition, Condition


def log_condition(condition: Condition, state: ActiveCondition | None, agent: str | None = None) -> None:
    """Log that a condition holds, or, without a state, that it is over.

    Args:
        agent: whom it concerns, None for the server as a whole.
    """
    about: dict[str, Any] = {"condition": condition, **({} if agent is None else {"agent": agent})}
    if state is None:
        log("condition_over", f"{condition} is over", **about)
    else:
        said = f"{condition}: {state.cause}"
        log("condition_holds", said, level=logging.WARNING, cause=state.cause, **about)
