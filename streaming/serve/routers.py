"""The routers of the API, in the order in which its description shows them."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from streaming.serve.agent_api import agent_router
from streaming.serve.alerts_api import alerts_router
from streaming.serve.audit_api import audit_router
from streaming.serve.cases_api import cases_router
from streaming.serve.entities_api import entities_router
from streaming.serve.figures_api import figures_router
from streaming.serve.labels_api import labels_router
from streaming.serve.quarantine_api import quarantine_router
from streaming.serve.registry_api import registry_router
from streaming.serve.rules_api import rules_router
from streaming.serve.score_api import score_router
from streaming.serve.what_ifs_api import what_ifs_router

ROUTERS: Sequence[APIRouter] = (
    alerts_router,
    entities_router,
    cases_router,
    labels_router,
    rules_router,
    registry_router,
    what_ifs_router,
    quarantine_router,
    figures_router,
    audit_router,
    agent_router,
    score_router,
)
