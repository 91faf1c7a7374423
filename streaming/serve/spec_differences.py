"""What two specs have otherwise, key by key; of lists of named things, such as rules, name by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from schemas.spec import AgentSpec

_ABSENT = object()


class SpecDifference(BaseModel):
    """A key that differs."""

    key: str = Field(description="with dots, such as rules.large.when")
    before: str | None = Field(description="as JSON; null where there was no such key")
    after: str | None = Field(description="as JSON; null where there is no such key any more")


def differences(before: AgentSpec, after: AgentSpec) -> list[SpecDifference]:
    """Return what two specs have otherwise, by key."""
    old, new = dict(_leaves("", _plain(before))), dict(_leaves("", _plain(after)))
    return [
        SpecDifference(key=key, before=_text(old, key), after=_text(new, key))
        for key in dict.fromkeys([*old, *new])
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]


def _plain(spec: AgentSpec) -> Any:
    return spec.model_dump(mode="json", by_alias=True)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What is empty is a leaf, too: that it became so is a difference."""
    if isinstance(value, Sequence) and not isinstance(value, str) and _are_named(value):
        value = {each["name"]: {name: it for name, it in each.items() if name != "name"} for each in value}
    if not isinstance(value, Mapping) or not value:
        yield key, value
        return
    for name, each in value.items():
        yield from _leaves(f"{key}.{name}" if key else name, each)


def _are_named(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(each, Mapping) and "name" in each for each in values)


def _text(leaves: Mapping[str, Any], key: str) -> str | None:
    return json.dumps(leaves[key], ensure_ascii=False) if key in leaves else None
