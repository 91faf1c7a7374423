"""Which kind of document a file holds, told by keys that this kind alone has; people mix them up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

Kind = Literal["spec", "contract", "policy", "file of rules"]

# What a spec may hold as well is a file of rules where it stands alone.
_TELLING: Mapping[Kind, Collection[str]] = {
    "spec": ("data_sources",),
    "contract": ("transaction_id", "event_time", "amount"),
    "policy": ("policyName",),
    "file of rules": ("rules",),
}
_NAMED_UNDER: Mapping[Kind, str] = {
    "contract": "data_sources.transactions.contract",
    "policy": "policy",
    "file of rules": "rules_file",
}


def mistaken(content: Mapping[object, object], wanted: Kind) -> str | None:
    """Say that a document is of another kind than the one wanted, None where it does not show that it is."""
    found = next((kind for kind in _TELLING if _is(kind, content)), None)
    if found is None or found == wanted or any(key in content for key in _TELLING[wanted]):
        return None
    under = None
    if wanted == "spec":
        under = f"which names this file under {_NAMED_UNDER[found]}"
    elif found == "spec":
        under = f"such as the one that this file names under {_NAMED_UNDER[wanted]}"
    return f"this is a {found}; expected a {wanted}" + (f", {under}" if under else "")


def _is(kind: Kind, content: Mapping[object, object]) -> bool:
    keys = _TELLING[kind]
    return content.keys() == set(keys) if kind == "file of rules" else all(key in content for key in keys)
