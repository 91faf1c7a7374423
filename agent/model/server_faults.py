"""What the faults that a server answers with mean."""

from __future__ import annotations

import openai

TOO_MANY_REQUESTS, SERVER_FAULTS = 429, 500
# What servers call a refusal by a filter, as the error's code or type.
_FILTERED = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "contentpolicyviolationerror",
        "data_inspection_failed",
        "datainspectionfailed",
        "invalid_prompt",
        "moderation_blocked",
        "responsibleaipolicyviolation",
    }
)


def is_refusal(fault: openai.APIStatusError) -> bool:
    """Whether a filter has refused what was asked, which says nothing of the server."""
    body = fault.body if isinstance(fault.body, dict) else {}
    inner = body.get("innererror")
    codes = (fault.code, fault.type, inner.get("code") if isinstance(inner, dict) else None)
    return fault.status_code < SERVER_FAULTS and any(str(each).lower() in _FILTERED for each in codes)


def retry_after(fault: openai.APIStatusError) -> float:
    """Return the seconds that a server asks to wait, 0 where it names none."""
    try:
        seconds = float(fault.response.headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return seconds if seconds > 0 else 0.0  # not a number is no number of seconds
