"""What two specs have otherwise, key by key; of lists of named things, such as rules, name by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
    """Return what two specs have otherwise, by key; what one side alone has is one difference."""
    return list(_differing("", *(each.model_dump(mode="json", by_alias=True) for each in (before, after))))


def _differing(key: str, old: Any, new: Any) -> Iterator[SpecDifference]:
    if _is_named(old) or _is_named(new):
        old, new = _by_name(old), _by_name(new)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            deeper = f"{key}.{name}" if key else name
            yield from _differing(deeper, old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif old != new:
        yield SpecDifference(key=key, before=_text(old), after=_text(new))


def _is_named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, Mapping) and "name" in each for each in value)
    )


def _by_name(value: Any) -> Any:
    """Where one side names nothing, its list is empty."""
    if value == [] or _is_named(value):
        return {each["name"]: {name: it for name, it in each.items() if name != "name"} for each in value}
    return value


def _text(value: Any) -> str | None:
    return None if value is _ABSENT else json.dumps(value, ensure_ascii=False)
