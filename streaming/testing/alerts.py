"""Alerts as a consumer of the topic reads them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from schemas.alert import ALERT_VERSION, ALERTS, LATER_FIELDS, Reason

_TIMES = ("event_time", "created_at")


def parse_alert(document: bytes) -> dict[str, Any]:
    """Read one alert's Kafka value: fields in order, times as UTC datetimes, reasons as `Reason`.

    Raises:
        ValueError: not JSON, a field is missing, or the version is another.
    """
    content = orjson.loads(document)
    if not isinstance(content, dict) or content.get("alert_version") != ALERT_VERSION:
        raise ValueError(f"expected an alert of version {ALERT_VERSION}")
    missing = [name for name in ALERTS.names if name not in content and name not in LATER_FIELDS]
    if missing:
        raise ValueError(f"alert without {', '.join(missing)}")
    alert: dict[str, Any] = {name: content.get(name) for name in ALERTS.names}
    for name in _TIMES:
        alert[name] = datetime.fromisoformat(alert[name])
    alert["reasons"] = [Reason(**reason) for reason in alert["reasons"]]
    return alert
