"""Variables that Kubernetes, or a Docker link, puts into containers: they are nobody's settings.

A Service named `flagstream` gives each container of its namespace FLAGSTREAM_PORT=tcp://10.0.0.1:80 and more.
"""

from __future__ import annotations

import re

_SERVICE = r"FLAGSTREAM_(\w+_)?"
_PLACE = rf"{_SERVICE}PORT_\d+_(TCP|UDP|SCTP)"
_FORMS = tuple(
    (re.compile(name), re.compile(value))
    for name, value in (
        (rf"{_SERVICE}PORT|{_PLACE}", r"(tcp|udp|sctp)://\S+"),
        (rf"{_PLACE}_PROTO", r"tcp|udp|sctp"),
        (rf"{_PLACE}_PORT|{_SERVICE}SERVICE_PORT(_\w+)?", r"\d{1,5}"),
        (rf"{_PLACE}_ADDR|{_SERVICE}SERVICE_HOST", r"[0-9a-fA-F.:]+"),
    )
)


def is_of_a_service(name: str, value: str) -> bool:
    """Say whether a variable describes a Service, by the form of its name and of its value."""
    return any(names.fullmatch(name) and values.fullmatch(value) for names, values in _FORMS)
